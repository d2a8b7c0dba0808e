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
	require.Regexp(t, `opened\s+by\s+us\s+\S+\s+ago\s+at\s+\S+\.request\[`, out.String())
	require.Regexp(t, `\nok \(quiclife with Serve\): all \d+ as expected\. \d+ requests went through a limit of 100`, out.String())
	quictest.RequireNoGoroutines(t)
}

func TestPlain(t *testing.T) {
	var out bytes.Buffer
	err := system.Do(&out, lab.Options{For: 2 * time.Second, Plain: true})
	t.Log("\n" + out.String())
	require.ErrorContains(t, err, "requests go on beyond the limit of 100: 100 of 100000 requests")
	require.ErrorContains(t, err, "at rest quic-go holds no stream: 100 by the client, 100 by the server")
	require.Contains(t, out.String(), "OpenStream: too many open streams\n")
	require.Regexp(t, `OpenStreamSync, after \S+: context deadline exceeded\n`, out.String())
	require.Regexp(t, `\d -- limit reached\n`, out.String())
	require.Regexp(t, `\d -- load ends\n`, out.String())
	require.Contains(t, out.String(), "\nFAILED (quic-go): 2 of 3 not as expected. Stuck for ever after 100 requests")
	quictest.RequireNoGoroutines(t)
}

// A server that drops its streams still makes progress, at the pace of garbage
// collections.
func TestImport(t *testing.T) {
	var out bytes.Buffer
	err := system.Do(&out, lab.Options{For: 2 * time.Second, Import: true})
	t.Log("\n" + out.String())
	require.NoError(t, err)
	require.Regexp(t, `\d -- limit reached\n`, out.String())
	require.Regexp(t, `\nok \(quiclife, import alone\): all \d+ as expected\. The server dropped its streams`, out.String())
	quictest.RequireNoGoroutines(t)
}
