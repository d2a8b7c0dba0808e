package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quiclife/quiclife/examples/internal/lab"
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
	nothingLeft(t)
}

func TestPlain(t *testing.T) {
	var out bytes.Buffer
	err := system.Do(&out, lab.Options{For: 2 * time.Second, Plain: true})
	t.Log("\n" + out.String())
	require.ErrorContains(t, err, "stuck after 100 of 100000 requests")
	require.ErrorContains(t, err, "too many open streams")
	require.ErrorContains(t, err, "context deadline exceeded")
	require.ErrorContains(t, err, "held: 100 streams by the client, 100 by the server")
	nothingLeft(t)
}

// nothingLeft finds goroutines that are left. goleak waits 0.4 s; the transport
// of a quic-go listener stays for three probe timeouts, which may be longer.
func nothingLeft(t *testing.T) {
	var err error
	for range 10 {
		if err = goleak.Find(); err == nil {
			return
		}
	}
	require.NoError(t, err)
}
