package quiclife_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
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
func (e ends) serve(ctx context.Context, h quiclife.Handlers) (done chan error) {
	done = make(chan error, 1)
	go func() { done <- e.server.Serve(ctx, h) }()
	return done
}

// TestStreamEndsAsItsHandlerReturned: or as the handler panicked.
func TestStreamEndsAsItsHandlerReturned(t *testing.T) {
	t.Parallel()
	special := errors.New("special")
	for _, c := range []struct {
		name    string
		handler func(ctx context.Context, s *quiclife.Stream) error
		code    func(error) quiclife.StreamErrorCode
		answer  string
		err     quiclife.StreamErrorCode // the code that the peer sees; 0 means EOF
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
				done := e.serve(t.Context(), quiclife.Handlers{Stream: c.handler, Code: c.code})
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
				panicked, exited := strings.HasPrefix(c.name, "panic"), c.name == "Goexit"
				require.Equal(t, panicked, strings.Contains(log.String(), "panic=oops"), "a panic is logged: %s", log.String())
				require.Equal(t, exited, strings.Contains(log.String(), "runtime.Goexit was called"), "Goexit is logged: %s", log.String())
				require.Equal(t, panicked || exited, strings.Contains(log.String(), "serve_test.go"), "its stack is logged: %s", log.String())
				e.server.CloseWithError(6, "")
				require.ErrorIs(t, <-done, &quiclife.ApplicationError{ErrorCode: 6})
			})
		})
	}
}

// TestServeHandlesOneKindAndRefusesTheOther: the kind whose function is nil.
// Refusing loses no slot.
func TestServeHandlesOneKindAndRefusesTheOther(t *testing.T) {
	t.Parallel()
	setup{guard: &quiclife.Guard{Codes: serveCodes}}.in(t, func(t *testing.T, e ends) {
		got := make(chan string, 1)
		done := e.serve(t.Context(), quiclife.Handlers{UniStream: func(_ context.Context, s *quiclife.ReceiveStream) error {
			b, err := io.ReadAll(s)
			got <- string(b)
			return err
		}})
		uni, err := e.client.OpenUniStream()
		require.NoError(t, err)
		write(t, uni, "message")
		uni.Close()
		require.Equal(t, "message", <-got)
		for range 300 {
			s, err := e.client.OpenStreamSync(t.Context())
			require.NoError(t, err)
			write(t, s, "x")
			_, err = s.Read(make([]byte, 1))
			require.ErrorIs(t, err, &quiclife.StreamError{StreamID: s.StreamID(), ErrorCode: 2, Remote: true})
			s.Release()
		}
		e.server.CloseWithError(6, "")
		require.ErrorIs(t, <-done, &quiclife.ApplicationError{ErrorCode: 6})
	})
}

// TestServeWaitsForItsHandlers: the end of its context does not end them.
func TestServeWaitsForItsHandlers(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		ctx, cancel := context.WithCancel(t.Context())
		done := e.serve(ctx, quiclife.Handlers{UniStream: func(ctx context.Context, s *quiclife.ReceiveStream) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		s, err := e.rawClient.OpenUniStream()
		require.NoError(t, err)
		write(t, s, "x")
		settled()
		cancel()
		settled()
		select {
		case <-done:
			t.Error("Serve returned before its handler")
		default:
		}
		e.server.CloseWithError(6, "")
		require.Equal(t, context.Canceled, <-done)
	})
}

// TestServeReturnsWhenShutdownBegins: it does not wait for the streams that
// Shutdown waits for.
func TestServeReturnsWhenShutdownBegins(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		done := e.serve(t.Context(), quiclife.Handlers{})
		s, err := e.server.OpenStream()
		require.NoError(t, err)
		shut := make(chan error, 1)
		go func() { shut <- e.server.Shutdown(t.Context(), 0, "") }()
		settled()
		select {
		case err := <-done:
			require.Equal(t, quiclife.ErrShutdown, err)
		default:
			require.Fail(t, "Serve goes on")
		}
		s.Release()
		require.NoError(t, <-shut)
	})
}

// TestServeRunsOnceAtATime: after it has returned it may run again, as long as
// the connection lives.
func TestServeRunsOnceAtATime(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		ctx, cancel := context.WithCancel(t.Context())
		done := e.serve(ctx, quiclife.Handlers{})
		settled()
		require.ErrorContains(t, e.server.Serve(ctx, quiclife.Handlers{}), "already")
		require.ErrorContains(t, e.server.Serve(nil, quiclife.Handlers{}), "nil context") //nolint:staticcheck // on purpose
		cancel()
		require.Equal(t, context.Canceled, <-done)
		done = e.serve(t.Context(), quiclife.Handlers{})
		settled()
		e.client.CloseWithError(6, "")
		ended := &quiclife.ApplicationError{ErrorCode: 6, Remote: true}
		require.ErrorIs(t, <-done, ended)
		require.ErrorIs(t, e.server.Serve(t.Context(), quiclife.Handlers{}), ended)
	})
}

// TestHandlerSeesThatItsCallerHasLeftAndThatTheServerStops: neither ends the
// handler's context.
func TestHandlerSeesThatItsCallerHasLeftAndThatTheServerStops(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ln, dial := listenInBubble(t, &quiclife.Guard{Codes: serveCodes}, 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		served, seen := make(chan error, 1), make(chan string, 2)
		go func() {
			served <- ln.Serve(ctx, quiclife.Handlers{Stream: func(ctx context.Context, s *quiclife.Stream) error {
				select {
				case <-ctx.Done():
					seen <- "the connection has ended"
				case <-s.Context().Done():
					seen <- "the caller has left"
				case <-s.Conn().Draining():
					seen <- "the server stops"
				}
				time.Sleep(time.Millisecond)
				if ctx.Err() != nil {
					t.Error("the handler's context is done too")
				}
				_, err := s.Write([]byte("answer"))
				return err
			}, Error: func(*quiclife.Conn, quiclife.StreamInfo, error) {}})
		}()
		client := dial()
		hurry, hurried := context.WithTimeout(t.Context(), time.Second)
		defer hurried()
		ask := func(ctx context.Context) error {
			return client.Do(ctx, func(s *quiclife.Stream) error {
				write(t, s, "question")
				s.Close()
				b, err := io.ReadAll(s)
				if err == nil && string(b) != "answer" {
					t.Errorf("the answer is %q", b)
				}
				return err
			})
		}
		require.ErrorIs(t, ask(hurry), context.DeadlineExceeded)
		require.Equal(t, "the caller has left", <-seen)
		time.AfterFunc(time.Second, cancel)
		require.NoError(t, ask(t.Context()))
		require.Equal(t, "the server stops", <-seen)
		err := <-served
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorAs(t, err, new(*quiclife.ShutdownError), "nothing was cut")
	})
}

// TestHandlerContextHasValuesOfConnectionAndOfServe: those of the connection
// come first.
func TestHandlerContextHasValuesOfConnectionAndOfServe(t *testing.T) {
	t.Parallel()
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
			served <- ln.Serve(ctx, quiclife.Handlers{Stream: func(ctx context.Context, s *quiclife.Stream) error {
				got <- [2]any{ctx.Value(both{}), ctx.Value(serves{})}
				return nil
			}})
		}()
		c, err := quiclife.Dial(t.Context(), pc, addr, clientTLS, nil)
		require.NoError(t, err)
		require.NoError(t, c.Do(t.Context(), func(s *quiclife.Stream) error { _, err := s.Write([]byte("x")); return err }))
		require.Equal(t, [2]any{"connection", "Serve"}, <-got)
		cancel()
		require.Equal(t, context.Canceled, <-served)
		settled()
	})
}

// TestServeHandlesMoreStreamsThanItWasTold: streams are handled even if the
// peer may open more than the Config given to Wrap allows.
func TestServeHandlesMoreStreamsThanItWasTold(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		e.server = (&quiclife.Guard{}).Wrap(e.rawServer, &quic.Config{MaxIncomingStreams: -1})
		done := e.serve(t.Context(), quiclife.Handlers{Stream: func(ctx context.Context, s *quiclife.Stream) error {
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

// TestServeAcceptsNothingAfterItsContextAtLimit: the context ended while all
// slots were taken.
func TestServeAcceptsNothingAfterItsContextAtLimit(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		e.server = (&quiclife.Guard{}).Wrap(e.rawServer, &quic.Config{MaxIncomingStreams: 1})
		finish := make(chan struct{})
		var handled atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		done := e.serve(ctx, quiclife.Handlers{Stream: func(context.Context, *quiclife.Stream) error {
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

// TestServeHandlesQueuedStreamsAfterItsContext: streams that were queued when
// its context ended are neither handled nor refused.
func TestServeHandlesQueuedStreamsAfterItsContext(t *testing.T) {
	t.Parallel()
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
		for range 20 { // a select may choose the right case by chance
			require.Equal(t, context.Canceled, e.server.Serve(done, quiclife.Handlers{
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

// TestRefusingIsPaced: if a peer opens streams of a refused kind as fast as it
// can, as many as it may have open are refused at once, and then 100 per
// second. This also holds during Shutdown, and again after a rest.
func TestRefusingIsPaced(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		limit  int64
		atOnce int
		refuse func(t *testing.T, e ends) (stop func())
	}{
		{"Serve", 50, 50, func(t *testing.T, e ends) func() {
			ctx, cancel := context.WithCancel(t.Context())
			done := e.serve(ctx, quiclife.Handlers{})
			return func() { // in the middle of a wait
				start := time.Now()
				cancel()
				require.Equal(t, context.Canceled, <-done)
				require.Zero(t, time.Since(start))
			}
		}},
		{"Serve, of a limit that is not known", -1, 1000, func(t *testing.T, e ends) func() {
			ctx, cancel := context.WithCancel(t.Context())
			done := e.serve(ctx, quiclife.Handlers{})
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
			e.server = (&quiclife.Guard{}).Wrap(e.rawServer, &quic.Config{MaxIncomingUniStreams: c.limit})
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

// TestHandlersRunAtMostAtTheLimit: even if the peer opens and resets streams in
// a loop, and even if handlers free their slots by ending their streams before
// they return.
func TestHandlersRunAtMostAtTheLimit(t *testing.T) {
	t.Parallel()
	const limit, streams = 16, 1000
	for _, required := range []bool{false, true} {
		setup{serverConf: &quic.Config{MaxIncomingStreams: limit, RequireStreamCreditRelease: required}}.in(t, func(t *testing.T, e ends) {
			var running, most, handled atomic.Int64
			done := e.serve(t.Context(), quiclife.Handlers{Stream: func(ctx context.Context, s *quiclife.Stream) error {
				raise(&most, running.Add(1))
				defer running.Add(-1)
				if handled.Add(1)%2 == 0 {
					s.Release()
				}
				time.Sleep(20 * time.Millisecond)
				_, err := io.ReadAll(s)
				return err
			}})
			for range streams {
				s, err := e.client.OpenStreamSync(t.Context())
				require.NoError(t, err)
				write(t, s, "x")
				s.Reset(1)
			}
			settled()
			require.EqualValues(t, streams, handled.Load(), "streams handled")
			require.EqualValues(t, limit, most.Load(), "handlers at a time")
			require.LessOrEqual(t, e.server.Stats().Incoming.Peak, int64(limit))
			e.requireNothingLeft(t)
			e.client.CloseWithError(0, "")
			require.Error(t, <-done)
		})
	}
}

// TestBadHandlersLoseNoSlot: handlers that are stuck, panic, are slow, or do
// not end anything, with 300 streams each at a limit of 16. Other streams are
// served meanwhile.
func TestBadHandlersLoseNoSlot(t *testing.T) {
	t.Parallel()
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
				done := e.serve(t.Context(), quiclife.Handlers{Stream: func(ctx context.Context, s *quiclife.Stream) error {
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
					for range 300 {
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
				require.EqualValues(t, 350, stats.Opened)
				require.LessOrEqual(t, stats.Peak, int64(limit))
				e.client.CloseWithError(0, "")
				<-done
			})
		})
	}
}

// TestServeLogsCutAnswer: a handler that returns nil although its answer was
// cut has lost data, and only the log says so. No data is lost if the peer
// stopped reading, or if the handler continues the answer.
func TestServeLogsCutAnswer(t *testing.T) {
	t.Parallel()
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
			done := e.serve(t.Context(), quiclife.Handlers{Stream: func(ctx context.Context, s *quiclife.Stream) error {
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

// TestDoFailsIfItsContextEndedFirst: even if its function returned nil.
func TestDoFailsIfItsContextEndedFirst(t *testing.T) {
	t.Parallel()
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

// answerAll echoes each request, and sends the error that ended reading.
func (e ends) answerAll(t *testing.T) (read chan error) {
	read = make(chan error, 10)
	e.serve(t.Context(), quiclife.Handlers{
		Stream: func(ctx context.Context, s *quiclife.Stream) error {
			b, err := io.ReadAll(s)
			read <- err
			s.Write(b)
			return err
		},
		UniStream: func(ctx context.Context, s *quiclife.ReceiveStream) error {
			_, err := io.ReadAll(s)
			read <- err
			return err
		},
	})
	return read
}

// requireReset requires that err is a reset by the peer with code.
func requireReset(t *testing.T, code quiclife.StreamErrorCode, err error) {
	t.Helper()
	var reset *quiclife.StreamError
	require.ErrorAs(t, err, &reset)
	require.Equal(t, code, reset.ErrorCode)
}

// TestDoEndsItsStreamAsItsFuncReturned: if the function returned nil, what it
// wrote arrives. If it failed or panicked, the stream is reset.
func TestDoEndsItsStreamAsItsFuncReturned(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	setup{guard: &quiclife.Guard{Codes: serveCodes}}.in(t, func(t *testing.T, e ends) {
		read := e.answerAll(t)
		require.NoError(t, e.client.Do(t.Context(), func(s *quiclife.Stream) error {
			write(t, s, "request")
			s.Close()
			b, err := io.ReadAll(s)
			require.Equal(t, "request", string(b))
			return err
		}))
		require.NoError(t, <-read)
		require.Equal(t, failed, e.client.Do(t.Context(), func(s *quiclife.Stream) error {
			write(t, s, "half")
			settled()
			return failed
		}))
		requireReset(t, 3, <-read)
		require.Equal(t, failed, e.client.Do(t.Context(), func(s *quiclife.Stream) error {
			write(t, s, "half")
			settled()
			s.Reset(77)
			return failed
		}))
		requireReset(t, 77, <-read) // the func's own code
		require.PanicsWithValue(t, "oops", func() {
			e.client.Do(t.Context(), func(s *quiclife.Stream) error {
				write(t, s, "half")
				settled()
				panic("oops")
			})
		})
		requireReset(t, 4, <-read)

		// The FIN and Release do not overtake what was written.
		require.NoError(t, e.client.DoUni(t.Context(), func(s *quiclife.SendStream) error { _, err := s.Write([]byte("message")); return err }))
		require.NoError(t, <-read)
		require.Equal(t, failed, e.client.DoUni(t.Context(), func(s *quiclife.SendStream) error { write(t, s, "x"); settled(); return failed }))
		requireReset(t, 3, <-read)
		settled()
		e.requireNothingLeft(t)
	})
}

// TestDoUnblocksItsFuncWhenItsContextEnds: the error matches that of the
// context and that of the blocked call.
func TestDoUnblocksItsFuncWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	setup{guard: &quiclife.Guard{Codes: serveCodes}}.in(t, func(t *testing.T, e ends) {
		read := e.answerAll(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := e.client.Do(ctx, func(s *quiclife.Stream) error {
			write(t, s, "half")
			_, err := s.Read(make([]byte, 1))
			return err
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorAs(t, err, new(*quiclife.StreamError))
		requireReset(t, 3, <-read)
		err = e.client.Do(ctx, func(s *quiclife.Stream) error { t.Error("called after its context"); return nil })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, e.client.Do(nil, nil), "nil context")    //nolint:staticcheck // on purpose
		require.ErrorContains(t, e.client.DoUni(nil, nil), "nil context") //nolint:staticcheck // on purpose
	})
}

// TestDoAtPeersLimitSaysWhoHoldsIt: after it has waited until its context was
// done.
func TestDoAtPeersLimitSaysWhoHoldsIt(t *testing.T) {
	t.Parallel()
	setup{serverConf: &quic.Config{MaxIncomingStreams: 1}}.in(t, func(t *testing.T, e ends) {
		held, err := e.client.OpenStreamSync(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = e.client.Do(ctx, func(s *quiclife.Stream) error { t.Error("called without a slot"); return nil })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		limit := requireLimitError(t, err)
		require.EqualValues(t, 1, limit.Open)
		require.Equal(t, held.StreamID(), limit.Oldest.ID)
		held.Release()
	})
}

// TestDoSaysThatThePeerStoppedReading: the peer did so without an answer.
func TestDoSaysThatThePeerStoppedReading(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		go func() {
			if s, err := e.server.AcceptStream(t.Context()); err == nil {
				s.CancelRead(9)
				keep(t, s)
			}
		}()
		err := e.client.Do(t.Context(), func(s *quiclife.Stream) error {
			write(t, s, "request")
			settled()
			return nil
		})
		requireReset(t, 9, err)
	})
}

// TestDoSaysThatAWriteWasCut: even though its function returned nil.
func TestDoSaysThatAWriteWasCut(t *testing.T) {
	t.Parallel()
	setup{serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
		err := e.client.Do(t.Context(), func(s *quiclife.Stream) error {
			s.SetWriteDeadline(time.Now().Add(time.Millisecond))
			s.Write(large)
			return nil
		})
		require.Equal(t, quiclife.ErrWriteCut, err)
	})
}

// listenInBubble listens in fake time. dial connects at most n clients, each
// from its own socket.
func listenInBubble(t *testing.T, guard *quiclife.Guard, n int) (ln *quiclife.Listener, dial func() *quiclife.Conn) {
	t.Helper()
	serverTLS, clientTLS := quictest.TLS()
	sockets, socket, addr := quictest.Net{}.Star(t, n)
	tr := &quiclife.Transport{Conn: socket, Guard: guard}
	t.Cleanup(func() { tr.Close() })
	ln, err := tr.Listen(serverTLS, nil)
	require.NoError(t, err)
	return ln, func() *quiclife.Conn {
		t.Helper()
		client := &quiclife.Transport{Conn: sockets[0], Guard: &quiclife.Guard{}}
		c, err := client.Dial(t.Context(), addr, clientTLS, nil)
		require.NoError(t, err)
		sockets = sockets[1:]
		t.Cleanup(func() {
			c.CloseWithError(0, "")
			client.Close()
		})
		return c
	}
}

// TestListenerServeDrains: when its context is done, idle connections are
// closed at once, and others when their handlers have answered.
func TestListenerServeDrains(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ln, dial := listenInBubble(t, &quiclife.Guard{Codes: serveCodes}, 3)
		ctx, cancel := context.WithCancel(t.Context())
		served, finish := make(chan error, 1), make(chan struct{})
		go func() {
			served <- ln.Serve(ctx, quiclife.Handlers{Stream: func(ctx context.Context, s *quiclife.Stream) error {
				b, err := io.ReadAll(s)
				if string(b) == "slow" {
					<-finish
				}
				s.Write(b)
				return err
			}})
		}()
		require.ErrorContains(t, ln.Serve(nil, quiclife.Handlers{}), "nil context") //nolint:staticcheck // on purpose
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
			c := dial()
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
		settled()
		cancel()
		settled()
		for _, c := range conns[1:] {
			require.ErrorIs(t, context.Cause(c.Context()), &quiclife.ApplicationError{Remote: true}, "an idle connection is closed")
		}
		require.NoError(t, conns[0].Context().Err(), "the connection that waits for an answer")
		select {
		case err := <-served:
			t.Error("Serve returned before the slow answer:", err)
		default:
		}
		close(finish)
		require.Equal(t, "slow", <-slow)
		require.Equal(t, context.Canceled, <-served)
		<-conns[0].Context().Done()
	})
}

// TestServeOfClosedListenerReturnsErrServerClosed: as in net/http.
func TestServeOfClosedListenerReturnsErrServerClosed(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ln, _ := listenInBubble(t, &quiclife.Guard{}, 1)
		ln.Close()
		require.Equal(t, quiclife.ErrServerClosed, ln.Serve(t.Context(), quiclife.Handlers{}))
	})
}

// TestListenerServeWaitsNoLongerThanDrainTimeout: it logs what it has cut.
func TestListenerServeWaitsNoLongerThanDrainTimeout(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var log logged
		ln, dial := listenInBubble(t, &quiclife.Guard{DrainTimeout: 3 * time.Second, Logger: log.logger()}, 1)
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() {
			served <- ln.Serve(ctx, quiclife.Handlers{Stream: func(ctx context.Context, s *quiclife.Stream) error {
				<-ctx.Done() // stuck until the connection ends
				return ctx.Err()
			}})
		}()
		c := dial()
		s, err := c.OpenStream()
		require.NoError(t, err)
		write(t, s, "x")
		settled()
		start := time.Now()
		cancel()
		require.ErrorIs(t, <-served, context.Canceled)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.Contains(t, log.String(), "1 open stream cut")
		<-c.Context().Done()
		s.Release()
	})
}

// TestListenerServeShutsDownWhatNobodyAccepted: connections that are queued
// when its context is done.
func TestListenerServeShutsDownWhatNobodyAccepted(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ln, dial := listenInBubble(t, &quiclife.Guard{}, 10)
		var clients []*quiclife.Conn
		for range 10 {
			clients = append(clients, dial())
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.Equal(t, context.Canceled, ln.Serve(ctx, quiclife.Handlers{}))
		settled()
		for i, c := range clients {
			require.Error(t, c.Context().Err(), "connection %d lives", i)
		}
	})
}

// TestContextForgetsStreamOfDo: however its function has ended.
func TestContextForgetsStreamOfDo(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		for name, f := range map[string]func(*quiclife.Stream) error{
			"nil":   func(*quiclife.Stream) error { return nil },
			"error": func(*quiclife.Stream) error { return io.ErrNoProgress },
			"panic": func(*quiclife.Stream) error { panic("oops") },
		} {
			ctx := newCountingContext()
			func() {
				defer func() { recover() }()
				e.client.Do(ctx, f)
			}()
			now, most := ctx.count()
			require.Zero(t, now, "%s: streams that the context holds", name)
			require.Positive(t, most)
		}
	})
}

// TestContextForgetsServe: once the connection has ended.
func TestContextForgetsServe(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		ctx := newCountingContext()
		done := e.serve(ctx, quiclife.Handlers{})
		settled()
		now, _ := ctx.count()
		require.Positive(t, now)
		e.client.CloseWithError(0, "")
		<-done
		now, _ = ctx.count()
		require.Zero(t, now, "what the context holds")
	})
}

// TestListenerServeWaitsForHandlersOfCutConnections: it returns only when they
// have returned.
func TestListenerServeWaitsForHandlersOfCutConnections(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var returned atomic.Bool
		guard := &quiclife.Guard{DrainTimeout: time.Second, Logger: slog.New(slog.DiscardHandler)}
		clients, stop := star(t, guard, nil, 1, quiclife.Handlers{Stream: func(context.Context, *quiclife.Stream) error {
			time.Sleep(time.Minute)
			returned.Store(true)
			return nil
		}})
		s, err := clients[0].OpenStream()
		require.NoError(t, err)
		write(t, s, "x")
		settled()
		require.ErrorAs(t, stop(), new(*quiclife.ShutdownError))
		require.True(t, returned.Load(), "the handler still runs")
	})
}
