package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/leaktest"
)

func TestOnlyTheStubbornStreamIsCut(t *testing.T) {
	leaktest.Check(t, quiclife.DefaultGuard) // the client's
	var out bytes.Buffer
	require.NoError(t, run(&out), "it said: %s", &out)
	require.Contains(t, out.String(), "BeforeShutdown: the listener is closed")
	require.Regexp(t, `(?m)^  cut: stream [04], with 5 bytes written$`, out.String())
	require.Contains(t, out.String(), "client: feed ended, error: <nil>\n")
	require.Regexp(t, `client: stubborn ended, error: .*(error code 9|error 0x9)`, out.String())
}
