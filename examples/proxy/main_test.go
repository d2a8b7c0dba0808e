package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quiclife/quiclife/examples/internal/lab"
)

func TestQuiclife(t *testing.T) {
	var out bytes.Buffer
	err := system.Do(&out, lab.Options{For: 2 * time.Second})
	t.Log("\n" + out.String())
	require.NoError(t, err)
	require.Regexp(t, `(?m)^answered [1-9]\d* whole, [1-9]\d* left half-way by their clients, 0 failed$`, out.String())
	require.Regexp(t, `(?m)^held .* in the end 0$`, out.String())
	require.Contains(t, out.String(), "\nok (quiclife)\n")
	requireNoGoroutines(t)
}

// On quic-go all is answered too, and the streams stay.
func TestPlain(t *testing.T) {
	var out bytes.Buffer
	err := system.Do(&out, lab.Options{For: time.Second, Plain: true})
	t.Log("\n" + out.String())
	require.ErrorContains(t, err, "streams are held in the end")
	require.NotContains(t, err.Error(), "requests failed")
	require.NotContains(t, err.Error(), "goroutines are left")
	require.Contains(t, out.String(), "\nFAILED (quic-go): ")
	requireNoGoroutines(t)
}

// goleak waits 0.4 s; the transport of a quic-go listener stays for three
// probe timeouts, which may be longer.
func requireNoGoroutines(t *testing.T) {
	var err error
	for range 10 {
		if err = goleak.Find(); err == nil {
			return
		}
	}
	require.NoError(t, err)
}
