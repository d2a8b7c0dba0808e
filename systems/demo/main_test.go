package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
)

// run itself checks that quiclife leaves no stream. The test adds that neither
// run leaves a goroutine. What quic-go does is shown, not tested.
func TestRun(t *testing.T) {
	var out bytes.Buffer
	err := run(&out, options{requests: 1200, patience: 2 * time.Second})
	t.Log("\n" + out.String())
	require.NoError(t, err)
	_, ours, found := bytes.Cut(out.Bytes(), []byte("\nquiclife"))
	require.True(t, found)
	require.Contains(t, string(ours), "requests  1200 of 1200, ")
	require.Contains(t, string(ours), "left      0 streams at the client, 0 at the server\n")
	require.Regexp(t, `\nok: quic-go (got stuck after \d+ requests|did not get stuck this time)\. With quiclife all 1200 were made, and nothing is left\.\n$`, string(ours))
	quictest.RequireNoGoroutines(t)
}
