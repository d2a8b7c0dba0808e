package quiclife_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// TestReportedOnce: a stream that was reported is not reported again for
// another reason.
func TestReportedOnce(t *testing.T) {
	var found leaks
	guard := &quiclife.Guard{OnLeak: found.add, AbandonGrace: -1, IdleTimeout: time.Second}
	setup{guard: guard}.in(t, func(t *testing.T, e ends) {
		drop(t, e.client, func(s *quiclife.Stream) { s.Write([]byte("x")) })
		runtime.GC()
		e.client.Stats()
		settled()
		settled()
		require.Len(t, found.list(), 1)
	})
}

// TestDroppedWhileItEnds: a dropped stream of which the end has just become
// known, but has not been consumed yet, is no leak.
func TestDroppedWhileItEnds(t *testing.T) {
	var found leaks
	setup{guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
		looked := false
		drop(t, e.client, func(s *quiclife.Stream) {
			s.SetReceiveFinalSizeCallback(func(int64) { // called before the end is consumed
				runtime.GC()
				e.client.Stats()
				looked = true
			})
			write(t, s, "x")
			s.CancelWrite(1)
		})
		s, err := e.server.AcceptStream(t.Context())
		require.NoError(t, err)
		s.Release()
		settled()
		require.True(t, looked)
		require.Empty(t, found.list())
		e.requireNothingLeft(t)
	})
}
