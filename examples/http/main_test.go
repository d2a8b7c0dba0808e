package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/leaktest"
)

func TestShutdownWaitsForTheAnswer(t *testing.T) {
	leaktest.Check(t, quiclife.DefaultGuard) // the client's
	var out bytes.Buffer
	require.NoError(t, run(&out), "it said: %s", &out)
	require.Equal(t, `"/, over example-http", error: <nil>
"/about, over example-http", error: <nil>
streams: 1 opened, 1 open, kept for the next request
Shutdown: <nil>
"first half, second half", error: <nil>
`, out.String())
}
