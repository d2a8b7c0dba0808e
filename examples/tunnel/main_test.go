package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/leaktest"
)

func TestHalfCloseGoesThroughTheTunnel(t *testing.T) {
	leaktest.Check(t, quiclife.DefaultGuard)
	var out bytes.Buffer
	require.NoError(t, run(&out), "it said: %s", &out)
	require.Contains(t, out.String(), `the server says "100000 bytes, error: <nil>", the client's error: <nil>`)
	require.Contains(t, out.String(), "streams: {Open:0 Peak:1 Opened:1 Finished:1 ")
}

// TestWhatWasCutDoesNotLookWhole makes pass fail half-way. Then join must not end
// the other side as if everything had been passed on.
func TestWhatWasCutDoesNotLookWhole(t *testing.T) {
	client, server := leaktest.Pair(t, nil, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	near, err := client.DialContext(ctx, "", "")
	require.NoError(t, err)
	_, err = near.Write([]byte("half"))
	require.NoError(t, err)
	far, err := server.AcceptStream(ctx)
	require.NoError(t, err)
	_, err = io.ReadFull(far, make([]byte, 4))
	require.NoError(t, err)

	ours, theirs := net.Pipe() // theirs fails without an end, like a TCP connection that is reset
	defer theirs.Close()
	joined := make(chan error, 1)
	go func() { joined <- join(near.(conn), failing{ours}) }()
	_, err = io.ReadAll(far)
	var reset *quiclife.StreamError
	require.ErrorAs(t, err, &reset, "the far end should read a reset")
	require.EqualValues(t, 1, reset.ErrorCode)
	require.ErrorIs(t, <-joined, errCut)
	far.Release()
}

var errCut = errors.New("cut")

type failing struct{ net.Conn }

func (failing) Read([]byte) (int, error) { return 0, errCut }
func (failing) CloseWrite() error        { return nil }
