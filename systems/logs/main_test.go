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

// The producers in separate processes run this test binary.
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
	require.Regexp(t, ` -- shutdown: after [1-9]\d* batches\n(.*\n)* +\S+ -- restarted: \S+ later\n`, out.String())
	require.Regexp(t, ` -- kill -9: producer 4, after [1-9]\d* acknowledgements\n`, out.String())
	require.Regexp(t, `\nok +at rest quic-go holds no stream +0, and 0 in the other process; 0 counted open\n`, out.String())
	require.Regexp(t, `\nok +the collector leaks no stream +0 reported;`, out.String())
	require.Regexp(t, `\nok +what was acknowledged is in the file +[1-9]\d* lines of [1-9]\d* batches; 0 are missing\n`, out.String())
	require.Regexp(t, `\nok \(quiclife\): all \d+ as expected\. [1-9]\d* batches went wrong and left nothing behind`, out.String())
	quictest.RequireNoGoroutines(t)
}

// On plain quic-go the streams of faulty batches stay, and handlers wait for
// ever.
func TestPlain(t *testing.T) {
	var out bytes.Buffer
	err := system(patience{stall: time.Second / 10, dead: 2 * time.Second, rest: time.Second, drain: time.Second / 2}).Do(&out, lab.Options{For: time.Second, Plain: true})
	t.Log("\n" + out.String())
	require.ErrorContains(t, err, "there are handlers that do not end")
	require.Regexp(t, `at rest quic-go holds no stream: [1-9]\d*, and `, err.Error())
	require.Regexp(t, `\nFAILED \(quic-go\): \d+ of \d+ not as expected\. Each batch that goes wrong`, out.String())
	quictest.RequireNoGoroutines(t)
}
