package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOnlyQuicGoRunsOutOfStreams(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(&out), "it said: %s", &out)
	require.Regexp(t, `(?m)^quic-go:  100 of 200 answers, error: too many open streams$`, out.String())
	require.Regexp(t, `(?m)^quiclife: 200 of 200 answers, error: <nil>; streams held by the client 0, by the server 0$`, out.String())
	require.Regexp(t, `(?m)^remember: error: <nil>; streams held by the client 0, thanks to Release$`, out.String())
	require.Regexp(t, `(?m)^forget:   error: <nil>; streams held by the client 1, until a garbage collection$`, out.String())
	require.Regexp(t, `(?m)^OnLeak:   stream 804 .*\.forget .*dropped`, out.String())
}
