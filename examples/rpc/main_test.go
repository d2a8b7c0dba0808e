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
		`client: whoami: "you are rpc client", error: <nil>`,
		`client: fly: no such method: true`,
		`server: stream 4: no such method`,
		`client: wait: out of time: true`,
		`server: stream 8: stream 8 canceled by remote with error code 0`,
		`streams open: 0`,
	} {
		require.Contains(t, out.String(), line)
	}
}
