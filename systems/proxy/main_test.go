package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

func TestQuiclife(t *testing.T) {
	var out bytes.Buffer
	err := system.Do(&out, lab.Options{For: 2 * time.Second})
	t.Log("\n" + out.String())
	require.NoError(t, err)
	require.Regexp(t, `(?m)^answered [1-9]\d* whole, [1-9]\d* left half-way by their clients, 0 failed$`, out.String())
	require.Regexp(t, `(?m)^held .* in the end 0$`, out.String())
	require.Contains(t, out.String(), "\nok (quiclife)\n")
	quictest.RequireNoGoroutines(t)
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
	quictest.RequireNoGoroutines(t)
}
