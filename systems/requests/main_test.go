package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

func TestRun(t *testing.T) {
	var out bytes.Buffer
	err := system.Do(&out, lab.Options{For: 2 * time.Second})
	t.Log("\n" + out.String())
	require.NoError(t, err)
	require.Regexp(t, `quiclife +quic-go +100 of 2000 .* the limit +0 +100 +\d+\n`, out.String())
	require.Regexp(t, `quiclife +quiclife Serve +\d+ of 100000 .* 0 +0 +0\n`, out.String())
	require.Regexp(t, `opened by us \S+ ago at \S+\.request\[`, out.String())
	require.Contains(t, out.String(), "ok (quiclife)\n")
	quictest.RequireNoGoroutines(t)
}

func TestPlain(t *testing.T) {
	var out bytes.Buffer
	err := system.Do(&out, lab.Options{For: 2 * time.Second, Plain: true})
	t.Log("\n" + out.String())
	require.ErrorContains(t, err, "stuck after 100 of 100000 requests")
	require.ErrorContains(t, err, "too many open streams")
	require.ErrorContains(t, err, "context deadline exceeded")
	require.ErrorContains(t, err, "held: 100 streams by the client, 100 by the server")
	quictest.RequireNoGoroutines(t)
}
