package quiclife_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

var serveCodes = quiclife.Codes{Release: 1, Refused: 2, HandlerError: 3, Panic: 4, Shutdown: 5}

// serve runs Serve on the server until the end of the connection or of ctx.
func (e ends) serve(ctx context.Context, h quiclife.Handler) (done chan error) {
	done = make(chan error, 1)
	go func() { done <- e.server.Serve(ctx, h) }()
	return done
}

// TestHandlerEnds: a handler's stream ends with the handler, as it returned.
func TestHandlerEnds(t *testing.T) {
	special := errors.New("special")
	for _, c := range []struct {
		name    string
		handler func(ctx context.Context, s *quiclife.Stream) error
		code    func(error) quiclife.StreamErrorCode
		answer  string
		err     quiclife.StreamErrorCode // 0: EOF
	}{
		{"nil", func(ctx context.Context, s *quiclife.Stream) error { _, err := io.Copy(s, s); return err }, nil, "request", 0},
		{"nil, nothing read", func(ctx context.Context, s *quiclife.Stream) error { _, err := s.Write([]byte("answer")); return err }, nil, "answer", 0},
		{"nil, after its own Close", func(ctx context.Context, s *quiclife.Stream) error { s.Write([]byte("answer")); return s.Close() }, nil, "answer", 0},
		{"error", func(ctx context.Context, s *quiclife.Stream) error { return io.ErrNoProgress }, nil, "", 3},
		{"error with a code", func(ctx context.Context, s *quiclife.Stream) error { return special }, func(err error) quiclife.StreamErrorCode {
			if err == special {
				return 77
			}
			return 0
		}, "", 77},
		{"panic", func(ctx context.Context, s *quiclife.Stream) error { panic("oops") }, nil, "", 4},
		{"panic in Code", func(ctx context.Context, s *quiclife.Stream) error { return special }, func(error) quiclife.StreamErrorCode { panic("oops") }, "", 3},
		{"Goexit", func(ctx context.Context, s *quiclife.Stream) error { runtime.Goexit(); return nil }, nil, "", 4},
		{"its own Reset", func(ctx context.Context, s *quiclife.Stream) error { s.Reset(9); return nil }, nil, "", 9},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log logged
			setup{guard: &quiclife.Guard{Codes: serveCodes, Logger: log.logger()}}.in(t, func(t *testing.T, e ends) {
				done := e.serve(t.Context(), quiclife.Handler{Stream: c.handler, Code: c.code})
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				write(t, s, "request")
				s.Close()
				b, err := io.ReadAll(s)
				if c.err == 0 {
					require.NoError(t, err)
					require.Equal(t, c.answer, string(b))
				} else {
					require.ErrorIs(t, err, &quiclife.StreamError{ErrorCode: c.err, Remote: true})
				}
				s.Release()
				settled()
				e.requireNothingLeft(t)
				panicked := strings.HasPrefix(c.name, "panic")
				require.Equal(t, panicked, strings.Contains(log.String(), "panic=oops"))
				require.Equal(t, panicked, strings.Contains(log.String(), "serve_test.go"), "its stack")
				e.server.CloseWithError(6, "")
				require.ErrorIs(t, <-done, &quiclife.ApplicationError{ErrorCode: 6})
			})
		})
	}
}

// TestHandlersOfBothKinds, the context that they get, and what a nil func does.
func TestHandlersOfBothKinds(t *testing.T) {
	type key struct{}
	setup{guard: &quiclife.Guard{Codes: serveCodes}}.in(t, func(t *testing.T, e ends) {
		got := make(chan string, 1)
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		done := e.serve(ctx, quiclife.Handler{UniStream: func(ctx context.Context, s *quiclife.ReceiveStream) error {
			b, err := io.ReadAll(s)
			got <- string(b) + " " + ctx.Value(key{}).(string)
			<-ctx.Done()
			return err
		}})
		uni, err := e.client.OpenUniStream()
		require.NoError(t, err)
		write(t, uni, "message")
		uni.Close()
		require.Equal(t, "message value", <-got)
		for range 300 { // no slot is lost
			s, err := e.client.OpenStreamSync(t.Context())
			require.NoError(t, err)
			write(t, s, "x")
			_, err = s.Read(make([]byte, 1))
			require.ErrorIs(t, err, &quiclife.StreamError{StreamID: s.StreamID(), ErrorCode: 2, Remote: true})
			s.Release()
		}
		require.ErrorContains(t, e.server.Serve(ctx, quiclife.Handler{}), "already")
		require.ErrorContains(t, e.server.Serve(nil, quiclife.Handler{}), "nil context") //nolint:staticcheck // on purpose
		cancel()
		settled()
		select {
		case <-done:
			t.Error("returned before its handler")
		default:
		}
		e.server.CloseWithError(6, "")
		require.Equal(t, context.Canceled, <-done)
	})
	setup{}.in(t, func(t *testing.T, e ends) {
		ctx, cancel := context.WithCancel(t.Context())
		done := e.serve(ctx, quiclife.Handler{})
		settled()
		cancel()
		require.Equal(t, context.Canceled, <-done)
		done = e.serve(t.Context(), quiclife.Handler{}) // again
		settled()
		e.client.CloseWithError(6, "")
		require.ErrorIs(t, <-done, &quiclife.ApplicationError{ErrorCode: 6, Remote: true})
		require.Error(t, e.server.Serve(t.Context(), quiclife.Handler{}))
	})
}

// TestHandlerContext: a handler's context has the values of the connection's
// and of Serve's, the former first.
func TestHandlerContext(t *testing.T) {
	type both struct{}
	type serves struct{}
	serverTLS, clientTLS := quictest.TLS()
	bubble(t, func(t *testing.T) {
		pc, ps, addr := quictest.Net{}.Endpoints(t)
		guard := &quiclife.Guard{}
		tr := &quiclife.Transport{Conn: ps, Guard: guard, ConnContext: func(ctx context.Context, _ *quiclife.ClientInfo) (context.Context, error) {
			return context.WithValue(ctx, both{}, "connection"), nil
		}}
		defer tr.Close()
		ln, err := tr.Listen(serverTLS, nil)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.WithValue(context.WithValue(t.Context(), both{}, "Serve"), serves{}, "Serve"))
		served, got := make(chan error), make(chan [2]any, 1)
		go func() {
			served <- ln.Serve(ctx, quiclife.Handler{Stream: func(ctx context.Context, s *quiclife.Stream) error {
				got <- [2]any{ctx.Value(both{}), ctx.Value(serves{})}
				return nil
			}})
		}()
		c, err := guard.Dial(t.Context(), pc, addr, clientTLS, nil)
		require.NoError(t, err)
		require.NoError(t, c.Do(t.Context(), func(s *quiclife.Stream) error { _, err := s.Write([]byte("x")); return err }))
		require.Equal(t, [2]any{"connection", "Serve"}, <-got)
		cancel()
		require.Equal(t, context.Canceled, <-served)
		settled()
	})
}

// TestServeWithoutKnownLimit: where the peer was allowed more streams than the
// configuration said, they are handled all the same.
func TestServeWithoutKnownLimit(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		e.server = quiclife.Wrap(e.rawServer, &quic.Config{MaxIncomingStreams: -1})
		done := e.serve(t.Context(), quiclife.Handler{Stream: func(ctx context.Context, s *quiclife.Stream) error {
			_, err := io.Copy(s, s)
			return err
		}})
		require.NoError(t, e.client.Do(t.Context(), func(s *quiclife.Stream) error {
			write(t, s, "x")
			expect(t, s, "x")
			return nil
		}))
		e.client.CloseWithError(0, "")
		require.Error(t, <-done)
	})
}

// TestServeEndsAtLimit: when its context is done while all slots are taken,
// Serve accepts nothing more.
func TestServeEndsAtLimit(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		e.server = quiclife.Wrap(e.rawServer, &quic.Config{MaxIncomingStreams: 1})
		finish := make(chan struct{})
		var handled atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		done := e.serve(ctx, quiclife.Handler{Stream: func(context.Context, *quiclife.Stream) error {
			handled.Add(1)
			<-finish
			return nil
		}})
		for range 2 {
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			write(t, s, "x")
			defer s.Release()
		}
		settled()
		cancel()
		settled()
		close(finish)
		require.Equal(t, context.Canceled, <-done)
		require.EqualValues(t, 1, handled.Load())
	})
}

// TestServeHandlesQueuedStreamsAfterItsContext: what was queued when its context
// ended is neither handled nor refused.
func TestServeHandlesQueuedStreamsAfterItsContext(t *testing.T) {
	setup{guard: &quiclife.Guard{Codes: serveCodes}}.in(t, func(t *testing.T, e ends) {
		for range 20 {
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			defer s.Release()
			write(t, s, "x")
			uni, err := e.client.OpenUniStream()
			require.NoError(t, err)
			defer uni.Release()
			write(t, uni, "x")
		}
		settled()
		done, cancel := context.WithCancel(t.Context())
		cancel()
		var handled atomic.Int64
		for range 20 { // a select may happen to choose right
			require.Equal(t, context.Canceled, e.server.Serve(done, quiclife.Handler{
				Stream: func(context.Context, *quiclife.Stream) error { handled.Add(1); return nil },
			}))
		}
		require.Zero(t, handled.Load(), "streams handled")
		for range 20 { // all are still there
			_, err := e.server.AcceptStream(done)
			require.NoError(t, err)
			_, err = e.server.AcceptUniStream(done)
			require.NoError(t, err, "a stream was refused")
		}
	})
}

// TestRefusingIsPaced: a peer that opens streams of a refused kind as fast as
// it can has as many refused at once as it may have open, then 100 a second,
// also during Shutdown. One that has rested may do the same again.
func TestRefusingIsPaced(t *testing.T) {
	for _, c := range []struct {
		name   string
		limit  int64
		atOnce int
		refuse func(t *testing.T, e ends) (stop func())
	}{
		{"Serve", 50, 50, func(t *testing.T, e ends) func() {
			ctx, cancel := context.WithCancel(t.Context())
			done := e.serve(ctx, quiclife.Handler{})
			return func() { // in the middle of a wait
				start := time.Now()
				cancel()
				require.Equal(t, context.Canceled, <-done)
				require.Zero(t, time.Since(start))
			}
		}},
		{"Serve, of a limit that is not known", -1, 1000, func(t *testing.T, e ends) func() {
			ctx, cancel := context.WithCancel(t.Context())
			done := e.serve(ctx, quiclife.Handler{})
			return func() { cancel(); <-done }
		}},
		{"Shutdown", 50, 50, func(t *testing.T, e ends) func() {
			held, err := e.server.OpenStream()
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- e.server.Shutdown(ctx, 0, "") }()
			return func() {
				cancel()
				require.Error(t, <-done)
				held.Release()
			}
		}},
	} {
		conf := &quic.Config{MaxIncomingUniStreams: 50}
		setup{serverConf: conf, guard: &quiclife.Guard{}}.in(t, func(t *testing.T, e ends) {
			e.server = quiclife.Wrap(e.rawServer, &quic.Config{MaxIncomingUniStreams: c.limit})
			stop := c.refuse(t, e)
			ctx, cancel := context.WithCancel(t.Context())
			var opened atomic.Int64
			var peer sync.WaitGroup
			peer.Go(func() {
				for {
					s, err := e.rawClient.OpenUniStreamSync(ctx)
					if err != nil {
						return
					}
					s.Write([]byte("x"))
					s.CancelWrite(1)
					opened.Add(1)
				}
			})
			refusedIn := func(d time.Duration) int {
				before := opened.Load()
				time.Sleep(d)
				return int(opened.Load() - before)
			}
			window := int(conf.MaxIncomingUniStreams) // opened and not yet refused
			if c.atOnce > window {
				require.Greater(t, refusedIn(time.Second), 900, c.name)
			} else {
				require.InDelta(t, window+c.atOnce+100, refusedIn(time.Second), 10, c.name)
			}
			refusedIn(10 * time.Second)
			require.InDelta(t, 100, refusedIn(time.Second), 2, c.name)
			require.InDelta(t, 1000, refusedIn(10*time.Second), 2, c.name)
			cancel()
			peer.Wait()

			stop()
		})
	}
}

// TestHandlerConcurrency: handlers run at most MaxIncomingStreams at a time,
// also if the peer opens and resets in a loop.
func TestHandlerConcurrency(t *testing.T) {
	const limit, streams = 16, 20_000
	conf := &quic.Config{MaxIncomingStreams: limit, RequireStreamCreditRelease: true}
	e := setup{serverConf: conf}.onLoopback(t)
	var running, most, handled atomic.Int64
	done := e.serve(context.Background(), quiclife.Handler{Stream: func(ctx context.Context, s *quiclife.Stream) error {
		raise(&most, running.Add(1))
		defer running.Add(-1)
		_, err := io.ReadAll(s)
		runtime.Gosched()
		handled.Add(1)
		return err
	}})
	for range streams {
		s, err := e.client.OpenStreamSync(t.Context())
		require.NoError(t, err)
		s.Reset(1)
	}
	eventually(t, func() bool { return handled.Load() == streams })
	require.LessOrEqual(t, most.Load(), int64(limit))
	require.LessOrEqual(t, e.server.Stats().Incoming.Peak, int64(limit))
	eventually(t, func() bool { return quictest.Held(e.rawServer)+quictest.Held(e.rawClient) == 0 })
	e.requireNothingLeft(t)
	e.client.CloseWithError(0, "")
	require.Error(t, <-done)
}

// TestBadHandlers: stuck, panicking, slow and forgetful handlers, 1,000
// streams each at a limit of 16, lose no slot, and others are served meanwhile.
func TestBadHandlers(t *testing.T) {
	const limit = 16
	for name, bad := range map[string]func(ctx context.Context, s *quiclife.Stream) error{
		"stuck until its stream is reset": func(ctx context.Context, s *quiclife.Stream) error {
			for {
				if _, err := s.Read(make([]byte, 1)); err != nil && err != io.EOF {
					return err
				} else if err == io.EOF {
					return nil
				}
			}
		},
		"panicking": func(ctx context.Context, s *quiclife.Stream) error { panic("bad") },
		"slow":      func(ctx context.Context, s *quiclife.Stream) error { time.Sleep(time.Second); return nil },
		"forgetful": func(ctx context.Context, s *quiclife.Stream) error { s.Write([]byte("half")); return nil },
		"failing":   func(ctx context.Context, s *quiclife.Stream) error { return io.ErrShortBuffer },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := &quic.Config{MaxIncomingStreams: limit}
			setup{serverConf: conf}.in(t, func(t *testing.T, e ends) {
				done := e.serve(t.Context(), quiclife.Handler{Stream: func(ctx context.Context, s *quiclife.Stream) error {
					b := make([]byte, 1)
					if _, err := io.ReadFull(s, b); err != nil {
						return err
					}
					if b[0] == 'b' {
						return bad(ctx, s)
					}
					_, err := s.Write([]byte("good"))
					return err
				}})
				var wg sync.WaitGroup
				wg.Go(func() {
					for range 1000 {
						s, err := e.client.OpenStreamSync(t.Context())
						if err != nil {
							t.Error(err)
							return
						}
						s.Write([]byte("b"))
						wg.Go(func() { // a client that gives up
							time.Sleep(50 * time.Millisecond)
							s.Release()
						})
					}
				})
				wg.Go(func() {
					for range 50 {
						err := e.client.Do(t.Context(), func(s *quiclife.Stream) error {
							s.Write([]byte("g"))
							b, err := io.ReadAll(s)
							if string(b) != "good" {
								t.Errorf("%q, %v", b, err)
							}
							return err
						})
						if err != nil {
							t.Error(err)
						}
					}
				})
				wg.Wait()
				time.Sleep(time.Minute / 10)
				e.requireNothingLeft(t)
				stats := e.server.Stats().Incoming
				require.EqualValues(t, 1050, stats.Opened)
				require.LessOrEqual(t, stats.Peak, int64(limit))
				e.client.CloseWithError(0, "")
				<-done
			})
		})
	}
}

// TestServeLogsCutAnswer: a handler that returns nil though its answer was cut
// has lost data, and nobody else would say so. A peer that stops reading, and a
// handler that finishes the answer after all, are no loss.
func TestServeLogsCutAnswer(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler func(s *quiclife.Stream)
		logged  bool
	}{
		{"cut by a deadline", func(s *quiclife.Stream) {
			s.SetWriteDeadline(time.Now().Add(time.Second))
			s.Write(large)
		}, true},
		{"and closed by the handler", func(s *quiclife.Stream) {
			s.SetWriteDeadline(time.Now().Add(time.Second))
			s.Write(large)
			s.Close()
		}, true},
		{"cut, then continued", func(s *quiclife.Stream) {
			s.SetWriteDeadline(time.Now().Add(time.Second))
			n, _ := s.Write(large)
			s.SetWriteDeadline(time.Time{})
			s.Write(large[n:])
		}, false},
		{"stopped by the peer", func(s *quiclife.Stream) { s.Write(large); s.Write(large) }, false},
		{"whole", func(s *quiclife.Stream) { s.Write([]byte("answer")) }, false},
	} {
		var log logged
		setup{guard: &quiclife.Guard{Codes: serveCodes, Logger: log.logger()}, clientConf: matrixConf}.in(t, func(t *testing.T, e ends) {
			done := e.serve(t.Context(), quiclife.Handler{Stream: func(ctx context.Context, s *quiclife.Stream) error {
				c.handler(s)
				return nil
			}})
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			write(t, s, "request")
			time.Sleep(5 * time.Second)
			if c.name == "stopped by the peer" {
				s.CancelRead(1)
			} else if _, err = io.Copy(io.Discard, s); c.logged {
				require.ErrorAs(t, err, new(*quiclife.StreamError), c.name)
			} else {
				require.NoError(t, err, c.name)
			}
			s.Release()
			settled()
			if c.logged {
				require.Contains(t, log.String(), "level=WARN msg=\"quiclife: answer cut", c.name)
				require.Contains(t, log.String(), "stream=0", c.name)
				require.Contains(t, log.String(), "remote="+e.server.RemoteAddr().String(), c.name)
			} else {
				require.Empty(t, log.String(), c.name)
			}
			e.requireNothingLeft(t)
			e.client.CloseWithError(0, "")
			<-done
		})
	}
}

// TestDoCancelled: a func that returns nil once its context is done has not
// succeeded.
func TestDoCancelled(t *testing.T) {
	setup{guard: &quiclife.Guard{Codes: serveCodes}}.in(t, func(t *testing.T, e ends) {
		ctx, cancel := context.WithCancel(t.Context())
		require.Equal(t, context.Canceled, e.client.Do(ctx, func(s *quiclife.Stream) error {
			write(t, s, "x")
			settled()
			cancel()
			settled()
			return nil
		}))
		s, err := e.server.AcceptStream(t.Context())
		require.NoError(t, err)
		_, err = io.ReadAll(s)
		require.ErrorIs(t, err, &quiclife.StreamError{StreamID: s.StreamID(), ErrorCode: 3, Remote: true})
		s.Release()
	})
}

// TestDo: open, run, end.
func TestDo(t *testing.T) {
	failed := errors.New("failed")
	guard := &quiclife.Guard{Codes: serveCodes}
	setup{guard: guard, serverConf: &quic.Config{MaxIncomingStreams: 1}}.in(t, func(t *testing.T, e ends) {
		codes := make(chan error, 10)
		done := e.serve(t.Context(), quiclife.Handler{
			Stream: func(ctx context.Context, s *quiclife.Stream) error {
				b, err := io.ReadAll(s)
				codes <- err
				s.Write(b)
				return err
			},
			UniStream: func(ctx context.Context, s *quiclife.ReceiveStream) error {
				_, err := io.ReadAll(s)
				codes <- err
				return err
			},
		})
		require.NoError(t, e.client.Do(t.Context(), func(s *quiclife.Stream) error {
			write(t, s, "request")
			s.Close()
			b, err := io.ReadAll(s)
			require.Equal(t, "request", string(b))
			return err
		}))
		require.NoError(t, <-codes)

		reset := func(code quiclife.StreamErrorCode) {
			t.Helper()
			var stream *quiclife.StreamError
			require.ErrorAs(t, <-codes, &stream)
			require.Equal(t, code, stream.ErrorCode)
		}
		require.Equal(t, failed, e.client.Do(t.Context(), func(s *quiclife.Stream) error {
			write(t, s, "half")
			settled()
			return failed
		}))
		reset(3)
		require.PanicsWithValue(t, "oops", func() {
			e.client.Do(t.Context(), func(s *quiclife.Stream) error {
				write(t, s, "half")
				settled()
				panic("oops")
			})
		})
		reset(4)

		// ctx ends what f is blocked in.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := e.client.Do(ctx, func(s *quiclife.Stream) error {
			write(t, s, "half")
			_, err := s.Read(make([]byte, 1))
			return err
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var stream *quiclife.StreamError
		require.ErrorAs(t, err, &stream)
		reset(3)
		err = e.client.Do(ctx, func(s *quiclife.Stream) error { t.Error("called"); return nil })
		require.ErrorIs(t, err, context.DeadlineExceeded)

		// What f wrote arrives: the FIN and Release do not overtake it.
		require.NoError(t, e.client.DoUni(t.Context(), func(s *quiclife.SendStream) error { _, err := s.Write([]byte("message")); return err }))
		require.NoError(t, <-codes)
		require.Equal(t, failed, e.client.DoUni(t.Context(), func(s *quiclife.SendStream) error { write(t, s, "x"); settled(); return failed }))
		reset(3)

		// At the limit it waits, and says who holds the slots.
		held, err := e.client.OpenStreamSync(t.Context())
		require.NoError(t, err)
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = e.client.Do(ctx, func(s *quiclife.Stream) error { return nil })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		limit, ok := errors.AsType[*quiclife.LimitError](err)
		require.True(t, ok)
		require.EqualValues(t, 1, limit.Open)
		require.Equal(t, held.StreamID(), limit.Oldest.ID)
		require.ErrorContains(t, e.client.Do(nil, nil), "nil context")    //nolint:staticcheck // on purpose
		require.ErrorContains(t, e.client.DoUni(nil, nil), "nil context") //nolint:staticcheck // on purpose
		held.Release()
		settled()
		e.requireNothingLeft(t)
		e.client.CloseWithError(0, "")
		<-done
	})
	// A write that was cut is no success.
	setup{serverConf: matrixConf, guard: guard}.in(t, func(t *testing.T, e ends) {
		err := e.client.Do(t.Context(), func(s *quiclife.Stream) error {
			s.SetWriteDeadline(time.Now().Add(time.Millisecond))
			s.Write(large)
			return nil
		})
		require.Equal(t, quiclife.ErrWriteCut, err)
	})
}

// TestListenerServe serves until its context ends, and drains.
func TestListenerServe(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	guard := &quiclife.Guard{Codes: serveCodes}
	ln, err := guard.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	release := make(chan struct{})
	go func() {
		served <- ln.Serve(ctx, quiclife.Handler{Stream: func(ctx context.Context, s *quiclife.Stream) error {
			b, err := io.ReadAll(s)
			if string(b) == "slow" {
				<-release
			}
			s.Write(b)
			return err
		}})
	}()
	require.ErrorContains(t, ln.Serve(nil, quiclife.Handler{}), "nil context") //nolint:staticcheck // on purpose

	ask := func(c *quiclife.Conn, what string) (answer string, err error) {
		err = c.Do(context.Background(), func(s *quiclife.Stream) error {
			s.Write([]byte(what))
			s.Close()
			b, err := io.ReadAll(s)
			answer = string(b)
			return err
		})
		return answer, err
	}
	var conns []*quiclife.Conn
	for range 3 {
		c, err := guard.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
		require.NoError(t, err)
		conns = append(conns, c)
		answer, err := ask(c, "hello")
		require.NoError(t, err)
		require.Equal(t, "hello", answer)
	}
	slow := make(chan string)
	go func() {
		answer, _ := ask(conns[0], "slow")
		slow <- answer
	}()
	eventually(t, func() bool { return conns[0].Stats().Outgoing.Opened == 2 })
	time.Sleep(50 * time.Millisecond) // let the request arrive; if it does not, it is refused and the test fails
	cancel()
	for _, c := range conns[1:] { // idle ones are closed
		<-c.Context().Done()
		require.ErrorIs(t, context.Cause(c.Context()), &quiclife.ApplicationError{Remote: true})
	}
	select {
	case err := <-served:
		t.Error("returned before the slow answer:", err)
	default:
	}
	close(release)
	require.Equal(t, "slow", <-slow)
	require.Equal(t, context.Canceled, <-served)
	<-conns[0].Context().Done()

	ln, err = guard.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	ln.Close()
	require.Equal(t, quiclife.ErrServerClosed, ln.Serve(t.Context(), quiclife.Handler{}))
}

// TestDrainTimeout bounds what Listener.Serve waits for.
func TestDrainTimeout(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	var log logged
	guard := &quiclife.Guard{DrainTimeout: 50 * time.Millisecond, Logger: log.logger()}
	ln, err := guard.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan struct{})
	served := make(chan error, 1)
	go func() {
		served <- ln.Serve(ctx, quiclife.Handler{Stream: func(ctx context.Context, s *quiclife.Stream) error {
			close(started)
			<-ctx.Done() // stuck until the connection ends
			return ctx.Err()
		}})
	}()
	c, err := guard.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
	require.NoError(t, err)
	s, err := c.OpenStream()
	require.NoError(t, err)
	write(t, s, "x")
	<-started
	cancel()
	require.Equal(t, context.Canceled, <-served)
	require.Contains(t, log.String(), "1 open streams cut")
	<-c.Context().Done()
	s.Release()
}

// TestServeDrainsAcceptQueue: connections that nobody accepted are shut down too.
func TestServeDrainsAcceptQueue(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	ln, err := quiclife.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	var clients []*quiclife.Conn
	for range 10 {
		c, err := quiclife.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
		require.NoError(t, err)
		clients = append(clients, c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, context.Canceled, ln.Serve(ctx, quiclife.Handler{}))
	for _, c := range clients {
		<-c.Context().Done()
	}
}
