package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEachLimitSaysWhatItIs(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(&out), "it said: %s", &out)
	for _, line := range []string{
		"MaxConns: CONNECTION_REFUSED (remote)",
		"MaxOutgoingStreams: quiclife: this side's limit of bidirectional streams reached: limit 2, 2 open",
		"  its fields: scope outgoing, 2 of 2 open, the oldest is stream 0",
		"MaxStreams: stream 4 canceled by remote with error code 1, is codeBusy: true",
		"IdleTimeout: stream 0 canceled by remote with error code 2, is codeIdle: true",
		"server: 2 streams accepted, 1 refused at MaxStreams, 1 ended as idle, 0 open",
	} {
		require.Contains(t, out.String(), line)
	}
}
