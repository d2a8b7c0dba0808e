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
	"testing/synctest"
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

// startShutdown calls Shutdown on c with a timeout of a minute. Shutdown has
// begun when startShutdown returns. Call it in a bubble.
func startShutdown(c *quiclife.Conn) (down <-chan error) {
	err := make(chan error, 1)
	go func() { err <- shutdown(c, time.Minute) }()
	settled()
	return err
}

// requireCut requires that err is a ShutdownError that names so many streams.
func requireCut(t *testing.T, err error, streams int) {
	t.Helper()
	var cut *quiclife.ShutdownError
	require.ErrorAs(t, err, &cut)
	require.Len(t, cut.Streams, streams, "streams that were cut")
}

// TestShutdownAgainst runs Shutdown against many kinds of peers and programs.
// Each call must end in time.
func TestShutdownAgainst(t *testing.T) {
	const limit = 10 * time.Second
	for _, c := range []struct {
		name   string
		before func(t *testing.T, e ends)
		cut    int // streams that the error names; -1 means no error
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
				if b, err := io.ReadAll(s); err != nil || string(b) != "request" {
					t.Errorf("the echo of \"request\" is %q, %v", b, err)
				}
			}()
		}, -1, [2]time.Duration{time.Second, 2 * time.Second}},
		{"a stream that was dropped", func(t *testing.T, e ends) { e.client.OpenStream() }, -1, [2]time.Duration{0, limit}},
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
					requireCut(t, err, c.cut)
					require.ErrorContains(t, err, " cut, the first: stream")
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

// TestShutdownOfVanishedPeer: ctx or the idle timeout ends it.
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
				if c.open {
					requireCut(t, err, 1)
				} else {
					requireCut(t, err, 0)
					require.ErrorContains(t, err, "data may not have arrived")
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

// Opens that are blocked when Shutdown begins return ErrShutdown, and so do all
// later calls that open or accept a stream.
func TestShutdownRefusesStreamsOfThisSide(t *testing.T) {
	guard := &quiclife.Guard{MaxOutgoingUniStreams: 1}
	setup{guard: guard, serverConf: &quic.Config{MaxIncomingStreams: 1}}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		uni, err := e.client.OpenUniStream()
		require.NoError(t, err)
		blocked := make(chan error, 2)
		go func() { _, err := e.client.OpenStreamSync(context.Background()); blocked <- err }()    // at the peer's limit
		go func() { _, err := e.client.OpenUniStreamSync(context.Background()); blocked <- err }() // at this side's own limit
		settled()
		served := make(chan error, 1)
		go func() { served <- e.client.Serve(context.Background(), quiclife.Handlers{}) }()
		down := startShutdown(e.client)
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
		uni.Release()
		s.Release()
		peer.Release()
		require.NoError(t, <-down)
		require.Equal(t, quiclife.ErrShutdown, <-served)
	})
}

func TestShutdownRefusesPeersStreamsAndLeavesOpenOnes(t *testing.T) {
	setup{guard: &quiclife.Guard{Codes: serveCodes}}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		down := startShutdown(e.client)
		late, err := e.server.OpenStream()
		require.NoError(t, err)
		write(t, late, "x")
		_, err = late.Read(make([]byte, 1))
		require.ErrorIs(t, err, &quiclife.StreamError{StreamID: late.StreamID(), ErrorCode: 5, Remote: true})
		late.Release()
		write(t, s, "still")
		expect(t, peer, "still")
		require.Empty(t, down, "returned with a stream open")
		s.Release()
		peer.Release()
		require.NoError(t, <-down)
	})
}

// Concurrent calls wait for the same end, and both return its error.
func TestConcurrentShutdownsBothNameWhatPeerCloseCuts(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		s, err := e.client.OpenUniStream()
		require.NoError(t, err)
		keep(t, s)
		first, second := startShutdown(e.client), startShutdown(e.client)
		require.Empty(t, first, "returned with a stream open")
		require.Empty(t, second, "returned with a stream open")
		e.server.CloseWithError(8, "")
		for _, down := range []<-chan error{first, second} {
			err := <-down
			require.ErrorIs(t, err, &quiclife.ApplicationError{ErrorCode: 8, Remote: true})
			requireCut(t, err, 1)
		}
	})
}

func TestShutdownWithNilContextFails(t *testing.T) {
	guard := &quiclife.Guard{}
	setup{guard: guard}.in(t, func(t *testing.T, e ends) {
		require.ErrorContains(t, e.client.Shutdown(nil, 0, ""), "nil context") //nolint:staticcheck // on purpose
		require.ErrorContains(t, guard.Shutdown(nil), "nil context")           //nolint:staticcheck // on purpose
		require.NoError(t, e.client.Context().Err(), "it was shut down all the same")
	})
}

// An Accept that was blocked when Shutdown began returns with the next stream,
// which is refused.
func TestBlockedAcceptReturnsWithNextStreamDuringShutdown(t *testing.T) {
	setup{guard: &quiclife.Guard{Codes: serveCodes}}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		accepted := make(chan error, 1)
		go func() { _, err := e.server.AcceptStream(context.Background()); accepted <- err }()
		settled()
		down := startShutdown(e.server)
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

// Shutdown waits for a stream that was just being opened when it began.
func TestShutdownMissesStreamBeingOpened(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		uni, err := e.client.OpenUniStream()
		require.NoError(t, err)
		write(t, uni, "keeps Shutdown waiting for a while")
		uni.Close()
		opened := make(chan *quiclife.Stream, 1)
		go func() {
			s, err := quiclife.OpenStreamSlowly(e.client, func() { time.Sleep(5 * time.Millisecond) })
			if err != nil {
				t.Error(err)
			}
			opened <- s
		}()
		synctest.Wait()
		requireCut(t, shutdown(e.client, time.Second), 1)
		keep(t, <-opened)
	})
}

// slowClose is a qlog whose Close holds up the end of the connection, after its
// streams have ended, for so long that the connection looks quiet.
type slowClose struct{}

func (slowClose) RecordEvent(e qlogwriter.Event) {
	if _, ok := e.(qlog.ConnectionClosed); ok {
		time.Sleep(10 * time.Second)
	}
}

func (slowClose) Close() error { return nil }

// A stream that the connection's end has cut is named, even if the program
// learns of the end and releases the stream before our own code for the end
// runs.
func TestShutdownNamesStreamWhoseEndProgramNoticedFirst(t *testing.T) {
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
				released := make(chan error)
				go func() {
					err := call(s)
					s.Release()
					released <- err
				}()
				settled()
				down := startShutdown(e.client)
				e.server.CloseWithError(7, "")
				require.ErrorIs(t, <-released, &quiclife.ApplicationError{ErrorCode: 7, Remote: true})
				require.NoError(t, e.client.Context().Err())
				requireCut(t, <-down, 1)
			})
		})
	}
}

// A stream that the peer resets, or stops reading, has ended.
func TestShutdownCallsStreamThatPeerResetCut(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		down := startShutdown(e.client)
		peer.Reset(1)
		settled()
		_, err := s.Write([]byte("x"))
		require.ErrorIs(t, err, &quiclife.StreamError{StreamID: s.StreamID(), ErrorCode: 1, Remote: true})
		_, err = s.Read(make([]byte, 1))
		require.ErrorIs(t, err, &quiclife.StreamError{StreamID: s.StreamID(), ErrorCode: 1, Remote: true})
		require.NoError(t, <-down)
	})
}

// If a handshake does not complete, the context ends the wait.
func TestShutdownOfStuckHandshakeIgnoresContext(t *testing.T) {
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
		go func() { client.Dial(context.Background(), addr, clientTLS, nil); close(dialed) }() // the dial may or may not succeed
		c, err := ln.Accept(t.Context())
		require.NoError(t, err)
		dead.Store(true)
		start := time.Now()
		require.ErrorIs(t, shutdown(c, time.Second), context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
		<-dialed
	})
}

// If connections of quic-go still use a socket, the context ends the wait.
func TestGuardShutdownWaitsForUnwrappedConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		serverTLS, clientTLS := quictest.TLS()
		socket, serverSocket, addr := quictest.Net{}.Endpoints(t)
		guard := &quiclife.Guard{}
		ln, err := quiclife.ListenUnder(guard, serverSocket, serverTLS, nil)
		require.NoError(t, err)
		tr := &quic.Transport{Conn: socket}
		defer tr.Close()
		c, err := tr.Dial(t.Context(), addr, clientTLS, nil)
		require.NoError(t, err)
		raw, err := ln.Unwrap().Accept(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, guard.Shutdown(ctx), context.DeadlineExceeded)
		require.NoError(t, raw.Context().Err())
		raw.CloseWithError(0, "")
		c.CloseWithError(0, "")
		require.NoError(t, guard.Shutdown(t.Context()))
	})
}

// If the context is done after all connections were shut down, while the socket
// lingers, the error differs from that for cut connections.
func TestGuardShutdownNamesSocketThatLingers(t *testing.T) {
	shutdownIn := func(timeout time.Duration) (took time.Duration, err error) {
		bubble(t, func(t *testing.T) {
			serverTLS, clientTLS := quictest.TLS()
			client, socket, addr := quictest.Net{}.Endpoints(t)
			guard := &quiclife.Guard{}
			ln, lerr := quiclife.ListenOn(guard, socket, serverTLS, nil)
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
			require.ErrorIs(t, context.Cause(c.Context()), &quic.ApplicationError{Remote: true}, "the code is 0")
			settled() // the bubble fails if anything is left of the listener
		})
		return took, err
	}
	took, err := shutdownIn(time.Minute)
	require.NoError(t, err)
	_, err = shutdownIn(took - 50*time.Millisecond) // within the 3 PTO that the socket lingers
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "the socket of 1.0.0.2:443 is still open")
	require.NotErrorAs(t, err, new(*quiclife.ShutdownError), "nothing was cut")
}

// Connections that were cut and sockets that linger are counted apart.
func TestGuardShutdownErrorCountsSocketsApart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		serverTLS, clientTLS := quictest.TLS()
		client, socket, addr := quictest.Net{}.Endpoints(t)
		guard := &quiclife.Guard{}
		ln, err := quiclife.ListenUnder(guard, socket, serverTLS, nil)
		require.NoError(t, err)
		tr := &quic.Transport{Conn: client}
		defer tr.Close()
		_, err = tr.Dial(t.Context(), addr, clientTLS, nil)
		require.NoError(t, err)
		c, err := ln.Accept(t.Context())
		require.NoError(t, err)
		s, err := c.OpenStream()
		require.NoError(t, err)
		keep(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.EqualError(t, guard.Shutdown(ctx), "quiclife: shutdown: 1 of 1 connections cut, with 1 open stream; data may not have arrived; 1 socket not closed in time")
		settled()
	})
}

// A socket that was closed is not named, even if ctx was done before.
func TestGuardShutdownWithDoneContextNamesClosedSocket(t *testing.T) {
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 { // when broken, it fails every other time
		bubble(t, func(t *testing.T) {
			serverTLS, _ := quictest.TLS()
			_, socket, _ := quictest.Net{}.Endpoints(t)
			guard := &quiclife.Guard{}
			_, err := quiclife.ListenUnder(guard, socket, serverTLS, nil)
			require.NoError(t, err)
			require.NoError(t, guard.Shutdown(done))
		})
	}
}

// All connections of a group are shut down without loss: those that are served,
// and one that the program has not accepted.
func TestGuardShutdownLosesRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		server := &quiclife.Guard{}
		site := newSite(t, &quiclife.Transport{Guard: server}, nil)
		var served, asked sync.WaitGroup
		for range 4 {
			e := site.connect(t)
			served.Go(func() {
				err := e.server.Serve(context.Background(), quiclife.Handlers{Stream: func(ctx context.Context, s *quiclife.Stream) error {
					time.Sleep(2 * time.Second) // Shutdown begins meanwhile
					_, err := io.Copy(s, s)
					return err
				}})
				if err != quiclife.ErrShutdown {
					t.Error("Serve returned", err)
				}
			})
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			write(t, s, "request")
			asked.Go(func() {
				s.Close()
				if b, err := io.ReadAll(s); err != nil || string(b) != "request" {
					t.Errorf("the answer to \"request\" is %q, %v", b, err)
				}
			})
		}
		_, err := site.dial(t.Context()) // not accepted by the program
		require.NoError(t, err)
		settled()
		require.NoError(t, server.Shutdown(t.Context()))
		served.Wait()
		asked.Wait()
		require.Empty(t, conns(server))
		require.NoError(t, site.client.Guard.Shutdown(t.Context()))
		require.NoError(t, server.Shutdown(t.Context()), "of nothing")
	})
}

// The listeners and the sockets of ListenAddr are closed. The group can still
// be used.
func TestGuardShutdownFreesAddress(t *testing.T) {
	serverTLS, _ := quictest.TLS()
	guard := &quiclife.Guard{}
	ln, err := guard.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	require.NoError(t, guard.Shutdown(t.Context()))
	_, err = ln.Accept(t.Context())
	require.Equal(t, quiclife.ErrServerClosed, err)
	ln, err = guard.ListenAddr(ln.Addr().String(), serverTLS, nil)
	require.NoError(t, err, "its socket is open")
	require.NoError(t, ln.Close())
}

// If another call, an impatient Shutdown or CloseWithError, cuts streams, their
// data has not arrived.
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
				down := startShutdown(e.client)
				require.Error(t, cut(e.client))
				require.ErrorIs(t, <-down, &quiclife.ApplicationError{ErrorCode: 42, ErrorMessage: "done"})
			})
		})
	}
}

// Of many concurrent calls, one finds that everything has arrived and closes
// the connection, while others are about to look. When broken, one round in six
// fails.
func TestShutdownFailsForAnotherThatReturnsNil(t *testing.T) {
	const calls = 100
	for range 10 {
		setup{}.in(t, func(t *testing.T, e ends) {
			s, err := e.client.OpenUniStream()
			require.NoError(t, err)
			write(t, s, "data")
			s.Close()
			down := make(chan error, calls)
			for range calls {
				go func() { down <- shutdown(e.client, time.Minute) }()
			}
			for range calls {
				require.NoError(t, <-down)
			}
		})
	}
}

// A stream that was ended by a rejection of 0-RTT was not ended by the
// connection's end, which is far away.
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

// quic-go closes a connection only when a callback of its tls.Config has
// returned. Shutdown does not wait for that.
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

// Shutdown waits for the send half of a detached stream, as far as quic-go
// shows it.
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

// A connection is a member of the group as soon as quic-go has returned it to
// Accept.
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
		ln.Close() // even if the program has closed the listener
		require.NoError(t, guard.Shutdown(t.Context()))
		require.Error(t, (<-accepted).Context().Err(), "the connection lives on")
	})
}

func TestGuardShutdownErrorIsOneLineWithCounts(t *testing.T) {
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
		require.EqualError(t, err, "quiclife: shutdown: 3 of 3 connections cut, with 6 open streams; data may not have arrived")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var several interface{ Unwrap() []error }
		require.ErrorAs(t, err, &several)
		require.Len(t, several.Unwrap(), 3)
		requireCut(t, err, 2)
	})
}

// With NoStopSending, a Shutdown whose context ends sends no STOP_SENDING. It
// does not reset dropped control streams either: the peer sees only the
// connection's end.
func TestShutdownThatCutsSendsStopSending(t *testing.T) {
	setup{guard: &quiclife.Guard{NoStopSending: true}}.in(t, func(t *testing.T, e ends) {
		require.NoError(t, dropUni(t.Context(), e.server))
		control, err := e.client.AcceptUniStream(t.Context())
		require.NoError(t, err)
		expect(t, control, "settings")
		e.server.Stats() // weakens young streams
		runtime.GC()
		for info := range e.server.Streams() {
			require.True(t, info.Dropped, "%v", info)
		}
		var clients, servers []*quiclife.Stream
		for range 3 {
			client, server := e.stream(t)
			clients, servers = append(clients, client), append(servers, server)
		}
		// What was written before the last stream was cut arrives before the
		// connection's end.
		quiclife.BeforeCancelWrite(servers[2], func() { time.Sleep(100 * time.Millisecond) })
		requireCut(t, shutdown(e.server, time.Second), len(servers))
		require.Zero(t, e.server.Stats().Open())
		ended := &quiclife.ApplicationError{ErrorCode: 42, ErrorMessage: "done", Remote: true}
		for i, s := range clients {
			<-s.Context().Done()
			require.ErrorIs(t, context.Cause(s.Context()), ended, "stream %d", i)
		}
		_, err = control.Read(make([]byte, 1))
		require.ErrorIs(t, err, ended, "the control stream")
		runtime.KeepAlive(servers)
	})
}

// Earlier collections in vain do not delay the one that Shutdown needs.
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

// Data sent in 0-RTT is lost if the server rejects it.
func TestShutdownReturnsNilForRejected0RTT(t *testing.T) {
	setupEarly(t, func(t *testing.T, c *quiclife.Conn) {
		s, err := c.OpenUniStream()
		require.NoError(t, err)
		write(t, s, "data")
		s.Close()
		require.ErrorIs(t, shutdown(c, time.Minute), quiclife.Err0RTTRejected)
	})
}

// setupEarly runs f in a bubble on a connection whose 0-RTT was rejected.
func setupEarly(t *testing.T, f func(t *testing.T, c *quiclife.Conn)) {
	bubble(t, func(t *testing.T) {
		c, _ := dialEarly(t, true)
		f(t, c)
	})
}

// If an early connection is shut down before its handshake is complete, no data
// is lost, even if the first packets are lost. If Shutdown does not wait for
// the handshake, the network of seed 13 shows it.
func TestShutdownInHandshakeLosesData(t *testing.T) {
	const size = 10_000
	for seed := range uint64(20) {
		bubble(t, func(t *testing.T) {
			serverTLS, clientTLS := quictest.TLS()
			conf := &quic.Config{MaxIdleTimeout: 10 * time.Minute, HandshakeIdleTimeout: time.Minute}
			pc, ps, addr := quictest.Net{Latency: 150 * time.Millisecond, Drop: dropSome(seed, 20)}.Endpoints(t)
			guard := &quiclife.Guard{}
			server, client := &quiclife.Transport{Conn: ps, Guard: guard}, &quiclife.Transport{Conn: pc, Guard: guard}
			defer server.Close()
			defer client.Close()
			ln, err := server.ListenEarly(serverTLS, conf)
			require.NoError(t, err)
			defer ln.Close()
			got := make(chan int, 1)
			go func() {
				got <- func() int {
					c, err := client.Dial(context.Background(), addr, clientTLS, conf)
					if err != nil {
						return 0
					}
					defer c.CloseWithError(0, "")
					s, err := c.AcceptUniStream(context.Background())
					if err != nil {
						return 0
					}
					b, _ := io.ReadAll(s)
					return len(b)
				}()
			}()
			c, err := ln.Accept(t.Context())
			require.NoError(t, err)
			s, err := c.OpenUniStreamSync(t.Context())
			require.NoError(t, err)
			_, err = s.Write(make([]byte, size))
			require.NoError(t, err)
			s.Close()
			err = shutdown(c, time.Hour)
			if n := <-got; err == nil {
				require.Equal(t, size, n, "seed %d", seed)
			}
		})
	}
}

// A stream that the peer's CloseWithError cuts is named once, whoever notices
// first: the program, Shutdown, or the AfterFunc of the connection's context.
func TestShutdownNamesStreamThatPeerCloseCuts(t *testing.T) {
	for range 10 {
		setup{}.in(t, func(t *testing.T, e ends) {
			s, _ := e.stream(t)
			released := make(chan struct{})
			go func() {
				s.Read(make([]byte, 1))
				s.Release()
				close(released)
			}()
			down := startShutdown(e.client)
			e.server.CloseWithError(7, "")
			requireCut(t, <-down, 1)
			<-released
		})
	}
}

func TestConcurrentShutdownsNameStreamsTwice(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		for range 5 {
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			keep(t, s)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		errs := make(chan error, 4)
		for range 4 {
			go func() { errs <- e.client.Shutdown(ctx, 0, "") }()
		}
		for range 4 {
			if cut, ok := errors.AsType[*quiclife.ShutdownError](<-errs); ok { // else the connection had ended
				require.LessOrEqual(t, len(cut.Streams), 5)
			}
		}
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

// TestShutdownErrorHasAttributes: those of the first stream only if one was
// cut.
func TestShutdownErrorHasAttributes(t *testing.T) {
	attrs := (&quiclife.ShutdownError{Err: context.Canceled}).LogValue().Group()
	require.Len(t, attrs, 2, "%v", attrs)
	require.Equal(t, "cut=0", attrs[0].String())
	require.Equal(t, "error=context canceled", attrs[1].String())
}
