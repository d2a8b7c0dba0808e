package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOnlyQuicGoRunsOutOfStreams(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(&out), "it said: %s", &out)
	require.Regexp(t, `(?m)^quic-go:  100 answers, then: too many open streams$`, out.String())
	require.Regexp(t, `(?m)^quiclife: 200 answers, then: <nil>; held by the client 0, by the server 0$`, out.String())
	require.Regexp(t, `(?m)^remember: held by the client 0, error: <nil>$`, out.String())
	require.Regexp(t, `(?m)^forget:   held by the client 1, error: <nil>$`, out.String())
	require.Regexp(t, `(?m)^leak:     stream 804 .*\.forget .*dropped`, out.String())
}
