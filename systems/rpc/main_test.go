package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

func TestGuarded(t *testing.T) {
	var out bytes.Buffer
	sz := size{conns: 100, idleTimeout: 3 * time.Second, rest: 10 * time.Second}
	err := system(&sz).Do(&out, lab.Options{For: 2 * time.Second})
	t.Log("\n" + out.String())
	require.NoError(t, err)
	require.Regexp(t, `\nok +above MaxConns all are refused at once +[1-9]\d* refused .*, 0\s+let\s+in\n`, out.String())
	require.Regexp(t, `\nok +above MaxHeap all are refused at once +20 refused .*, 0\s+let\s+in\n`, out.String())
	require.Regexp(t, `\nok +Echo is answered, whatever goes on +[1-9]\d* answered, 0 not;`, out.String())
	require.Regexp(t, `\nok +at rest quic-go holds no stream +0 streams held, 0 counted open`, out.String())
	require.Regexp(t, `(?s) -- connected: 100 connections .* -- cache full\n.* -- cache dropped\n.* -- load ends\n`, out.String())
	require.Regexp(t, `\nok \(quiclife\): all \d+ as expected\. Too many are refused`, out.String())
	quictest.RequireNoGoroutines(t)
}

func TestPlain(t *testing.T) {
	var out bytes.Buffer
	sz := size{conns: 100, rest: time.Second}
	err := system(&sz).Do(&out, lab.Options{For: time.Second, Plain: true})
	t.Log("\n" + out.String())
	require.Error(t, err)
	require.Regexp(t, `above MaxConns all are refused at once: 0 refused, [1-9]\d* let in`, err.Error())
	require.Regexp(t, `above MaxHeap all are refused at once: 0 refused, [1-9]\d* let in`, err.Error())
	require.Regexp(t, `silent requests are ended, and reported: 0 of [1-9]\d* ended, 0 reported`, err.Error())
	require.ErrorContains(t, err, "callers of broken methods are told so: ")
	require.ErrorContains(t, err, "at rest quic-go holds no stream: ")
	require.Regexp(t, `\nFAILED \(quic-go\): \d+ of \d+ not as expected\. All are let in, and [1-9]`, out.String())
	quictest.RequireNoGoroutines(t)
}
