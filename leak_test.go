package quiclife_test

import (
	"context"
	"io"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// No ignore list: any goroutine left at the end is a leak.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestStreamsThatComeAndGoLeaveNothing opens and ends 2,000 streams at a limit
// of 10, and resets every third one. No stream may be left in quic-go, no
// goroutine may be left, and the heap may not grow. QUICLIFE_CYCLES sets the
// number of streams.
func TestStreamsThatComeAndGoLeaveNothing(t *testing.T) {
	careful := func(s *quiclife.Stream, n int) {
		defer s.Release()
		if n%3 == 0 {
			s.Write([]byte("req"))
			s.Reset(1)
			return
		}
		s.Write([]byte("request"))
		s.Close()
		io.ReadAll(s)
	}
	serveCareful := func(s *quiclife.Stream) {
		defer s.Release()
		if b, err := io.ReadAll(s); err == nil {
			s.Write(b)
			s.Close()
		}
	}
	// Careless ends read just what they need, never see an EOF, and end only
	// their send half.
	careless := func(s *quiclife.Stream, n int) {
		if n%3 == 0 {
			s.Write([]byte("req"))
			s.CancelWrite(1)
			return
		}
		s.Write([]byte("request"))
		s.Close()
		io.ReadFull(s, make([]byte, 7))
	}
	serveCareless := func(s *quiclife.Stream) {
		defer s.Close()
		b := make([]byte, 7)
		if _, err := io.ReadFull(s, b); err == nil {
			s.Write(b)
		}
	}
	t.Run("careful", func(t *testing.T) { testCycles(t, careful, serveCareful) })
	t.Run("careless", func(t *testing.T) { testCycles(t, careless, serveCareless) })
}

func testCycles(t *testing.T, request func(*quiclife.Stream, int), serve func(*quiclife.Stream)) {
	cycles := 2000
	if s := os.Getenv("QUICLIFE_CYCLES"); s != "" {
		var err error
		cycles, err = strconv.Atoi(s)
		require.NoError(t, err)
	}
	guard := &quiclife.Guard{OnLeak: func(l quiclife.Leak) { t.Error("reported:", l.Stream) }}
	conf := &quic.Config{MaxIncomingStreams: 10}
	e := setup{guard: guard, clientConf: conf, serverConf: conf}.onLoopback(t)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			s, err := e.server.AcceptStream(context.Background())
			if err != nil {
				return
			}
			serving.Go(func() { serve(s) })
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var early []weak.Pointer[quic.Stream] // to quic-go's own streams
	var heap uint64
	goroutines := 0
	for n := range cycles {
		if n == cycles/10 {
			eventually(t, func() bool { return quictest.Held(e.rawClient) == 0 })
			heap, goroutines = quictest.HeapAlloc(), runtime.NumGoroutine()
		}
		s, err := e.client.OpenStreamSync(ctx)
		require.NoError(t, err, "cycle %d", n)
		if n < 100 {
			early = append(early, weak.Make(quiclife.RawStream(s)))
		}
		request(s, n)
	}
	eventually(t, func() bool { return quictest.Held(e.rawClient)+quictest.Held(e.rawServer) == 0 })
	eventually(t, func() bool { return e.client.Stats().Open()+e.server.Stats().Open() == 0 })
	e.requireNothingLeft(t)
	for _, end := range []quiclife.StreamStats{e.client.Stats().Outgoing, e.server.Stats().Incoming} {
		// A stream that is reset before anything was sent on it is still opened
		// at the peer.
		require.EqualValues(t, cycles, end.Opened)
		require.Zero(t, end.Reclaimed)
		require.GreaterOrEqual(t, end.Reset, int64(cycles/3))
		require.LessOrEqual(t, end.Peak, int64(10+10)) // some have ended here, but not yet at the peer
	}
	after := quictest.HeapAlloc()
	require.Less(t, int64(after)-int64(heap), int64(512<<10), "%d bytes before, %d after", heap, after)
	require.LessOrEqual(t, runtime.NumGoroutine(), goroutines+2)
	for i, raw := range early {
		require.Nil(t, raw.Value(), "stream %d is held", i)
	}
	e.client.CloseWithError(0, "")
	serving.Wait()
}
