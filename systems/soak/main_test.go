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
	require.Regexp(t, `\nok +at rest quic-go holds no stream +0 streams held, 0 counted open\n`, out.String())
	require.Regexp(t, `\nok \(quiclife\): all \d+ as expected\. [1-9]\d* streams were forgotten`, out.String())
	quictest.RequireNoGoroutines(t)
}
