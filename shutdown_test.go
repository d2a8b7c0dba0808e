package quiclife_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
	"github.com/quic-go/quic-go/testutils/events"
	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// shutdown calls Shutdown on c with a time limit.
func shutdown(c *quiclife.Conn, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return c.Shutdown(ctx, 42, "done")
}

// TestShutdownAgainst peers and programs of all sorts; each call is bounded.
func TestShutdownAgainst(t *testing.T) {
	const limit = 10 * time.Second
	for _, c := range []struct {
		name   string
		before func(t *testing.T, e ends)
		cut    int // streams that the error names, -1: no error
		took   [2]time.Duration
	}{
		{"idle", func(t *testing.T, e ends) {}, -1, [2]time.Duration{0, time.Second}},
		{"never used", func(t *testing.T, e ends) {
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			keep(t, s)
		}, 1, [2]time.Duration{limit, limit + time.Second}},
		{"a request in flight", func(t *testing.T, e ends) {
			go echo(e.server)
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			write(t, s, "request")
			s.Close()
			go func() {
				time.Sleep(time.Second)
				b, err := io.ReadAll(s)
				if err != nil || string(b) != "request" {
					t.Error(err)
				}
			}()
		}, -1, [2]time.Duration{time.Second, 2 * time.Second}},
		{"a stream that was dropped", func(t *testing.T, e ends) { quiclife.ForgetCollections(); e.client.OpenStream() }, -1, [2]time.Duration{0, limit}},
		{"a long-lived stream", func(t *testing.T, e ends) {
			s, _ := e.stream(t)
			keep(t, s)
		}, 1, [2]time.Duration{limit, limit + time.Second}},
		{"a peer that never reads", func(t *testing.T, e ends) {
			s, _ := e.stream(t)
			go func() {
				s.Write(large)
				s.Release()
			}()
			time.Sleep(time.Millisecond)
		}, 1, [2]time.Duration{limit, limit + time.Second}},
		{"storms of opens", func(t *testing.T, e ends) {
			for _, c := range []*quiclife.Conn{e.client, e.server} {
				for range 10 {
					go func() {
						for {
							s, err := c.OpenStreamSync(context.Background())
							if err != nil {
								return
							}
							s.Write([]byte("x"))
							s.Close()
							s.Release()
						}
					}()
				}
			}
			go func() {
				for {
					s, err := e.server.AcceptStream(context.Background())
					if err != nil {
						return
					}
					s.Release()
				}
			}()
		}, -1, [2]time.Duration{0, limit}},
		{"a peer that keeps opening and waits for an answer", func(t *testing.T, e ends) {
			go func() {
				for {
					s, err := e.server.OpenStreamSync(context.Background())
					if err != nil {
						return
					}
					s.Write([]byte("x"))
					io.ReadAll(s)
					s.Release()
					time.Sleep(time.Second / 2)
				}
			}()
			time.Sleep(100 * time.Millisecond)
		}, -1, [2]time.Duration{0, limit}},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup{serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
				c.before(t, e)
				start := time.Now()
				err := shutdown(e.client, limit)
				took := time.Since(start)
				require.GreaterOrEqual(t, took, c.took[0])
				require.Less(t, took, c.took[1])
				if c.cut < 0 {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					cut, ok := errors.AsType[*quiclife.ShutdownError](err)
					require.True(t, ok)
					require.Len(t, cut.Streams, c.cut)
					require.Contains(t, err.Error(), "open streams cut, the first: stream")
				}
				require.ErrorIs(t, context.Cause(e.client.Context()), &quiclife.ApplicationError{ErrorCode: 42, ErrorMessage: "done"})
				require.Zero(t, e.client.Stats().Open())
				requireBalance(t, e.client.Stats())
				require.NoError(t, shutdown(e.client, limit), "again")
				settled()
				require.ErrorIs(t, context.Cause(e.server.Context()), &quiclife.ApplicationError{ErrorCode: 42, ErrorMessage: "done", Remote: true})
				require.Zero(t, e.server.Stats().Open())
				requireBalance(t, e.server.Stats())
			})
		})
	}
}

// TestShutdownOfVanishedPeer is bounded by ctx, or by the idle timeout.
func TestShutdownOfVanishedPeer(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit time.Duration
		open  bool
	}{
		{"context, a stream open", 5 * time.Second, true},
		{"context, data not acknowledged", 5 * time.Second, false},
		{"idle timeout, a stream open", time.Hour, true},
		{"idle timeout, data not acknowledged", time.Hour, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			vanished := false
			setup{net: quictest.Net{Drop: func(simnet.Packet) bool { return vanished }}}.in(t, func(t *testing.T, e ends) {
				s, err := e.client.OpenUniStream()
				require.NoError(t, err)
				settled()
				vanished = true
				write(t, s, "data")
				keep(t, s)
				if !c.open {
					s.Close()
				}
				err = shutdown(e.client, c.limit)
				cut, ok := errors.AsType[*quiclife.ShutdownError](err)
				require.True(t, ok, "%v", err)
				if c.open {
					require.Len(t, cut.Streams, 1)
				} else {
					require.Empty(t, cut.Streams)
					require.Contains(t, err.Error(), "data may not have arrived")
				}
				if c.limit < time.Hour {
					require.ErrorIs(t, err, context.DeadlineExceeded)
				} else {
					require.ErrorIs(t, err, &quiclife.IdleTimeoutError{})
				}
				require.Zero(t, e.client.Stats().Open())
			})
		})
	}
}

// TestDuringShutdown: what other calls return meanwhile.
func TestDuringShutdown(t *testing.T) {
	guard := &quiclife.Guard{Codes: serveCodes, MaxOutgoingUniStreams: 1}
	setup{guard: guard, serverConf: &quic.Config{MaxIncomingStreams: 1}}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		uni, err := e.client.OpenUniStream()
		require.NoError(t, err)
		keep(t, uni)
		blocked := make(chan error, 3)
		go func() { _, err := e.client.OpenStreamSync(context.Background()); blocked <- err }()    // at the peer's limit
		go func() { _, err := e.client.OpenUniStreamSync(context.Background()); blocked <- err }() // at our own
		settled()
		served := make(chan error, 1)
		go func() { served <- e.client.Serve(context.Background(), quiclife.Handler{}) }()
		down := make(chan error, 2)
		for range 2 { // side by side
			go func() { down <- shutdown(e.client, time.Minute) }()
		}
		settled()
		require.Equal(t, quiclife.ErrShutdown, <-blocked)
		require.Equal(t, quiclife.ErrShutdown, <-blocked)
		for name, call := range map[string]func() error{
			"OpenStream":        func() error { _, err := e.client.OpenStream(); return err },
			"OpenStreamSync":    func() error { _, err := e.client.OpenStreamSync(t.Context()); return err },
			"OpenUniStream":     func() error { _, err := e.client.OpenUniStream(); return err },
			"OpenUniStreamSync": func() error { _, err := e.client.OpenUniStreamSync(t.Context()); return err },
			"AcceptStream":      func() error { _, err := e.client.AcceptStream(t.Context()); return err },
			"AcceptUniStream":   func() error { _, err := e.client.AcceptUniStream(t.Context()); return err },
			"Do":                func() error { return e.client.Do(t.Context(), nil) },
		} {
			require.Equal(t, quiclife.ErrShutdown, call(), name)
		}
		// The peer's streams are refused, and what is open goes on.
		late, err := e.server.OpenStream()
		require.NoError(t, err)
		write(t, late, "x")
		_, err = late.Read(make([]byte, 1))
		require.ErrorIs(t, err, &quiclife.StreamError{StreamID: late.StreamID(), ErrorCode: 5, Remote: true})
		late.Release()
		write(t, s, "still")
		expect(t, peer, "still")
		s.Release()
		for info := range e.client.Streams() {
			require.True(t, info.Unidirectional)
		}
		select {
		case err := <-down:
			t.Error("returned with a stream open:", err)
		default:
		}
		peer.Release()
		e.server.CloseWithError(8, "") // with our unidirectional stream open
		for range 2 {
			err := <-down
			require.ErrorIs(t, err, &quiclife.ApplicationError{ErrorCode: 8, Remote: true})
			cut, ok := errors.AsType[*quiclife.ShutdownError](err)
			require.True(t, ok)
			require.Len(t, cut.Streams, 1)
		}
		require.Equal(t, quiclife.ErrShutdown, <-served)
		require.ErrorContains(t, e.client.Shutdown(nil, 0, ""), "nil context") //nolint:staticcheck // on purpose
	})
}

// TestAcceptDuringShutdown: an Accept that was blocked when Shutdown began
// returns with the next stream, which is refused.
func TestAcceptDuringShutdown(t *testing.T) {
	setup{guard: &quiclife.Guard{Codes: serveCodes}}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		accepted := make(chan error, 1)
		go func() { _, err := e.server.AcceptStream(context.Background()); accepted <- err }()
		settled()
		down := make(chan error)
		go func() { down <- shutdown(e.server, time.Minute) }()
		settled()
		for range 10 { // Shutdown accepts too, to refuse
			late, err := e.client.OpenStream()
			require.NoError(t, err)
			write(t, late, "x")
			_, err = late.Read(make([]byte, 1))
			require.ErrorIs(t, err, &quiclife.StreamError{StreamID: late.StreamID(), ErrorCode: 5, Remote: true})
			late.Release()
		}
		require.Equal(t, quiclife.ErrShutdown, <-accepted)
		s.Release()
		peer.Release()
		require.NoError(t, <-down)
	})
}

// TestOpenRacesWithShutdown: a stream that was just being opened when Shutdown
// began is waited for.
func TestOpenRacesWithShutdown(t *testing.T) {
	for range 300 {
		setup{}.in(t, func(t *testing.T, e ends) {
			start, opened, down := make(chan struct{}), make(chan *quiclife.Stream, 1), make(chan error, 1)
			go func() {
				<-start
				s, _ := e.client.OpenStream()
				opened <- s
			}()
			go func() {
				<-start
				down <- shutdown(e.client, time.Second)
			}()
			close(start)
			s, err := <-opened, <-down
			if s == nil {
				require.NoError(t, err)
				return
			}
			cut, ok := errors.AsType[*quiclife.ShutdownError](err)
			require.True(t, ok, "%v", err)
			require.Len(t, cut.Streams, 1)
			s.Release()
		})
	}
}

// slowClose is a qlog that holds the connection up in its close, after its
// streams have ended, for longer than it takes until it looks quiet.
type slowClose struct{}

func (slowClose) RecordEvent(e qlogwriter.Event) {
	if _, ok := e.(qlog.ConnectionClosed); ok {
		time.Sleep(10 * time.Second)
	}
}

func (slowClose) Close() error { return nil }

// TestShutdownCutNoticedFirst: a stream that the connection's end cuts is named,
// also if the program learns of the end, and releases the stream, before we do.
func TestShutdownCutNoticedFirst(t *testing.T) {
	for name, call := range map[string]func(*quiclife.Stream) error{
		"Read":  func(s *quiclife.Stream) error { _, err := s.Read(make([]byte, 1)); return err },
		"Write": func(s *quiclife.Stream) error { _, err := s.Write(large); return err },
	} {
		t.Run(name, func(t *testing.T) {
			conf := matrixConf.Clone()
			conf.Tracer = func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace {
				return &events.Trace{Recorder: slowClose{}}
			}
			setup{clientConf: conf, serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
				s, _ := e.stream(t)
				released, down := make(chan error), make(chan error, 1)
				go func() {
					err := call(s)
					s.Release()
					released <- err
				}()
				settled()
				go func() { down <- shutdown(e.client, time.Minute) }()
				settled()
				e.server.CloseWithError(7, "")
				require.ErrorIs(t, <-released, &quiclife.ApplicationError{ErrorCode: 7, Remote: true})
				require.NoError(t, e.client.Context().Err())
				cut, ok := errors.AsType[*quiclife.ShutdownError](<-down)
				require.True(t, ok)
				require.Len(t, cut.Streams, 1)
			})
		})
	}
}

// TestResetDuringShutdown: a stream that the peer resets, or stops reading, has
// ended, and is not cut.
func TestResetDuringShutdown(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		down := make(chan error, 1)
		go func() { down <- shutdown(e.client, time.Minute) }()
		settled()
		peer.Reset(1)
		settled()
		_, err := s.Write([]byte("x"))
		require.ErrorIs(t, err, &quiclife.StreamError{StreamID: s.StreamID(), ErrorCode: 1, Remote: true})
		_, err = s.Read(make([]byte, 1))
		require.ErrorIs(t, err, &quiclife.StreamError{StreamID: s.StreamID(), ErrorCode: 1, Remote: true})
		require.NoError(t, <-down)
	})
}

// TestShutdownOfStuckHandshake: a handshake that does not complete is not
// waited for beyond the context.
func TestShutdownOfStuckHandshake(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	bubble(t, func(t *testing.T) {
		var dead atomic.Bool
		drop := func(simnet.Packet) bool { return dead.Load() }
		pc, ps, addr := quictest.Net{Latency: 100 * time.Millisecond, Drop: drop}.Endpoints(t)
		server, client := &quiclife.Transport{Conn: ps}, &quiclife.Transport{Conn: pc}
		defer server.Close()
		defer client.Close()
		ln, err := server.ListenEarly(serverTLS, nil)
		require.NoError(t, err)
		dialed := make(chan struct{})
		go func() { client.Dial(context.Background(), addr, clientTLS, nil); close(dialed) }() // which may succeed, or not
		c, err := ln.Accept(t.Context())
		require.NoError(t, err)
		dead.Store(true)
		start := time.Now()
		require.ErrorIs(t, shutdown(c, time.Second), context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
		<-dialed
	})
}

// TestGuardShutdownOfUnwrapped: a socket that connections of quic-go's own
// still use is not waited for beyond the context.
func TestGuardShutdownOfUnwrapped(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	guard := &quiclife.Guard{}
	ln, err := guard.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	c, err := quiclife.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
	require.NoError(t, err)
	raw, err := ln.Unwrap().Accept(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, guard.Shutdown(ctx), context.DeadlineExceeded)
	require.NoError(t, raw.Context().Err())
	raw.CloseWithError(0, "")
	c.CloseWithError(0, "")
	require.NoError(t, guard.Shutdown(t.Context()))
}

// TestGuardShutdown shuts down all that a group has, and leaves nothing.
// TestGuardShutdownLeavesSocket: a context that ends when all connections were
// shut down, but the socket lingers, is told apart from one that cuts.
func TestGuardShutdownLeavesSocket(t *testing.T) {
	shutdownIn := func(timeout time.Duration) (took time.Duration, err error) {
		bubble(t, func(t *testing.T) {
			serverTLS, clientTLS := quictest.TLS()
			client, socket, addr := quictest.Net{}.Endpoints(t)
			guard := &quiclife.Guard{}
			ln, lerr := guard.Listen(socket, serverTLS, nil)
			require.NoError(t, lerr)
			tr := &quic.Transport{Conn: client}
			defer tr.Close()
			c, lerr := tr.Dial(t.Context(), addr, clientTLS, nil)
			require.NoError(t, lerr)
			_, lerr = ln.Accept(t.Context())
			require.NoError(t, lerr)
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			err = guard.Shutdown(ctx)
			took = time.Since(start)
			<-c.Context().Done()
			settled() // the bubble fails if anything is left of the listener
		})
		return took, err
	}
	took, err := shutdownIn(time.Minute)
	require.NoError(t, err)
	_, err = shutdownIn(took - 50*time.Millisecond) // of the 3 PTO that the socket lingers
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "the socket of 1.0.0.2:443 is still open")
	var cut *quiclife.ShutdownError
	require.False(t, errors.As(err, &cut))

	// A socket that is closed is not named, also if ctx was done before.
	serverTLS, _ := quictest.TLS()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 {
		guard := &quiclife.Guard{}
		_, err := guard.ListenAddr("127.0.0.1:0", serverTLS, nil)
		require.NoError(t, err)
		require.NoError(t, guard.Shutdown(ctx))
	}
}

func TestGuardShutdown(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	server, clients := &quiclife.Guard{}, &quiclife.Guard{}
	ln, err := server.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	var wg sync.WaitGroup
	const n = 5
	for i := range n {
		c, err := clients.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
		require.NoError(t, err)
		if i == n-1 {
			continue // not accepted by the program
		}
		sc, err := ln.Accept(t.Context())
		require.NoError(t, err)
		wg.Go(func() {
			sc.Serve(context.Background(), quiclife.Handler{Stream: func(ctx context.Context, s *quiclife.Stream) error {
				time.Sleep(20 * time.Millisecond)
				_, err := io.Copy(s, s)
				return err
			}})
		})
		s, err := c.OpenStream()
		require.NoError(t, err)
		write(t, s, "x")
		eventually(t, func() bool { return sc.Stats().Incoming.Opened == 1 })
		wg.Go(func() {
			write(t, s, "request")
			s.Close()
			b, err := io.ReadAll(s)
			if err != nil || string(b) != "xrequest" {
				t.Error(string(b), err)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, server.Shutdown(ctx))
	wg.Wait()
	require.NoError(t, clients.Shutdown(ctx))
	require.NoError(t, server.Shutdown(ctx), "of nothing")
	require.ErrorContains(t, server.Shutdown(nil), "nil context") //nolint:staticcheck // on purpose
	_, err = ln.Accept(ctx)
	require.Equal(t, quiclife.ErrServerClosed, err)
	ln, err = server.ListenAddr(ln.Addr().String(), serverTLS, nil) // its socket is closed, and the group lives on
	require.NoError(t, err)
	ln.Close()
}

// TestShutdownReturnsNilThoughThisSideCut: what another call cuts, an impatient
// Shutdown or CloseWithError, has not arrived.
func TestShutdownReturnsNilThoughThisSideCut(t *testing.T) {
	for name, cut := range map[string]func(c *quiclife.Conn) error{
		"Shutdown": func(c *quiclife.Conn) error { return shutdown(c, 10*time.Millisecond) },
		"CloseWithError": func(c *quiclife.Conn) error {
			return errors.Join(errors.New("as expected"), c.CloseWithError(42, "done"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			var dead atomic.Bool
			setup{net: quictest.Net{Drop: func(simnet.Packet) bool { return dead.Load() }}}.in(t, func(t *testing.T, e ends) {
				s, err := e.client.OpenUniStream()
				require.NoError(t, err)
				settled()
				dead.Store(true)
				write(t, s, "data")
				s.Close()
				down := make(chan error, 1)
				go func() { down <- shutdown(e.client, time.Minute) }()
				settled()
				require.Error(t, cut(e.client))
				require.ErrorIs(t, <-down, &quiclife.ApplicationError{ErrorCode: 42, ErrorMessage: "done"})
			})
		})
	}
}

// TestShutdownTwiceBothReturnNil: the second is told what the first has found.
func TestShutdownTwiceBothReturnNil(t *testing.T) {
	for range 10 {
		e := setup{}.onLoopback(t)
		s, err := e.client.OpenUniStream()
		require.NoError(t, err)
		write(t, s, "data")
		s.Close()
		down := make(chan error)
		for i := range 4 {
			go func() {
				time.Sleep(time.Duration(i) * time.Millisecond) // so that they do not look at the same time
				down <- shutdown(e.client, time.Minute)
			}()
		}
		for range 4 {
			require.NoError(t, <-down)
		}
	}
}

// TestShutdownIgnoresContextAfterRejection: a stream that a rejection of 0-RTT
// has ended was not ended by the connection's end, which is far.
func TestShutdownIgnoresContextAfterRejection(t *testing.T) {
	setupEarly(t, func(t *testing.T, c *quiclife.Conn) {
		s, err := c.OpenStream()
		require.NoError(t, err)
		write(t, s, "data")
		go func() {
			s.Read(make([]byte, 1))
			s.Release()
		}()
		start := time.Now()
		require.ErrorIs(t, shutdown(c, time.Second), quiclife.Err0RTTRejected)
		require.Less(t, time.Since(start), time.Second)
	})
}

// TestShutdownIgnoresContextInTLSCallback: quic-go closes a connection when a
// callback of its tls.Config has returned, which is not waited for.
func TestShutdownIgnoresContextInTLSCallback(t *testing.T) {
	bubble(t, func(t *testing.T) {
		clientSocket, serverSocket, addr := quictest.Net{}.Endpoints(t)
		serverTLS, clientTLS := quictest.TLS()
		clientTLS = clientTLS.Clone()
		clientTLS.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		client, server := &quiclife.Transport{Conn: clientSocket}, &quiclife.Transport{Conn: serverSocket}
		defer client.Close()
		defer server.Close()
		_, err := server.ListenEarly(serverTLS, &quiclife.Config{Allow0RTT: true})
		require.NoError(t, err)
		c, err := client.Dial(t.Context(), addr, clientTLS, nil)
		require.NoError(t, err)
		settled() // the session ticket arrives
		c.CloseWithError(0, "")
		clientTLS.VerifyConnection = func(tls.ConnectionState) error { time.Sleep(3 * time.Second); return nil }
		c, err = client.DialEarly(t.Context(), addr, clientTLS, nil)
		require.NoError(t, err)
		time.Sleep(100 * time.Millisecond) // now it sleeps
		start := time.Now()
		require.ErrorIs(t, shutdown(c, time.Second), context.DeadlineExceeded)
		require.Less(t, time.Since(start), 1100*time.Millisecond)
		<-c.Context().Done()
	})
}

// TestShutdownLosesDetachedStream: it waits for its send half, as far as
// quic-go tells of it.
func TestShutdownLosesDetachedStream(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		raw := s.Detach()
		got := make(chan string, 1)
		go func() {
			b, _ := io.ReadAll(peer)
			got <- string(b)
		}()
		go func() {
			time.Sleep(10 * time.Second)
			raw.Write([]byte("late"))
			raw.Close()
		}()
		require.NoError(t, shutdown(e.client, time.Minute))
		require.Equal(t, "late", <-got)
		require.Equal(t, int64(1), e.client.Stats().Outgoing.Detached)
	})
}

// TestGuardShutdownMissesConnectionBeingAccepted: it is a member of the group
// as soon as quic-go has given it to Accept.
func TestGuardShutdownMissesConnectionBeingAccepted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		serverTLS, clientTLS := quictest.TLS()
		clientSocket, serverSocket, addr := quictest.Net{}.Endpoints(t)
		guard := &quiclife.Guard{}
		client, server := &quiclife.Transport{Conn: clientSocket, Guard: &quiclife.Guard{}}, &quiclife.Transport{Conn: serverSocket, Guard: guard}
		defer client.Close()
		defer server.Close()
		ln, err := server.Listen(serverTLS, nil)
		require.NoError(t, err)
		quiclife.AfterAccept(ln, func() { time.Sleep(time.Second) })
		accepted := make(chan *quiclife.Conn, 1)
		go func() {
			c, _ := ln.Accept(context.Background())
			accepted <- c
		}()
		_, err = client.Dial(t.Context(), addr, clientTLS, nil)
		require.NoError(t, err)
		time.Sleep(100 * time.Millisecond)
		ln.Close() // also if the program has closed the listener
		require.NoError(t, guard.Shutdown(t.Context()))
		require.Error(t, (<-accepted).Context().Err(), "the connection lives on")
	})
}

// TestGuardShutdownErrorGrowsWithConnections: it is one line, with counts.
func TestGuardShutdownErrorGrowsWithConnections(t *testing.T) {
	bubble(t, func(t *testing.T) {
		guard, others := &quiclife.Guard{}, &quiclife.Guard{}
		for range 3 {
			rc, rs := quictest.Net{}.Pair(t, nil, nil)
			c := guard.Wrap(rc, nil)
			others.Wrap(rs, nil)
			for range 2 {
				s, err := c.OpenStream()
				require.NoError(t, err)
				keep(t, s)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := guard.Shutdown(ctx)
		require.EqualError(t, err, "quiclife: shutdown: of 3 connections 3 ended with 6 open streams cut, or with data that may not have arrived; 0 sockets are still open")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		several, ok := err.(interface{ Unwrap() []error })
		require.True(t, ok)
		require.Len(t, several.Unwrap(), 3)
		var cut *quiclife.ShutdownError
		require.ErrorAs(t, err, &cut)
		require.Len(t, cut.Streams, 2)
	})
}

// TestShutdownCutSendsNoStopSending where the protocol forbids it, and does not
// reset control streams that the program has dropped.
func TestShutdownCutSendsNoStopSending(t *testing.T) {
	for range 20 {
		e := setup{guard: &quiclife.Guard{NoStopSending: true}}.onLoopback(t)
		require.NoError(t, dropUni(t.Context(), e.server))
		control, err := e.client.AcceptUniStream(t.Context())
		require.NoError(t, err)
		expect(t, control, "settings")
		eventually(t, func() bool {
			runtime.GC()
			for info := range e.server.Streams() {
				return info.Dropped
			}
			return false
		})
		var clients, servers []*quiclife.Stream
		for range 50 {
			client, server := e.stream(t)
			clients, servers = append(clients, client), append(servers, server)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		var cut *quiclife.ShutdownError
		require.ErrorAs(t, e.server.Shutdown(ctx, 7, ""), &cut)
		require.Len(t, cut.Streams, len(servers))
		require.Zero(t, e.server.Stats().Open())
		for _, s := range clients {
			<-s.Context().Done()
			require.ErrorIs(t, context.Cause(s.Context()), &quiclife.ApplicationError{ErrorCode: 7, Remote: true})
		}
		_, err = control.Read(make([]byte, 1))
		require.ErrorIs(t, err, &quiclife.ApplicationError{ErrorCode: 7, Remote: true})
		runtime.KeepAlive(servers)
	}
}

// TestShutdownFindsStreamsDroppedAfterLongShortage: collections that were asked
// for in vain before do not delay the one that Shutdown needs.
func TestShutdownFindsStreamsDroppedAfterLongShortage(t *testing.T) {
	conf := &quic.Config{MaxIncomingStreams: 4, MaxIdleTimeout: time.Hour}
	setup{serverConf: conf, clientConf: conf}.in(t, func(t *testing.T, e ends) {
		func() {
			control, err := e.server.OpenUniStream()
			require.NoError(t, err)
			write(t, control, "settings")
			var held []*quiclife.Stream
			for range 4 { // all slots, for long
				client, server := e.stream(t)
				held = append(held, client, server)
			}
			time.Sleep(20 * time.Minute)
			for _, s := range held {
				s.Release()
			}
			runtime.KeepAlive(control)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		require.NoError(t, e.server.Shutdown(ctx, 0, ""))
	})
}

// TestShutdownOfRejected0RTT: what was sent in 0-RTT that the server rejected
// is lost, and Shutdown says so.
func TestShutdownOfRejected0RTT(t *testing.T) {
	setupEarly(t, func(t *testing.T, c *quiclife.Conn) {
		s, err := c.OpenUniStream()
		require.NoError(t, err)
		write(t, s, "data")
		s.Close()
		require.ErrorIs(t, shutdown(c, time.Minute), quiclife.Err0RTTRejected)
	})
}

// setupEarly is dialEarly, rejected, in a bubble.
func setupEarly(t *testing.T, f func(t *testing.T, c *quiclife.Conn)) {
	bubble(t, func(t *testing.T) {
		c, _ := dialEarly(t, true)
		f(t, c)
	})
}

// TestShutdownInHandshake: an early connection that is shut down before its
// handshake is complete loses nothing, though the first packets are lost.
func TestShutdownInHandshake(t *testing.T) {
	for seed := range uint64(60) {
		bubble(t, func(t *testing.T) {
			serverTLS, clientTLS := quictest.TLS()
			conf := &quic.Config{MaxIdleTimeout: 10 * time.Minute, HandshakeIdleTimeout: time.Minute}
			drop := dropSome(seed, 20)
			pc, ps, addr := quictest.Net{Latency: 150 * time.Millisecond, Drop: drop}.Endpoints(t)
			guard := &quiclife.Guard{}
			str, ctr := &quiclife.Transport{Conn: ps, Guard: guard}, &quiclife.Transport{Conn: pc, Guard: guard}
			defer str.Close()
			defer ctr.Close()
			ln, err := str.ListenEarly(serverTLS, conf)
			require.NoError(t, err)
			defer ln.Close()
			got := make(chan int, 1)
			go func() {
				c, err := ctr.Dial(context.Background(), addr, clientTLS, conf)
				if err != nil {
					got <- -1
					return
				}
				s, err := c.AcceptUniStream(context.Background())
				if err != nil {
					got <- -2
					return
				}
				b, _ := io.ReadAll(s)
				got <- len(b)
				c.CloseWithError(0, "")
			}()
			c, err := ln.Accept(t.Context())
			require.NoError(t, err)
			s, err := c.OpenUniStreamSync(t.Context())
			require.NoError(t, err)
			_, err = s.Write(make([]byte, 10_000))
			require.NoError(t, err)
			s.Close()
			err = shutdown(c, time.Hour)
			if n := <-got; err == nil {
				require.Equal(t, 10_000, n, "seed %d", seed)
			}
		})
	}
}

// TestShutdownCutByPeer: a stream that the peer's CloseWithError cuts is named,
// also if the program noticed first.
func TestShutdownCutByPeer(t *testing.T) {
	for range 100 {
		e := setup{}.onLoopback(t)
		s, _ := e.stream(t)
		read := make(chan struct{})
		go func() {
			s.Read(make([]byte, 1))
			s.Release()
			close(read)
		}()
		down := make(chan error)
		go func() { down <- shutdown(e.client, time.Minute) }()
		runtime.Gosched()
		e.server.CloseWithError(7, "")
		<-read
		err := <-down
		// Shutdown of a connection that had ended before it began returns nil.
		if err == nil {
			require.Error(t, e.client.Context().Err())
			continue
		}
		cut, ok := errors.AsType[*quiclife.ShutdownError](err)
		require.True(t, ok)
		require.Len(t, cut.Streams, 1)
	}
}

// TestShutdownNamesOnce: several calls that cut at once name each stream once.
func TestShutdownNamesOnce(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		for range 5 {
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			keep(t, s)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				cut, ok := errors.AsType[*quiclife.ShutdownError](e.client.Shutdown(ctx, 0, ""))
				if ok && len(cut.Streams) > 5 {
					t.Errorf("%d streams", len(cut.Streams))
				}
			})
		}
		wg.Wait()
	})
}

func dropSome(seed uint64, percent int) func(simnet.Packet) bool {
	var mu sync.Mutex
	n := seed*2654435761 + 1
	return func(simnet.Packet) bool {
		mu.Lock()
		defer mu.Unlock()
		n = n*6364136223846793005 + 1442695040888963407
		return int(n>>33)%100 < percent
	}
}
