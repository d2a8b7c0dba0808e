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
	require.Regexp(t, `above MaxConns: [1-9]\d* refused .*, 0 let in`, out.String())
	require.Regexp(t, `above MaxHeap: 20 refused .*, 0 let in`, out.String())
	require.Regexp(t, `Echo: [1-9]\d* answered, 0 failed`, out.String())
	require.Contains(t, out.String(), "at rest: 0 streams held by quic-go, 0 counted open\n")
	require.Contains(t, out.String(), "ok (quiclife)\n")
	quictest.RequireNoGoroutines(t)
}

func TestPlain(t *testing.T) {
	var out bytes.Buffer
	sz := size{conns: 100, rest: time.Second}
	err := system(&sz).Do(&out, lab.Options{For: time.Second, Plain: true})
	t.Log("\n" + out.String())
	require.Error(t, err)
	require.Regexp(t, `above MaxConns [1-9]\d* connections were let in, 0 refused`, err.Error())
	require.Regexp(t, `above MaxHeap [1-9]\d* connections were let in, 0 refused`, err.Error())
	require.ErrorContains(t, err, "silent calls the server ended 0\n")
	require.ErrorContains(t, err, "came back with the wrong error or none")
	require.ErrorContains(t, err, "streams are held by quic-go")
	quictest.RequireNoGoroutines(t)
}
