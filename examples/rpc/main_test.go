package main

import (
	"bytes"
	"log"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/leaktest"
)

func TestErrorsReachTheOtherEnd(t *testing.T) {
	leaktest.Check(t, quiclife.DefaultGuard)
	var out bytes.Buffer
	require.NoError(t, run(log.New(&out, "", 0)), "it said: %s", &out)
	for _, line := range []string{
		`client: whoami: "you are a client that speaks rpc", error: <nil>`,
		`client: fly: the server has no such method`,
		`server: handler of stream 4 failed: no such method`,
		`client: wait: gave up after 100ms`,
		`server: handler of stream 8 failed: stream 8 canceled by remote with error code 0`,
		`client: streams open: 0`,
	} {
		require.Contains(t, out.String(), line)
	}
}
