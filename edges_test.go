package quiclife_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"
	"github.com/quic-go/quic-go/testutils/events"
	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// Any of three may go, the others stay listed, in order.
func TestEdgeRegistry(t *testing.T) {
	for gone := range 3 {
		setup{}.in(t, func(t *testing.T, e ends) {
			var all []*quiclife.Stream
			var want []quiclife.StreamID
			for i := range 3 {
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				all = append(all, s)
				if i != gone {
					want = append(want, s.StreamID())
				}
			}
			all[gone].Release()
			list := func() (ids []quiclife.StreamID) {
				for info := range e.client.Streams() {
					ids = append(ids, info.ID)
				}
				return
			}
			require.Equal(t, want, list(), "without the one at %d", gone)
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			require.Equal(t, append(want, s.StreamID()), list())
			for _, s := range append(all, s) {
				s.Release()
			}
			require.Empty(t, list())
			require.EqualValues(t, 3, e.client.Stats().Outgoing.Peak) // with none open
		})
	}
}

func TestEdgePeak(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		a, _ := e.client.OpenStream()
		b, _ := e.client.OpenStream()
		a.Release()
		b.Release()
		a, _ = e.client.OpenStream()
		a.Release()
		require.EqualValues(t, 2, e.client.Stats().Outgoing.Peak)
	})
}

// An ended stream that the program still holds holds no others.
func TestEdgeChain(t *testing.T) {
	e := setup{}.onLoopback(t)
	first, err := e.client.OpenStream()
	require.NoError(t, err)
	second, err := e.client.OpenStream()
	require.NoError(t, err)
	first.Release()
	raw := weak.Make(quiclife.RawStream(second))
	second.Release()
	second = nil
	eventually(t, func() bool { runtime.GC(); return raw.Value() == nil })
	runtime.KeepAlive(first)
	e.client.CloseWithError(0, "")
}

// Frames.
func TestEdgeFrames(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(s *quiclife.Stream)
		want []string
	}{
		{"Close, CancelWrite before delivery", func(s *quiclife.Stream) { s.Write([]byte("lost")); s.Close(); s.CancelWrite(5) }, []string{"RESET_STREAM 5"}},
		{"Detach, CancelRead", func(s *quiclife.Stream) { s.Detach(); s.CancelRead(5) }, []string{"STOP_SENDING 5"}},
		{"Detach, CancelWrite", func(s *quiclife.Stream) { s.Detach(); s.CancelWrite(5) }, []string{"RESET_STREAM 5"}},
		{"Close, Detach, Reset", func(s *quiclife.Stream) { s.Write([]byte("x")); s.Close(); s.Detach(); s.Reset(5) }, []string{"FIN"}},
		{"CancelRead, Detach, Reset", func(s *quiclife.Stream) { s.CancelRead(4); s.Detach(); s.Reset(5) }, []string{"STOP_SENDING 4"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			recorder := &events.Recorder{}
			conf := matrixConf.Clone()
			conf.Tracer = func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace {
				return &events.Trace{Recorder: recorder}
			}
			setup{serverConf: conf}.in(t, func(t *testing.T, e ends) {
				s, peer := e.stream(t)
				settled()
				recorder.Clear()
				c.do(s)
				settled()
				got := endFrames(recorder)
				if c.name == "Close, CancelWrite before delivery" { // the FIN may have been sent, but not yet delivered
					got = slices.DeleteFunc(got, func(f string) bool { return f == "FIN" })
				}
				require.Equal(t, c.want, got)
				s.Detach().CancelRead(0)
				s.Detach().CancelWrite(0)
				peer.Release()
			})
		})
	}
}

// TryWriteAll during a blocked Write does not hide that Write from Close.
func TestEdgeTryDuringWrite(t *testing.T) {
	setup{serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		done := make(chan error)
		go func() { _, err := s.Write(large); done <- err }()
		settled()
		require.Equal(t, quiclife.ErrWouldBlock, s.TryWriteAll([]byte("x")))
		require.Equal(t, quiclife.ErrWriteCut, s.Close())
		require.Error(t, <-done)
		_, err := io.ReadAll(peer)
		require.ErrorIs(t, err, &quiclife.StreamError{StreamID: peer.StreamID(), Remote: true})
		s.Release()
		peer.Release()
	})
}

// The second of two blocked Writes is cut by Close, though the first was complete.
func TestEdgeSecondWrite(t *testing.T) {
	setup{serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		done := make(chan error, 2)
		for range 2 {
			go func() { _, err := s.Write(make([]byte, 30_000)); done <- err }()
			settled()
		}
		io.ReadFull(peer, make([]byte, 32_000))
		settled()
		require.NoError(t, <-done)
		require.Equal(t, quiclife.ErrWriteCut, s.Close())
		require.Error(t, <-done)
		_, err := io.ReadAll(peer)
		require.ErrorIs(t, err, &quiclife.StreamError{StreamID: peer.StreamID(), Remote: true})
		s.Release()
		peer.Release()
	})
}

// WriteWithLimit(p, nil) is not the plain Write either.
type nilLimit struct{ *quiclife.Stream }

func (s nilLimit) Write(p []byte) (int, error) { return s.WriteWithLimit(p, nil) }

func TestEdgeNilLimiter(t *testing.T) {
	setup{serverConf: windowConf}.in(t, func(t *testing.T, e ends) {
		ours, err := e.client.OpenStream()
		require.NoError(t, err)
		cancelBlockedWrite(t, nilLimit{ours})
		require.Zero(t, quictest.Held(e.rawClient))
	})
	setup{serverConf: windowConf}.in(t, func(t *testing.T, e ends) {
		ours, err := e.client.OpenUniStream()
		require.NoError(t, err)
		ours.WriteWithLimit(make([]byte, 10_000), nil)
		settled()
		done := make(chan struct{})
		go func() {
			ours.WriteWithLimit(make([]byte, 1400), nil)
			ours.WriteWithLimit(make([]byte, 100), nil)
			close(done)
		}()
		settled()
		ours.CancelWrite(1)
		<-done
		settled()
		require.Zero(t, quictest.Held(e.rawClient))
	})
}

// TryWriteAll that completes a cut message.
func TestEdgeTryCompletes(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		_, err := s.WriteWithLimit([]byte("0123456789"), func(most int) int { return min(most, 4) })
		require.Equal(t, quiclife.ErrWriteLimitReached, err)
		require.NoError(t, s.TryWriteAll([]byte("456789")))
		require.NoError(t, s.Close())
		b, err := io.ReadAll(peer)
		require.NoError(t, err)
		require.Equal(t, "0123456789", string(b))
		s.Release()
	})
}

// Bounds. The network dies; the congestion window is full.
func deadNetwork(t *testing.T, f func(t *testing.T, e ends, s *quiclife.Stream, die func())) {
	lost := false
	conf := &quic.Config{InitialStreamReceiveWindow: 4 << 20, InitialConnectionReceiveWindow: 8 << 20, MaxIdleTimeout: time.Hour}
	drop := func(simnet.Packet) bool { return lost }
	setup{clientConf: conf, serverConf: conf, net: quictest.Net{Drop: drop}}.in(t, func(t *testing.T, e ends) {
		s, _ := e.stream(t)
		other, _ := e.stream(t)
		settled()
		f(t, e, s, func() {
			settled()
			lost = true
			other.SetWriteDeadline(time.Now().Add(5 * time.Second))
			_, err := other.WriteWithLimit(make([]byte, 2<<20), func(n int) int { return n })
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		})
	})
}

// After a barrier queueing starts anew. TryWriteAll counts.
func TestEdgeQueueing(t *testing.T) {
	fits := func(t *testing.T, s *quiclife.Stream) (n int64) {
		before := s.Info().BytesWritten
		for range 1000 {
			done := make(chan error, 1)
			s.SetWriteDeadline(time.Now().Add(time.Second))
			go func() { _, err := s.Write(make([]byte, 500)); done <- err }()
			if err := <-done; err != nil {
				break
			}
		}
		return s.Info().BytesWritten - before
	}
	t.Run("after Writes", func(t *testing.T) {
		deadNetwork(t, func(t *testing.T, e ends, s *quiclife.Stream, die func()) {
			for range 100 {
				_, err := s.Write(make([]byte, 500))
				require.NoError(t, err)
			}
			settled()
			_, err := s.Write(make([]byte, 20_000)) // a barrier
			require.NoError(t, err)
			die()
			require.InDelta(t, 16<<10, fits(t, s), 600)
		})
	})
	t.Run("after WriteWithLimit", func(t *testing.T) {
		deadNetwork(t, func(t *testing.T, e ends, s *quiclife.Stream, die func()) {
			for range 32 {
				_, err := s.Write(make([]byte, 512))
				require.NoError(t, err)
			}
			_, err := s.WriteWithLimit(make([]byte, 100), func(n int) int { return n })
			require.NoError(t, err)
			die()
			require.InDelta(t, 16<<10, fits(t, s), 600)
		})
	})
	t.Run("after TryWriteAll", func(t *testing.T) {
		deadNetwork(t, func(t *testing.T, e ends, s *quiclife.Stream, die func()) {
			die()
			for range 40 {
				require.NoError(t, s.TryWriteAll(make([]byte, 500)))
			}
			require.Zero(t, fits(t, s))
		})
	})
	t.Run("no deadline", func(t *testing.T) {
		deadNetwork(t, func(t *testing.T, e ends, s *quiclife.Stream, die func()) {
			die()
			s.SetWriteDeadline(time.Time{})
			done := make(chan struct{})
			go func() { s.Write([]byte("x")); close(done) }()
			synctest.Wait()
			select {
			case <-done:
			default:
				t.Error("blocked")
			}
			s.Release()
			<-done
		})
	})

	t.Run("failed Writes are no barrier", func(t *testing.T) {
		deadNetwork(t, func(t *testing.T, e ends, s *quiclife.Stream, die func()) {
			die()
			before := s.Info().BytesWritten
			for range 5 {
				fits(t, s)
				s.SetWriteDeadline(time.Now().Add(time.Second))
				s.WriteWithLimit(make([]byte, 500), func(n int) int { return n })
			}
			require.LessOrEqual(t, s.Info().BytesWritten-before, int64(16<<10))
		})
	})
	t.Run("failed WriteWithLimits are no barrier", func(t *testing.T) {
		deadNetwork(t, func(t *testing.T, e ends, s *quiclife.Stream, die func()) {
			die()
			before := s.Info().BytesWritten
			for range 5 {
				fits(t, s)
				s.SetWriteDeadline(time.Now().Add(time.Second))
				s.WriteWithLimit(make([]byte, 500), func(n int) int { return n })
			}
			require.LessOrEqual(t, s.Info().BytesWritten-before, int64(16<<10))
		})
	})
}

// A deadline at the very start of the connection's clock.
func TestEdgeDeadlineAtStart(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		start := time.Now()
		s, peer := e.stream(t)
		s.SetWriteDeadline(start)
		n, err := s.Write([]byte("late"))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Zero(t, n)
		s.Release()
		peer.Release()
	})
}

// A cut stream that is cancelled: Close returns nil, again and again.
func TestEdgeCloseAfterCutAndCancel(t *testing.T) {
	for _, end := range []func(*quiclife.Stream){(*quiclife.Stream).Release, func(s *quiclife.Stream) { s.CancelWrite(1) }} {
		setup{serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
			s, peer := e.stream(t)
			s.SetWriteDeadline(time.Now().Add(time.Millisecond))
			s.Write(large)
			end(s)
			for range 3 {
				require.NoError(t, s.Close())
			}
			s.Release()
			peer.Release()
		})
	}
}

// After the connection's end Close returns nil, also if a Write was the first to see it.
func TestEdgeCloseAfterWriteSawEnd(t *testing.T) {
	for range 50 {
		setup{}.in(t, func(t *testing.T, e ends) {
			s, _ := e.stream(t)
			e.rawClient.CloseWithError(3, "")
			_, err := s.Write([]byte("x"))
			require.Error(t, err)
			require.NoError(t, s.Close())
		})
	}
}

func TestEdgeHalves(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		peer.Close()
		io.ReadAll(s)
		s.CancelRead(1)
		require.Equal(t, quiclife.HalfFinished, s.Info().Receive)
		s.Close()
		require.EqualValues(t, 1, e.client.Stats().Outgoing.Finished)
		peer.Release()
	})
	setup{}.in(t, func(t *testing.T, e ends) { // a frame begun to be read before its FIN was known
		s, peer := e.stream(t)
		s.Close()
		write(t, peer, "abc")
		settled()
		expect(t, s, "ab")
		peer.Close()
		settled()
		require.Equal(t, quiclife.HalfOpen, s.Info().Receive)
		expect(t, s, "c")
		require.Equal(t, quiclife.HalfFinished, s.Info().Receive)
		e.requireNothingLeft(t)
	})
}

func TestEdgeCreditAfterDetach(t *testing.T) {
	conf := &quic.Config{MaxIncomingStreams: 1, RequireStreamCreditRelease: true}
	setup{serverConf: conf}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		raw := server.Detach()
		server.Release()
		server.Reset(1)
		client.Release()
		raw.CancelRead(0)
		raw.CancelWrite(0)
		settled()
		_, err := e.client.OpenStream()
		require.ErrorIs(t, err, &quiclife.StreamLimitReachedError{})
		raw.ReleaseStreamCredit()
		settled()
		_, err = e.client.OpenStream()
		require.NoError(t, err)
	})
}

// A callback that was called is kept no more.
func TestEdgeCallbackForgotten(t *testing.T) {
	var found leaks
	setup{guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
		func() {
			s, peer := e.stream(t)
			s.SetReceiveFinalSizeCallback(func(int64) { s.Info() })
			peer.Close()
			settled()
			peer.Release()
		}()
		settled()
		runtime.GC()
		e.client.Stats()
		settled()
		require.Len(t, found.list(), 1)
	})
}

// After Detach the EOF is the caller's, also if we watched before.
func TestEdgeDetachWatched(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		s.Close()
		raw := s.Detach()
		write(t, peer, "abc")
		expect(t, s, "abc")
		peer.Close()
		settled()
		require.Equal(t, 1, quictest.Held(e.rawClient))
		_, err := raw.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		settled()
		require.Zero(t, quictest.Held(e.rawClient))
		peer.Release()
	})
}

// Who ends a half first ends it alone.
func TestEdgeRaces(t *testing.T) {
	e := setup{}.onLoopback(t)
	const n = 3000
	seen := make(chan error, 1)
	go func() {
		for {
			s, err := e.server.AcceptUniStream(context.Background())
			if err != nil {
				return
			}
			_, err = io.ReadAll(s)
			s.Release()
			seen <- err
		}
	}()
	for range n {
		s, err := e.client.OpenUniStreamSync(t.Context())
		require.NoError(t, err)
		s.Write([]byte("x"))
		var wg sync.WaitGroup
		start := make(chan struct{})
		wg.Go(func() { <-start; s.Close() })
		wg.Go(func() { <-start; s.Release() })
		close(start)
		wg.Wait()
		err = <-seen
		if s.Info().Send == quiclife.HalfFinished {
			require.NoError(t, err)
		} else {
			require.Error(t, err)
		}
	}
	for range n {
		s, err := e.client.OpenStreamSync(t.Context())
		require.NoError(t, err)
		var wg sync.WaitGroup
		start := make(chan struct{})
		wg.Go(func() { <-start; s.Close() })
		wg.Go(func() { <-start; s.CancelRead(1) })
		close(start)
		wg.Wait()
		p, err := e.server.AcceptStream(t.Context())
		require.NoError(t, err)
		p.Release()
	}
	require.Zero(t, e.client.Stats().Outgoing.Finished)
	require.EqualValues(t, n, e.client.Stats().Outgoing.Reset)
	e.client.CloseWithError(0, "")
}

// No Write of something returns 0, nil.
func TestEdgeWriteDuringClose(t *testing.T) {
	e := setup{}.onLoopback(t)
	go func() {
		for {
			s, err := e.server.AcceptStream(context.Background())
			if err != nil {
				return
			}
			s.Release()
		}
	}()
	for range 5000 {
		s, err := e.client.OpenStreamSync(t.Context())
		require.NoError(t, err)
		var wg sync.WaitGroup
		start := make(chan struct{})
		wg.Go(func() { <-start; s.CancelWrite(1) })
		wg.Go(func() {
			<-start
			for {
				n, err := s.Write([]byte("x"))
				if err != nil {
					return
				}
				if n == 0 {
					t.Error("0, nil")
					return
				}
			}
		})
		close(start)
		wg.Wait()
		s.Release()
	}
	e.client.CloseWithError(0, "")
}

func TestEdgeLimitError(t *testing.T) {
	var log logged
	conf := &quic.Config{MaxIncomingStreams: 2}
	setup{serverConf: conf, guard: &quiclife.Guard{MaxOutgoingStreams: 10, Logger: log.logger()}}.in(t, func(t *testing.T, e ends) {
		for round := range 2 {
			var held []*quiclife.Stream
			for range 2 {
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				held = append(held, s)
			}
			_, err := e.client.OpenStream()
			limit, ok := errors.AsType[*quiclife.LimitError](err)
			require.True(t, ok)
			require.Zero(t, limit.Limit)
			require.Equal(t, quiclife.PeerLimit, limit.Scope)
			require.Equal(t, round+1, strings.Count(log.String(), "limit reached"))
			for _, s := range held {
				s.Release()
				p, err := e.server.AcceptStream(t.Context())
				require.NoError(t, err)
				p.Release()
			}
			time.Sleep(10 * time.Second) // until then records of this kind are held back
		}
	})
}

// The connection's end counts for more than the context that ended with it.
func TestEdgeCtxOfConn(t *testing.T) {
	conf := &quic.Config{MaxIncomingStreams: 1}
	setup{serverConf: conf}.in(t, func(t *testing.T, e ends) {
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		done := make(chan error)
		ctx, cancel := context.WithCancel(e.client.Context())
		defer cancel()
		go func() { _, err := e.client.OpenStreamSync(ctx); done <- err }()
		settled()
		e.client.CloseWithError(4, "")
		err = <-done
		_, ok := errors.AsType[*quiclife.LimitError](err)
		require.False(t, ok, "%v", err)
		keep(t, s)
	})
}

// Nobody waits while a slot is free.
func TestEdgeNobodyWaitsForNothing(t *testing.T) {
	e := setup{guard: &quiclife.Guard{MaxOutgoingStreams: 1}}.onLoopback(t)
	go func() {
		for {
			s, err := e.server.AcceptStream(context.Background())
			if err != nil {
				return
			}
			s.Release()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 2000 {
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range 2 {
			wg.Go(func() {
				<-start
				s, err := e.client.OpenStreamSync(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				s.Release()
			})
		}
		close(start)
		wg.Wait()
		if t.Failed() {
			break
		}
	}
	e.client.CloseWithError(0, "")
}

// Nothing holds a connection that has ended.
func TestEdgeConnGone(t *testing.T) {
	guard := &quiclife.Guard{}
	var conn weak.Pointer[quiclife.Conn]
	func() {
		conf := &quic.Config{MaxIncomingStreams: 1}
		e := setup{guard: guard, serverConf: conf}.onLoopback(t)
		conn = weak.Make(e.client)
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		_, err = e.client.OpenStream() // arms the retry
		require.Error(t, err)
		s.Close() // arms the sweep
		e.client.CloseWithError(0, "")
		e.server.CloseWithError(0, "")
	}()
	for range 500 {
		runtime.GC()
		if conn.Value() == nil {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	require.Nil(t, conn.Value())
	runtime.KeepAlive(guard)
}

// A Guard without connections can go.
func TestEdgeGuardGone(t *testing.T) {
	var guard weak.Pointer[quiclife.Guard]
	func() {
		g := &quiclife.Guard{}
		guard = weak.Make(g)
		e := setup{guard: g}.onLoopback(t)
		e.client.CloseWithError(0, "")
		e.server.CloseWithError(0, "")
	}()
	for range 500 {
		runtime.GC()
		if guard.Value() == nil {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	require.Nil(t, guard.Value())
}

func TestEdgeDefaultLogger(t *testing.T) {
	var log logged
	old := slog.Default()
	defer slog.SetDefault(old)
	slog.SetDefault(log.logger())
	synctest.Test(t, func(t *testing.T) {
		rc, _ := quictest.Net{}.Pair(t, nil, nil)
		c := (&quiclife.Guard{}).Wrap(rc, nil)
		drop(t, c, func(*quiclife.Stream) {})
		runtime.GC()
		c.Stats()
	})
	require.Contains(t, log.String(), "stream leaked")
}

func TestEdgeEnds(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		s, p := e.stream(t)
		e.client.CloseWithError(0, "")
		require.Equal(t, quiclife.HalfAborted, s.Info().Send) // without Stats
		settled()
		require.Equal(t, quiclife.HalfAborted, p.Info().Send)
	})
	for range 50 {
		setup{}.in(t, func(t *testing.T, e ends) {
			e.stream(t)
			e.rawClient.CloseWithError(0, "")
			require.Zero(t, e.client.Stats().Open())
		})
	}
	for range 50 {
		setup{}.in(t, func(t *testing.T, e ends) {
			e.stream(t)
			e.rawClient.CloseWithError(0, "")
			for range e.client.Streams() {
				t.Error("open")
			}
		})
	}
}

// The methods of unidirectional streams that the other tests do not call.
func TestEdgeUni(t *testing.T) {
	conf := &quic.Config{EnableStreamResetPartialDelivery: true}
	setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		s, err := e.client.OpenUniStream()
		require.NoError(t, err)
		require.NoError(t, s.TryWriteAll([]byte("abc")))
		require.EqualValues(t, 3, s.Info().BytesWritten)
		s.SetReliableBoundary()
		write(t, s, "def")
		r, err := e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		var sizes []int64
		r.SetReceiveFinalSizeCallback(func(n int64) { sizes = append(sizes, n) })
		s.Close()
		s.Reset(1) // no effect after a boundary and Close
		r.SetReadDeadline(time.Now())
		_, err = r.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		r.SetReadDeadline(time.Time{})
		b, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, "abcdef", string(b))
		settled()
		require.Equal(t, []int64{6}, sizes)
		e.requireNothingLeft(t)

		s, err = e.client.OpenUniStream()
		require.NoError(t, err)
		s.SetWriteDeadline(time.Now())
		_, err = s.Write([]byte("late"))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		s.Release()
	})
	// exact read of a uni stream with a callback, EOF not read
	setup{}.in(t, func(t *testing.T, e ends) {
		s, err := e.client.OpenUniStream()
		require.NoError(t, err)
		write(t, s, "abc")
		r, err := e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		called := 0
		r.SetReceiveFinalSizeCallback(func(int64) { called++ })
		expect(t, r, "abc")
		s.Close()
		settled()
		require.Equal(t, 1, called)
		e.requireNothingLeft(t)
	})
}

func TestEdgeStreamsBreak(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		for range 3 {
			s, _ := e.client.OpenStream()
			keep(t, s)
		}
		n := 0
		for range e.client.Streams() {
			n++
			break
		}
		require.Equal(t, 1, n)
	})
}

// KeepAlives: a call that is the last use of its handle is not taken for a leak.
// What is short is hard to catch; so many at once, while the collector runs.
func TestEdgeKeepAliveShort(t *testing.T) {
	var found leaks
	e := setup{guard: &quiclife.Guard{OnLeak: found.add, AbandonGrace: time.Nanosecond}}.onLoopback(t)
	collectConstantly(t)
	go func() {
		for {
			s, err := e.server.AcceptStream(context.Background())
			if err != nil {
				return
			}
			s.Release()
		}
	}()
	calls := []func(s *quiclife.Stream){
		(*quiclife.Stream).Release,
		func(s *quiclife.Stream) { s.Reset(1) },
		func(s *quiclife.Stream) { s.Detach().CancelRead(0) },
	}
	for i := range 3000 {
		s, err := e.client.OpenStreamSync(t.Context())
		require.NoError(t, err)
		calls[i%len(calls)](s)
	}
	require.Empty(t, found.list())
	e.client.CloseWithError(0, "")
}
