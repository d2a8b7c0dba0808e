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
	require.Contains(t, out.String(), "ok (quiclife)")
	require.Contains(t, out.String(), "at rest 0\n")
	quictest.RequireNoGoroutines(t)
}
