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
	conf := defaults
	conf.patience, conf.settle = 15*time.Second, 15*time.Second // on a busy machine nothing may run for seconds
	var out bytes.Buffer
	err := system(conf).Do(&out, lab.Options{For: 2 * time.Second})
	t.Log("\n" + out.String())
	require.NoError(t, err)
	require.Contains(t, out.String(), "the application counts 60 streams, quic-go holds 60, gossip accounts for 60\n")
	require.Contains(t, out.String(), "the application counts 0 streams, quic-go holds 0, gossip accounts for 0\n")
	require.Contains(t, out.String(), "ok (quiclife)\n")
	require.Regexp(t, `restarts +[1-9]`, out.String())
	require.Regexp(t, `leaks +[1-9]\d* found and ended`, out.String())
	quictest.RequireNoGoroutines(t)
}

// The limit is low, so that it is reached in a short time.
func TestPlain(t *testing.T) {
	var out bytes.Buffer
	err := system(config{maxStreams: 20, patience: time.Second, settle: 200 * time.Millisecond}).Do(&out, lab.Options{For: 3 * time.Second, Plain: true})
	t.Log("\n" + out.String())
	require.Error(t, err)
	require.Regexp(t, `servers to clients: \d+ opens failed, stuck on [1-9]`, err.Error())
	require.NotRegexp(t, `clients to servers: \d+ opens failed, stuck on [1-9]`, err.Error())
	require.Regexp(t, `at client \d with server \d it is \d, 2\d and 2\n`, err.Error())
	quictest.RequireNoGoroutines(t)
}
