package quiclife_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// TestHandlersConnGivesItsValues: to the handlers of the connection's streams,
// but the end of its context does not end theirs.
func TestHandlersConnGivesItsValues(t *testing.T) {
	type key struct{}
	setup{}.in(t, func(t *testing.T, e ends) {
		var ofConn context.Context
		got := make(chan any, 1)
		started := make(chan struct{})
		served := make(chan error, 1)
		go func() {
			served <- e.server.Serve(t.Context(), quiclife.Handlers{
				Conn: func(ctx context.Context, c *quiclife.Conn) (context.Context, error) {
					ofConn = ctx
					return context.WithValue(ctx, key{}, c.RemoteAddr().String()), nil
				},
				Stream: func(ctx context.Context, s *quiclife.Stream) error {
					close(started)
					<-ofConn.Done() // Shutdown ends it
					if err := ctx.Err(); err != nil {
						t.Errorf("Shutdown has ended the context of a handler: %v", err)
					}
					got <- ctx.Value(key{})
					return nil
				},
			})
		}()
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		write(t, s, "x")
		<-started
		go func() {
			io.Copy(io.Discard, s)
			s.Release()
		}()
		require.NoError(t, e.server.Shutdown(t.Context(), 0, ""))
		require.Equal(t, e.server.RemoteAddr().String(), <-got)
		require.ErrorIs(t, <-served, quiclife.ErrShutdown)
	})
}

// TestHandlersConnRefuses: an error or a panic closes the connection before
// any of its streams is handled.
func TestHandlersConnRefuses(t *testing.T) {
	refused := errors.New("no")
	for name, c := range map[string]struct {
		conn func(context.Context, *quiclife.Conn) (context.Context, error)
		code quiclife.ApplicationErrorCode
		msg  string
		log  string
	}{
		"an error": {
			func(context.Context, *quiclife.Conn) (context.Context, error) { return nil, refused },
			5, "closed", "refused by Handlers.Conn",
		},
		"an ApplicationError": {
			func(context.Context, *quiclife.Conn) (context.Context, error) {
				return nil, &quiclife.ApplicationError{ErrorCode: 6, ErrorMessage: "who are you"}
			},
			6, "who are you", "refused by Handlers.Conn",
		},
		"a panic": {
			func(context.Context, *quiclife.Conn) (context.Context, error) { panic("oops") },
			5, "closed", "oops",
		},
		"no context": {
			func(context.Context, *quiclife.Conn) (context.Context, error) { return nil, nil },
			5, "closed", "nil context",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var log logged
			guard := &quiclife.Guard{CloseCode: 5, CloseReason: "closed", Logger: log.logger()}
			setup{guard: guard}.in(t, func(t *testing.T, e ends) {
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				write(t, s, "x")
				err = e.server.Serve(t.Context(), quiclife.Handlers{
					Conn:   c.conn,
					Stream: func(context.Context, *quiclife.Stream) error { t.Error("a stream was handled"); return nil },
				})
				require.Error(t, err)
				settled()
				require.Equal(t, &quiclife.ApplicationError{Remote: true, ErrorCode: c.code, ErrorMessage: c.msg}, context.Cause(e.client.Context()))
				require.Contains(t, log.String(), c.log)
			})
		})
	}
}

// TestHandlersConnThatBlocksEndsWithShutdown: its context is done then.
func TestHandlersConnThatBlocksEndsWithShutdown(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		served := make(chan error, 1)
		go func() {
			served <- e.server.Serve(t.Context(), quiclife.Handlers{
				Conn: func(ctx context.Context, c *quiclife.Conn) (context.Context, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				},
			})
		}()
		settled()
		start := time.Now()
		require.NoError(t, e.server.Shutdown(t.Context(), 0, ""))
		require.Less(t, time.Since(start), 5*time.Second)
		require.ErrorIs(t, <-served, context.Canceled)
	})
}

// TestNoErrorOfHandlersIsSilent: Error is called for each, and without Error
// they are logged.
func TestNoErrorOfHandlersIsSilent(t *testing.T) {
	failure := errors.New("disk full")
	for _, told := range []bool{true, false} {
		var log logged
		guard := &quiclife.Guard{Logger: log.logger()}
		setup{guard: guard, clientConf: &quic.Config{InitialStreamReceiveWindow: 1000, MaxStreamReceiveWindow: 1000}}.in(t, func(t *testing.T, e ends) {
			var mu sync.Mutex // guards got
			got := make(map[quiclife.StreamID]error)
			h := quiclife.Handlers{
				Stream: func(ctx context.Context, s *quiclife.Stream) error {
					if s.StreamID() == 0 {
						return failure
					}
					s.SetWriteDeadline(time.Now().Add(time.Second))
					s.Write(make([]byte, 50_000)) // cut
					return nil
				},
				UniStream: func(ctx context.Context, s *quiclife.ReceiveStream) error { panic("oops") },
			}
			if told {
				h.Error = func(c *quiclife.Conn, s quiclife.StreamInfo, err error) {
					mu.Lock()
					defer mu.Unlock()
					if c != e.server {
						t.Error("Error was given another connection")
					}
					got[s.ID] = err
				}
			}
			go e.server.Serve(t.Context(), h)
			for range 2 {
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				write(t, s, "x")
				keep(t, s)
			}
			uni, err := e.client.OpenUniStream()
			require.NoError(t, err)
			write(t, uni, "x")
			time.Sleep(10 * time.Second)
			mu.Lock()
			defer mu.Unlock()
			if told {
				require.Equal(t, map[quiclife.StreamID]error{0: failure, 4: quiclife.ErrWriteCut}, got)
				require.NotContains(t, log.String(), "disk full")
			} else {
				require.Contains(t, log.String(), "disk full")
				require.Contains(t, log.String(), "answer cut")
			}
			require.Contains(t, log.String(), "oops")
			s := guard.Stats()
			require.EqualValues(t, 2, s.HandlerErrors)
			require.EqualValues(t, 1, s.HandlerPanics)
			uni.Release()
		})
	}
}

func TestPanicInHandlersErrorHarmsNobody(t *testing.T) {
	var log logged
	setup{guard: &quiclife.Guard{Logger: log.logger()}}.in(t, func(t *testing.T, e ends) {
		go e.server.Serve(t.Context(), quiclife.Handlers{
			Stream: func(context.Context, *quiclife.Stream) error { return errors.New("no") },
			Error:  func(*quiclife.Conn, quiclife.StreamInfo, error) { panic("oops") },
		})
		for range 3 {
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			write(t, s, "x")
			settled()
			s.Release()
		}
		settled()
		require.Contains(t, log.String(), "oops")
		e.requireNothingLeft(t)
	})
}

// TestListenerServeTellsWhatItCut: in its error.
func TestListenerServeTellsWhatItCut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		guard := &quiclife.Guard{DrainTimeout: time.Second, CloseCode: 9, CloseReason: "bye", Logger: slog.New(slog.DiscardHandler)}
		clients, stop := star(t, guard, nil, 2, quiclife.Handlers{
			Stream: func(ctx context.Context, s *quiclife.Stream) error {
				_, err := io.Copy(io.Discard, s)
				return err
			},
		})
		s, err := clients[0].OpenStream()
		require.NoError(t, err)
		write(t, s, "x")
		settled()
		err = stop()
		require.ErrorIs(t, err, context.Canceled)
		var cut *quiclife.ShutdownError
		require.ErrorAs(t, err, &cut)
		require.Len(t, cut.Streams, 1)
		require.Contains(t, err.Error(), "1 open stream cut")
		settled()
		require.Equal(t, &quiclife.ApplicationError{Remote: true, ErrorCode: 9, ErrorMessage: "bye"}, context.Cause(clients[0].Context()))
	})
}

func TestDrainingTellsOfShutdown(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		select {
		case <-e.client.Draining():
			t.Fatal("before Shutdown")
		default:
		}
		done := make(chan error)
		go func() { done <- e.client.Shutdown(t.Context(), 0, "") }()
		<-e.client.Draining()
		s.Release()
		peer.Release()
		require.NoError(t, <-done)
	})
}

func TestHandlerThatEndsItsGoroutineIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		guard := &quiclife.Guard{}
		l := listening(t, guard, nil, 1)
		var out logged
		guard.Logger = out.logger()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() {
			served <- l.ln.Serve(ctx, quiclife.Handlers{Stream: func(context.Context, *quiclife.Stream) error { runtime.Goexit(); return nil }})
		}()
		c := l.dial(t, 0, "question")
		_, err := io.ReadAll(c)
		c.Close()
		cancel()
		<-served
		s := guard.Stats()
		require.EqualValues(t, 1, s.HandlerErrors+s.HandlerPanics, "%v, log: %s", err, out.String())
	})
}
