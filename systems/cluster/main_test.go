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
	conf.patience, conf.settle = 15*time.Second, 15*time.Second // a busy machine may run nothing for seconds
	var out bytes.Buffer
	err := system(conf).Do(&out, lab.Options{For: 2 * time.Second})
	t.Log("\n" + out.String())
	require.NoError(t, err)
	require.Regexp(t, `ok +with gossip alone, 60 streams are left +the program counts 60, quic-go holds 60\n`, out.String())
	require.Regexp(t, `ok +when gossip has ended, 0 streams are left +the program counts 0, quic-go holds 0\n`, out.String())
	require.Regexp(t, `\d -- restart: client \d\n`, out.String())
	require.Regexp(t, `\nok \(quiclife\): all \d+ as expected\. Both counts agree, and [1-9]\d* restarts lost nothing\. [1-9]\d*\sstreams`, out.String())
	quictest.RequireNoGoroutines(t)
}

// The limit is low, so that the test reaches it quickly.
func TestPlain(t *testing.T) {
	var out bytes.Buffer
	err := system(config{maxStreams: 20, patience: time.Second, settle: 200 * time.Millisecond}).Do(&out, lab.Options{For: 3 * time.Second, Plain: true})
	t.Log("\n" + out.String())
	require.Error(t, err)
	require.Regexp(t, `requests of servers are answered: .* \(stuck on [1-9]\d* of 15 connections\)`, err.Error())
	require.NotRegexp(t, `requests of clients are answered: .* \(stuck on [1-9]`, err.Error())
	require.Regexp(t, `with gossip alone, 60 streams are left: .*; on client \d with server \d \d and 2\d\n`, err.Error())
	require.Regexp(t, `\nFAILED \(quic-go\): \d+ of \d+ not as expected\. Streams that one handler forgot`, out.String())
	quictest.RequireNoGoroutines(t)
}
