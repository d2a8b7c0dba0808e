package quiclife_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// star makes one server under guard, which serves h, and count clients, each
// with its own Guard. It runs in a bubble, and returns the clients'
// connections.
func star(t *testing.T, guard *quiclife.Guard, conf *quic.Config, count int, h quiclife.Handlers) (clients []*quiclife.Conn, stop func() error) {
	t.Helper()
	serverTLS, clientTLS := quictest.TLS()
	socks, sock, addr := quictest.Net{}.Star(t, count)
	server := &quiclife.Transport{Conn: sock, Guard: guard}
	ln, err := server.Listen(serverTLS, conf)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- ln.Serve(ctx, h) }()
	for _, pc := range socks {
		tr := &quiclife.Transport{Conn: pc, Guard: &quiclife.Guard{Logger: slog.New(slog.DiscardHandler)}}
		c, err := tr.Dial(t.Context(), addr, clientTLS, &quic.Config{MaxIdleTimeout: time.Hour})
		require.NoError(t, err)
		t.Cleanup(func() {
			c.CloseWithError(0, "")
			tr.Close()
		})
		clients = append(clients, c)
	}
	t.Cleanup(func() { server.Close() })
	return clients, func() error {
		cancel()
		return <-served
	}
}

// askFor makes one request, and returns its error.
func askFor(ctx context.Context, c *quiclife.Conn) error {
	return c.Do(ctx, func(s *quiclife.Stream) error {
		if _, err := s.Write([]byte("request")); err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
		_, err := io.ReadAll(s)
		return err
	})
}

// TestMaxStreamsIsFair: a peer with a thousand requests at a time delays
// itself, and not twenty others that have one request each.
func TestMaxStreamsIsFair(t *testing.T) {
	const limit, service, greed = 50, 100 * time.Millisecond, 1000
	bubble(t, func(t *testing.T) {
		var log logged
		guard := &quiclife.Guard{MaxStreams: limit, Logger: log.logger()}
		var running, most atomic.Int64
		clients, stop := star(t, guard, &quic.Config{MaxIncomingStreams: greed, MaxIdleTimeout: time.Hour}, 21, quiclife.Handlers{
			Stream: func(ctx context.Context, s *quiclife.Stream) error {
				raise(&most, running.Add(1))
				defer running.Add(-1)
				time.Sleep(service)
				_, err := io.Copy(s, s)
				return err
			},
		})
		greedy, others := clients[0], clients[1:]
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range greed {
			all.Go(func() {
				for ctx.Err() == nil {
					askFor(ctx, greedy)
				}
			})
		}
		time.Sleep(5 * time.Second) // it has all slots, and waits for more
		var took []time.Duration
		var mu sync.Mutex // guards took
		var modest sync.WaitGroup
		for _, c := range others {
			modest.Go(func() {
				start := time.Now()
				err := askFor(t.Context(), c)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("a modest peer's request: %v", err)
				}
				took = append(took, time.Since(start))
			})
		}
		modest.Wait()
		slices.Sort(took)
		require.Len(t, took, len(others))
		require.Less(t, took[len(took)/2], 10*service, "median of the modest peers")
		require.EqualValues(t, limit, most.Load(), "handlers at a time")
		time.Sleep(20 * time.Second) // for the log record
		greediest := greedy.LocalAddr().String()
		cancel()
		all.Wait()
		stop()
		require.Contains(t, log.String(), "most="+greediest)
		stats := guard.Stats()
		require.Zero(t, stats.Open(), "open streams at the end")
	})
}

// TestHandlersThatOpenStreamsDoNotDeadlock: the streams that they open do not
// count against MaxStreams.
func TestHandlersThatOpenStreamsDoNotDeadlock(t *testing.T) {
	bubble(t, func(t *testing.T) {
		guard := &quiclife.Guard{MaxStreams: 2, Logger: slog.New(slog.DiscardHandler)}
		clients, stop := star(t, guard, nil, 4, quiclife.Handlers{
			Stream: func(ctx context.Context, s *quiclife.Stream) error {
				return s.Conn().DoUni(ctx, func(back *quiclife.SendStream) error {
					_, err := io.Copy(back, s)
					return err
				})
			},
		})
		var all sync.WaitGroup
		for _, c := range clients {
			for range 20 {
				all.Go(func() {
					if err := askFor(t.Context(), c); err != nil {
						t.Error(err)
					}
				})
			}
		}
		go func() {
			for _, c := range clients {
				go func() {
					for {
						s, err := c.AcceptUniStream(context.Background())
						if err != nil {
							return
						}
						io.Copy(io.Discard, s)
					}
				}()
			}
		}()
		all.Wait()
		stop()
	})
}

// TestWaitingUploadsDoNotStallHandledOnes: at MaxStreams a connection has at
// most one waiting stream of a kind accepted, so that waiting streams do not
// fill the connection's window.
func TestWaitingUploadsDoNotStallHandledOnes(t *testing.T) {
	const size, uploads = 300_000, 30
	bubble(t, func(t *testing.T) {
		guard := &quiclife.Guard{MaxStreams: 1, MaxWait: -1, Logger: slog.New(slog.DiscardHandler)}
		conf := &quic.Config{
			InitialStreamReceiveWindow: 100_000, MaxStreamReceiveWindow: 100_000,
			InitialConnectionReceiveWindow: 4_000_000, MaxConnectionReceiveWindow: 4_000_000,
			MaxIdleTimeout: time.Hour,
		}
		var got atomic.Int64
		clients, stop := star(t, guard, conf, 1, quiclife.Handlers{
			Stream: func(ctx context.Context, s *quiclife.Stream) error {
				n, err := io.Copy(io.Discard, s)
				got.Add(n)
				return err
			},
		})
		var all sync.WaitGroup
		for range uploads {
			all.Go(func() {
				err := clients[0].Do(t.Context(), func(s *quiclife.Stream) error {
					if _, err := s.Write(make([]byte, size)); err != nil {
						return err
					}
					s.Close()
					_, err := io.ReadAll(s)
					return err
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, size*uploads, got.Load(), "bytes of all uploads")
		stop()
	})
}

// TestStreamThatWaitsTooLongIsRefused: so are those that were opened after it.
// No handler has seen them.
func TestStreamThatWaitsTooLongIsRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		wait time.Duration // MaxWait
		end  time.Duration // when something ends the wait; 0 means nothing does
	}{
		{"by default", 0, time.Second},
		{"as configured", 3 * time.Second, 3 * time.Second},
		{"never", -1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				guard := &quiclife.Guard{MaxStreams: 1, MaxWait: c.wait, Logger: slog.New(slog.DiscardHandler), Codes: quiclife.Codes{Refused: 77}}
				release := make(chan struct{})
				var seen atomic.Int64
				clients, stop := star(t, guard, nil, 1, quiclife.Handlers{
					Stream: func(ctx context.Context, s *quiclife.Stream) error {
						seen.Add(1)
						<-release
						return nil
					},
				})
				errs := make(chan error, 10)
				for range 10 {
					go func() { errs <- askFor(t.Context(), clients[0]) }()
				}
				start := time.Now()
				if c.end > 0 {
					for range 9 {
						var reset *quiclife.StreamError
						require.ErrorAs(t, <-errs, &reset)
						require.EqualValues(t, 77, reset.ErrorCode)
					}
					require.InDelta(t, c.end, time.Since(start), float64(100*time.Millisecond))
					require.EqualValues(t, 1, seen.Load(), "streams that a handler saw")
				} else {
					time.Sleep(20 * time.Second)
				}
				close(release)
				for range 10 {
					if c.end > 0 {
						require.NoError(t, <-errs, "the one that was handled")
						break
					}
					require.NoError(t, <-errs)
				}
				stop()
			})
		})
	}
}

// TestShutdownRefusesStreamsThatWait: at once, with Codes.Shutdown.
func TestShutdownRefusesStreamsThatWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		guard := &quiclife.Guard{MaxStreams: 1, MaxWait: -1, Logger: slog.New(slog.DiscardHandler), Codes: quiclife.Codes{Shutdown: 78}}
		release := make(chan struct{})
		clients, _ := star(t, guard, nil, 1, quiclife.Handlers{
			Stream: func(ctx context.Context, s *quiclife.Stream) error {
				<-release
				return nil
			},
		})
		errs := make(chan error, 2)
		for range 2 {
			go func() { errs <- askFor(t.Context(), clients[0]) }()
			settled()
		}
		done := make(chan error)
		start := time.Now()
		go func() { done <- guard.Shutdown(t.Context()) }()
		require.ErrorIs(t, <-errs, &quiclife.StreamError{StreamID: 4, ErrorCode: 78, Remote: true})
		require.Less(t, time.Since(start), time.Second)
		close(release)
		require.NoError(t, <-errs)
		require.NoError(t, <-done)
	})
}

// TestMaxStreamsRefusesNoConnection: only MaxConns does that.
func TestMaxStreamsRefusesNoConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		guard := &quiclife.Guard{MaxStreams: 1, Logger: slog.New(slog.DiscardHandler)}
		serving := make(chan struct{})
		clients, stop := star(t, guard, nil, 5, quiclife.Handlers{
			Conn: func(ctx context.Context, c *quiclife.Conn) (context.Context, error) {
				serving <- struct{}{}
				return ctx, nil
			},
		})
		for range clients {
			<-serving
		}
		require.EqualValues(t, 5, guard.Stats().Conns)
		stop()
	})
}

// TestNetListenerKeepsToMaxStreams: a stream counts until it has ended.
func TestNetListenerKeepsToMaxStreams(t *testing.T) {
	guard := &quiclife.Guard{MaxStreams: 1, MaxWait: 2 * time.Second, Codes: quiclife.Codes{Refused: 77}}
	setup{guard: guard}.in(t, func(t *testing.T, e ends) {
		ln := e.server.NetListener()
		accepted := make(chan net.Conn)
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				accepted <- c
			}
		}()
		open := func() *quiclife.Stream {
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			write(t, s, "x")
			return s
		}
		first, second := open(), open()
		c := <-accepted
		time.Sleep(time.Second)
		select {
		case <-accepted:
			t.Fatal("a second stream beside the first, at MaxStreams 1")
		default:
		}
		c.Close()
		next := <-accepted
		expect(t, next, "x")
		third := open()
		time.Sleep(3 * time.Second) // longer than MaxWait
		var reset *quiclife.StreamError
		_, err := third.Read(make([]byte, 1))
		require.ErrorAs(t, err, &reset)
		require.EqualValues(t, 77, reset.ErrorCode, "the code of a stream that was refused")
		next.Close()
		ln.Close()
		e.requireNothingLeftOf(t, first, second, third)
	})
}

// TestRefusedStreamsOfServeLoseNoSlot: later streams of the connection are
// handled when their turn has come.
func TestRefusedStreamsOfServeLoseNoSlot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		guard := &quiclife.Guard{MaxStreams: 1, Logger: slog.New(slog.DiscardHandler)}
		clients, stop := star(t, guard, &quic.Config{MaxIncomingStreams: 1, MaxIdleTimeout: time.Hour}, 2, quiclife.Handlers{
			Stream: func(_ context.Context, s *quiclife.Stream) error { _, err := io.Copy(s, s); return err },
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		held, err := clients[0].OpenStream()
		require.NoError(t, err)
		write(t, held, "x")
		settled()
		for range 3 {
			require.ErrorAs(t, askFor(ctx, clients[1]), new(*quiclife.StreamError))
		}
		held.Release()
		settled()
		require.NoError(t, askFor(ctx, clients[1]))
		stop()
	})
}
