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
	require.Regexp(t, `(?m)^ok +every request is answered +[1-9]\d* whole, [1-9]\d* left by their clients, 0 failed$`, out.String())
	require.Regexp(t, `(?m)^ok +at rest quic-go holds no stream +0 streams held$`, out.String())
	require.Regexp(t, `\nok \(quiclife\): all \d+ as expected\. Each stream went`, out.String())
	quictest.RequireNoGoroutines(t)
}

// On quic-go all requests are answered too, but the streams stay.
func TestPlain(t *testing.T) {
	var out bytes.Buffer
	err := system.Do(&out, lab.Options{For: time.Second, Plain: true})
	t.Log("\n" + out.String())
	require.ErrorContains(t, err, "at rest quic-go holds no stream: ")
	require.NotContains(t, err.Error(), "every request is answered")
	require.NotContains(t, err.Error(), "goroutines left")
	require.Regexp(t, `\nFAILED \(quic-go\): \d of \d not as expected\. [1-9]\d* streams outlived their requests\.`, out.String())
	quictest.RequireNoGoroutines(t)
}
