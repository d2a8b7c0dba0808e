package main

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

// The producers that are processes of their own are this test binary.
func TestMain(m *testing.M) {
	if isChild() {
		os.Exit(childMain())
	}
	os.Exit(m.Run())
}

func TestQuiclife(t *testing.T) {
	var out bytes.Buffer
	err := system(patience{stall: 10 * time.Second, dead: 6 * time.Second, rest: 15 * time.Second, drain: 10 * time.Second}).Do(&out, lab.Options{For: 2 * time.Second})
	t.Log("\n" + out.String())
	require.NoError(t, err)
	require.Regexp(t, `restart  the collector shut down in .*, after [1-9]\d* batches`, out.String())
	require.Regexp(t, `kill -9  producer 4, a process, after [1-9]\d* acknowledgements`, out.String())
	require.Regexp(t, `at rest  0 streams held, .* [1-9]\d* batches refused, [1-9]\d* panics; leaks: the collector's 0,`, out.String())
	require.Regexp(t, `file     [1-9]\d* lines; [1-9]\d* batches acknowledged, 0 of their lines missing; .*, 0 of others`, out.String())
	require.Contains(t, out.String(), "ok (quiclife)\n")
	quictest.RequireNoGoroutines(t)
}

// With plain quic-go what went wrong is held, and handlers wait for ever.
func TestPlain(t *testing.T) {
	var out bytes.Buffer
	err := system(patience{stall: time.Second / 10, dead: 2 * time.Second, rest: time.Second, drain: time.Second / 2}).Do(&out, lab.Options{For: time.Second, Plain: true})
	t.Log("\n" + out.String())
	require.ErrorContains(t, err, "there are handlers that do not end")
	require.Regexp(t, `quic-go holds [1-9]\d* streams\n`, err.Error())
	require.Contains(t, out.String(), "FAILED (quic-go)")
	quictest.RequireNoGoroutines(t)
}
