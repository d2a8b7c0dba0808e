package quiclife_test

import (
	"context"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// TestStreamContextEndsWithSendHalf: as in quic-go.
func TestStreamContextEndsWithSendHalf(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		require.NoError(t, client.Context().Err())
		client.CancelRead(1)
		require.NoError(t, client.Context().Err())
		client.Close()
		require.ErrorIs(t, context.Cause(client.Context()), quiclife.ErrStreamClosed)
		settled()
		require.ErrorIs(t, context.Cause(server.Context()), &quiclife.StreamError{StreamID: server.StreamID(), ErrorCode: 1, Remote: true})
		client.Release()
		server.Release()
		uni, err := e.client.OpenUniStream()
		require.NoError(t, err)
		uni.Release()
		require.ErrorIs(t, context.Cause(uni.Context()), &quiclife.StreamError{StreamID: uni.StreamID()})
		uni.SetPriority(1, true)
		require.NoError(t, uni.SetWriteDeadline(time.Time{}))
	})
}

// TestDetachedStreamIsTheCallers: the caller writes, reads and ends it.
func TestDetachedStreamIsTheCallers(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		raw := client.Detach()
		client.Release() // no effect
		client.Reset(3)  // no effect
		_, err := raw.Write([]byte("raw, "))
		require.NoError(t, err)
		write(t, client, "or not")
		require.NoError(t, client.Close())
		b, err := io.ReadAll(server)
		require.NoError(t, err)
		require.Equal(t, "raw, or not", string(b))
		write(t, server, "answer")
		expect(t, client, "answer")
		server.Close()
		settled()
		require.Equal(t, 1, quictest.Held(e.rawClient), "its EOF is the caller's to read")
		_, err = io.ReadAll(raw)
		require.NoError(t, err)
		settled()
		e.requireNothingLeft(t)

		uni, err := e.client.OpenUniStream()
		require.NoError(t, err)
		write(t, uni.Detach(), "x")
		r, err := e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		uni.Detach().Close()
		io.ReadAll(r.Detach())
		settled()
		e.requireNothingLeft(t)
		require.EqualValues(t, 1, e.client.Stats().Outgoing.Detached)
		require.EqualValues(t, 1, e.client.Stats().OutgoingUni.Detached)
		require.EqualValues(t, 1, e.server.Stats().IncomingUni.Detached)
	})
}

// TestHandlerLeavesDetachedStreamOpen: if a handler, or the function of Do,
// detaches its stream and returns nil, the stream is not ended.
func TestHandlerLeavesDetachedStreamOpen(t *testing.T) {
	t.Parallel()
	// handOn makes another goroutine answer, a second after the handler has
	// returned.
	handOn := func(raw io.WriteCloser) {
		go func() {
			time.Sleep(time.Second)
			raw.Write([]byte("answer"))
			raw.Close()
		}()
	}
	answered := func(t *testing.T, r io.Reader) {
		t.Helper()
		b, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, "answer", string(b))
	}
	setup{}.in(t, func(t *testing.T, e ends) {
		go e.server.Serve(t.Context(), quiclife.Handlers{Stream: func(_ context.Context, s *quiclife.Stream) error {
			handOn(s.Detach())
			return nil
		}})
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		write(t, s, "request")
		answered(t, s)
		s.Release()
	})
	setup{}.in(t, func(t *testing.T, e ends) {
		require.NoError(t, e.client.Do(t.Context(), func(s *quiclife.Stream) error {
			handOn(s.Detach())
			return nil
		}))
		s, err := e.server.AcceptStream(t.Context())
		require.NoError(t, err)
		answered(t, s)
		s.Release()

		require.NoError(t, e.client.DoUni(t.Context(), func(s *quiclife.SendStream) error {
			handOn(s.Detach())
			return nil
		}))
		r, err := e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		answered(t, r)
	})
}

// TestWriteBesideDetachSucceeds: Detach is one step, so a concurrent Write
// finds the stream either tracked or detached.
func TestWriteBesideDetachSucceeds(t *testing.T) {
	conf := &quic.Config{MaxIncomingUniStreams: 1 << 40}
	e := setup{clientConf: conf, serverConf: conf}.onLoopback(t)
	n := 1000 // with two steps, one round in 250 failed
	if testing.Short() {
		n = 300
	}
	for i := range n {
		s, err := e.client.OpenUniStream()
		require.NoError(t, err)
		var failed error
		var wrote atomic.Int64
		var detached atomic.Bool
		together(
			func() {
				for failed == nil && !detached.Load() {
					_, failed = s.Write([]byte("x"))
					wrote.Add(1)
				}
			},
			func() {
				for wrote.Load() < int64(1+i%5) {
					runtime.Gosched()
				}
				s.Detach()
				detached.Store(true)
			})
		require.NoError(t, failed, "round %d", i)
		s.Detach().CancelWrite(0)
	}
	require.EqualValues(t, n, e.client.Stats().OutgoingUni.Detached)
	requireBalance(t, e.client.Stats())
	e.client.CloseWithError(0, "")
}

// TestDetachOfEndedStreamIsFinal: after Detach of a stream whose halves have
// both ended, Release does not return its credit, and Reset does not abort
// undelivered data.
func TestDetachOfEndedStreamIsFinal(t *testing.T) {
	t.Parallel()
	conf := &quic.Config{MaxIncomingStreams: 1, RequireStreamCreditRelease: true}
	setup{serverConf: conf}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		client.Close()
		server.Close()
		io.ReadAll(client)
		io.ReadAll(server)
		settled()
		raw := server.Detach()
		server.Release()
		server.Reset(1)
		settled()
		_, err := e.client.OpenStream()
		require.ErrorIs(t, err, &quiclife.StreamLimitReachedError{}, "Release returned the credit of a detached stream")
		raw.ReleaseStreamCredit()
		settled()

		client, server = e.stream(t)
		server.Close()
		io.ReadAll(client)
		write(t, client, "not yet delivered")
		client.Close()
		client.Detach()
		client.Reset(1)
		expect(t, server, "not yet delivered")
		_, err = server.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		require.EqualValues(t, 2, e.client.Stats().Outgoing.Finished)
		requireBalance(t, e.client.Stats())
		server.Release()
	})
}

// TestReleaseAfterDetachReturnsNoCredit: the caller has to return it.
func TestReleaseAfterDetachReturnsNoCredit(t *testing.T) {
	t.Parallel()
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
		require.ErrorIs(t, err, &quiclife.StreamLimitReachedError{}, "Release or Reset returned the credit")
		raw.ReleaseStreamCredit()
		settled()
		_, err = e.client.OpenStream()
		require.NoError(t, err)
	})
}

// TestDetachLeavesEOFToCaller: even if Close has made us watch for the final
// size.
func TestDetachLeavesEOFToCaller(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		s.Close()
		raw := s.Detach()
		write(t, peer, "abc")
		expect(t, s, "abc")
		peer.Close()
		settled()
		require.Equal(t, 1, quictest.Held(e.rawClient), "the EOF was consumed")
		_, err := raw.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		settled()
		require.Zero(t, quictest.Held(e.rawClient))
		peer.Release()
	})
}

// TestEndingCallsKeepTheirHandleAlive: a stream is not found dropped during the
// call that ends it.
func TestEndingCallsKeepTheirHandleAlive(t *testing.T) {
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

// TestCallKeepsItsStreamAliveToItsEnd: a stream is not found dropped by a
// collection during the last call on it. For calls that block see
// TestBlockedCallKeepsItsStreamAlive.
func TestCallKeepsItsStreamAliveToItsEnd(t *testing.T) {
	bind := func(s interface {
		BindContext(context.Context) func() bool
	}, during func()) {
		ctx := newCountingContext()
		ctx.bound = during
		s.BindContext(ctx)
	}
	// For a receive stream, Detach makes no call into quic-go.
	bound := func(s *quiclife.ReceiveStream, during func()) *quiclife.ReceiveStream {
		ctx := newCountingContext()
		ctx.unbound = during
		s.BindContext(ctx)
		return s
	}
	for _, c := range []struct {
		name    string
		stream  func(s *quiclife.Stream, during func())
		send    func(s *quiclife.SendStream, during func())
		receive func(s *quiclife.ReceiveStream, during func())
	}{
		{
			name:   "TryWriteAll",
			stream: func(s *quiclife.Stream, _ func()) { s.TryWriteAll([]byte("x")) },
			send:   func(s *quiclife.SendStream, _ func()) { s.TryWriteAll([]byte("x")) },
		},
		{
			name:   "Close",
			stream: func(s *quiclife.Stream, _ func()) { s.Close() },
			send:   func(s *quiclife.SendStream, _ func()) { s.Close() },
		},
		{
			name:   "CancelWrite",
			stream: func(s *quiclife.Stream, _ func()) { s.CancelWrite(1) },
			send:   func(s *quiclife.SendStream, _ func()) { s.CancelWrite(1) },
		},
		{
			name:    "CancelRead",
			stream:  func(s *quiclife.Stream, _ func()) { s.CancelRead(1) },
			receive: func(s *quiclife.ReceiveStream, _ func()) { s.CancelRead(1) },
		},
		{
			name:    "Release",
			stream:  func(s *quiclife.Stream, _ func()) { s.Release() },
			send:    func(s *quiclife.SendStream, _ func()) { s.Release() },
			receive: func(s *quiclife.ReceiveStream, _ func()) { s.Release() },
		},
		{
			name:    "Reset",
			stream:  func(s *quiclife.Stream, _ func()) { s.Reset(1) },
			send:    func(s *quiclife.SendStream, _ func()) { s.Reset(1) },
			receive: func(s *quiclife.ReceiveStream, _ func()) { s.Reset(1) },
		},
		{
			name:    "Detach",
			stream:  func(s *quiclife.Stream, _ func()) { s.Detach() },
			send:    func(s *quiclife.SendStream, _ func()) { s.Detach() },
			receive: func(s *quiclife.ReceiveStream, during func()) { bound(s, during).Detach() },
		},
		{
			name:    "SetReceiveFinalSizeCallback",
			stream:  func(s *quiclife.Stream, _ func()) { s.SetReceiveFinalSizeCallback(func(int64) {}) },
			receive: func(s *quiclife.ReceiveStream, _ func()) { s.SetReceiveFinalSizeCallback(func(int64) {}) },
		},
		{
			name:    "BindContext",
			stream:  func(s *quiclife.Stream, during func()) { bind(s, during) },
			send:    func(s *quiclife.SendStream, during func()) { bind(s, during) },
			receive: func(s *quiclife.ReceiveStream, during func()) { bind(s, during) },
		},
	} {
		setup{guard: &quiclife.Guard{ReportOnly: true}}.in(t, func(t *testing.T, e ends) {
			calls, dropped := 0, 0
			looking := false
			during := func() {
				if looking { // the look at a dropped stream calls quic-go as well
					return
				}
				looking = true
				defer func() { looking = false }()
				calls++
				collectAndLook(e.client)
				for info := range e.client.Streams() {
					if info.Dropped {
						dropped++
					}
				}
			}
			check := func(of string) {
				require.Positive(t, calls, "%s of a %s was not watched", c.name, of)
				require.Zero(t, dropped, "%s of a %s: taken for dropped during it", c.name, of)
				calls = 0
				e.client.CloseWithError(0, "")
				rc, rs := quictest.Net{}.Pair(t, nil, nil)
				e = setup{guard: &quiclife.Guard{ReportOnly: true}}.wrap(rc, rs)
			}
			if c.stream != nil {
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				quiclife.DuringCalls(s, during)
				c.stream(s, during)
				check("Stream")
			}
			if c.send != nil {
				s, err := e.client.OpenUniStream()
				require.NoError(t, err)
				quiclife.DuringCalls(s, during)
				c.send(s, during)
				check("SendStream")
			}
			if c.receive != nil {
				require.NoError(t, dropUni(t.Context(), e.server))
				s, err := e.client.AcceptUniStream(t.Context())
				require.NoError(t, err)
				quiclife.DuringCalls(s, during)
				c.receive(s, during)
				check("ReceiveStream")
			}
		})
	}
}

// TestCloseOfDetachedStreamFailsAsQUICGoDoes: Close is then quic-go's.
func TestCloseOfDetachedStreamFailsAsQUICGoDoes(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		raw := client.Detach()
		raw.CancelWrite(1)
		require.ErrorContains(t, client.Close(), "canceled stream")
		raw.CancelRead(1)
		server.Release()
	})
}

// TestUrgentStreamIsSentFirst: SetPriority reaches quic-go for both types.
func TestUrgentStreamIsSentFirst(t *testing.T) {
	t.Parallel()
	type prioritized interface {
		io.WriteCloser
		SetPriority(urgency int8, incremental bool)
	}
	for name, open := range map[string]func(*quiclife.Conn) (prioritized, error){
		"Stream":     func(c *quiclife.Conn) (prioritized, error) { return c.OpenStream() },
		"SendStream": func(c *quiclife.Conn) (prioritized, error) { return c.OpenUniStream() },
	} {
		setup{}.in(t, func(t *testing.T, e ends) {
			const size = 400_000
			order := make(chan string, 2)
			for i, urgency := range []int8{7, 0} {
				s, err := open(e.client)
				require.NoError(t, err)
				s.SetPriority(urgency, false)
				go func() {
					s.Write(make([]byte, size))
					order <- []string{"first", "urgent"}[i]
					s.Close()
				}()
				synctest.Wait() // the first gets a head start
			}
			go e.server.Serve(t.Context(), quiclife.Handlers{
				Stream:    func(_ context.Context, s *quiclife.Stream) error { _, err := io.Copy(io.Discard, s); return err },
				UniStream: func(_ context.Context, s *quiclife.ReceiveStream) error { _, err := io.Copy(io.Discard, s); return err },
			})
			require.Equal(t, "urgent", <-order, "sent first, of two of a %s", name)
			<-order
			e.client.CloseWithError(0, "")
		})
	}
}
