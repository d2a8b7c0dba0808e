package quiclife_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

var errUserLeft = errors.New("the user left")

// bindingGuard has a Codes.Canceled that differs from the other codes.
func bindingGuard() *quiclife.Guard { return &quiclife.Guard{Codes: quiclife.Codes{Canceled: 77}} }

// smallWindow makes a Write of tooMuch block.
var smallWindow = &quic.Config{InitialStreamReceiveWindow: 10_000, MaxStreamReceiveWindow: 10_000}

var tooMuch = make([]byte, 100_000)

// anyStream has the methods that all three stream types have.
type anyStream interface {
	Conn() *quiclife.Conn
	BindContext(context.Context) func() bool
	Info() quiclife.StreamInfo
	Reset(quiclife.StreamErrorCode)
	Release()
}

// requireCanceled requires that err is the error of a call on a stream that ctx
// has reset.
func requireCanceled(t *testing.T, ctx context.Context, err error, call string) {
	t.Helper()
	require.ErrorIs(t, err, context.Cause(ctx), "%s: the cause", call)
	require.ErrorIs(t, err, ctx.Err(), "%s: the context's error", call)
	var reset *quiclife.StreamError
	require.ErrorAs(t, err, &reset, "%s: the stream's error", call)
	require.EqualValues(t, 77, reset.ErrorCode, call)
	require.False(t, reset.Remote, "%s: reset by this side", call)
}

// requirePeerReset requires that the peer sees a reset with Codes.Canceled.
func requirePeerReset(t *testing.T, err error, call string) {
	t.Helper()
	var reset *quiclife.StreamError
	require.ErrorAs(t, err, &reset, "the peer's %s", call)
	require.EqualValues(t, 77, reset.ErrorCode, "the peer's %s", call)
	require.True(t, reset.Remote, "the peer's %s", call)
}

// TestStreamKnowsItsConn: Conn returns the connection, even after the end.
func TestStreamKnowsItsConn(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		send, receive := e.uniStream(t)
		for range 2 {
			require.Same(t, e.client, client.Conn())
			require.Same(t, e.server, server.Conn())
			require.Same(t, e.client, send.Conn())
			require.Same(t, e.server, receive.Conn())
			for _, s := range []anyStream{client, server, send, receive} {
				s.Release()
			}
		}
		settled()
		e.requireNothingLeft(t)
	})
}

// TestContextUnblocksEveryCall: when the context is done, blocked calls return
// its cause.
func TestContextUnblocksEveryCall(t *testing.T) {
	type call struct {
		name string
		on   func(bidi *quiclife.Stream, send *quiclife.SendStream, receive *quiclife.ReceiveStream) (anyStream, func() error)
	}
	pass := func(n int) int { return n }
	calls := []call{
		{"Stream.Read", func(s *quiclife.Stream, _ *quiclife.SendStream, _ *quiclife.ReceiveStream) (anyStream, func() error) {
			return s, func() error { _, err := s.Read(make([]byte, 1)); return err }
		}},
		{"Stream.Peek", func(s *quiclife.Stream, _ *quiclife.SendStream, _ *quiclife.ReceiveStream) (anyStream, func() error) {
			return s, func() error { _, err := s.Peek(make([]byte, 1)); return err }
		}},
		{"Stream.Write", func(s *quiclife.Stream, _ *quiclife.SendStream, _ *quiclife.ReceiveStream) (anyStream, func() error) {
			return s, func() error { _, err := s.Write(tooMuch); return err }
		}},
		{"Stream.WriteWithLimit", func(s *quiclife.Stream, _ *quiclife.SendStream, _ *quiclife.ReceiveStream) (anyStream, func() error) {
			return s, func() error { _, err := s.WriteWithLimit(tooMuch, pass); return err }
		}},
		{"SendStream.Write", func(_ *quiclife.Stream, s *quiclife.SendStream, _ *quiclife.ReceiveStream) (anyStream, func() error) {
			return s, func() error { _, err := s.Write(tooMuch); return err }
		}},
		{"SendStream.WriteWithLimit", func(_ *quiclife.Stream, s *quiclife.SendStream, _ *quiclife.ReceiveStream) (anyStream, func() error) {
			return s, func() error { _, err := s.WriteWithLimit(tooMuch, pass); return err }
		}},
		{"ReceiveStream.Read", func(_ *quiclife.Stream, _ *quiclife.SendStream, s *quiclife.ReceiveStream) (anyStream, func() error) {
			return s, func() error { _, err := s.Read(make([]byte, 1)); return err }
		}},
		{"ReceiveStream.Peek", func(_ *quiclife.Stream, _ *quiclife.SendStream, s *quiclife.ReceiveStream) (anyStream, func() error) {
			return s, func() error { _, err := s.Peek(make([]byte, 1)); return err }
		}},
		{"a Write that waits for its turn", func(s *quiclife.Stream, _ *quiclife.SendStream, _ *quiclife.ReceiveStream) (anyStream, func() error) {
			return s, func() error {
				go s.Write(tooMuch)
				time.Sleep(time.Millisecond)
				_, err := s.Write([]byte("x"))
				return err
			}
		}},
	}
	for _, c := range calls {
		t.Run(c.name, func(t *testing.T) {
			setup{guard: bindingGuard(), clientConf: smallWindow, serverConf: smallWindow}.in(t, func(t *testing.T, e ends) {
				client, server := e.stream(t)
				send, receive := e.uniStream(t)
				stream, call := c.on(client, send, receive)
				ctx, cancel := context.WithCancelCause(t.Context())
				stop := stream.BindContext(ctx)
				done := make(chan error, 1)
				go func() { done <- call() }()
				settled()
				settled()
				select {
				case err := <-done:
					t.Fatal("did not block", err)
				default:
				}
				cancel(errUserLeft)
				requireCanceled(t, ctx, <-done, c.name)
				require.False(t, stop(), "the reset was not prevented")
				for _, s := range []anyStream{client, server, send, receive} {
					s.Reset(1)
				}
				settled()
				e.requireNothingLeft(t)
			})
		})
	}
}

// TestCallsAfterContextSayWhy: every later call fails with the context's cause,
// and the peer sees both halves reset.
func TestCallsAfterContextSayWhy(t *testing.T) {
	setup{guard: bindingGuard()}.in(t, func(t *testing.T, e ends) {
		b := make([]byte, 1)
		client, server := e.stream(t)
		send, receive := e.uniStream(t)
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errUserLeft)
		defer cancel()
		for _, s := range []anyStream{client, send, receive} {
			s.BindContext(ctx)
		}
		<-ctx.Done()
		settled()
		require.Equal(t, context.DeadlineExceeded, ctx.Err())
		for range 2 {
			for name, call := range map[string]func() error{
				"Read":                      func() error { _, err := client.Read(b); return err },
				"Peek":                      func() error { _, err := client.Peek(b); return err },
				"Write":                     func() error { _, err := client.Write(b); return err },
				"WriteWithLimit":            func() error { _, err := client.WriteWithLimit(b, func(n int) int { return n }); return err },
				"TryWriteAll":               func() error { return client.TryWriteAll(b) },
				"Close":                     client.Close,
				"SendStream.Write":          func() error { _, err := send.Write(b); return err },
				"SendStream.WriteWithLimit": func() error { _, err := send.WriteWithLimit(b, func(n int) int { return n }); return err },
				"SendStream.TryWriteAll":    func() error { return send.TryWriteAll(b) },
				"SendStream.Close":          send.Close,
				"ReceiveStream.Read":        func() error { _, err := receive.Read(b); return err },
				"ReceiveStream.Peek":        func() error { _, err := receive.Peek(b); return err },
				"NetConn.Write":             func() error { _, err := client.NetConn().Write(b); return err },
				"NetConn.Read":              func() error { _, err := client.NetConn().Read(b); return err },
				"NetConn.Close":             func() error { return client.NetConn().Close() },
			} {
				requireCanceled(t, ctx, call(), name)
			}
		}
		var timeout net.Error
		_, err := client.NetConn().Read(b)
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout(), "the context's deadline is a timeout")

		_, err = server.Read(b)
		requirePeerReset(t, err, "Read")
		_, err = server.Write(b)
		requirePeerReset(t, err, "Write")
		_, err = send.Conn().OpenStream()
		require.NoError(t, err)
	})
}

// TestWriteDuringResetByContextSaysWhy: even before quic-go knows of the reset.
func TestWriteDuringResetByContextSaysWhy(t *testing.T) {
	setup{guard: bindingGuard()}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errUserLeft)
		var during error
		quiclife.BeforeCancelWrite(client, func() { _, during = client.Write([]byte("x")) })
		client.BindContext(ctx)
		requireCanceled(t, ctx, during, "Write")
		server.Release()
		settled()
		e.requireNothingLeft(t)
	})
}

// TestContextThatIsDoneResetsAtOnce: the stream is reset when BindContext
// returns.
func TestContextThatIsDoneResetsAtOnce(t *testing.T) {
	setup{guard: bindingGuard()}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		send, receive := e.uniStream(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errUserLeft)
		for _, s := range []anyStream{client, send, receive} {
			stop := s.BindContext(ctx)
			for _, half := range []quiclife.HalfState{s.Info().Send, s.Info().Receive} {
				require.Contains(t, []quiclife.HalfState{quiclife.HalfAborted, quiclife.HalfAbsent}, half)
			}
			require.False(t, stop())
			require.False(t, stop())
		}
		_, err := client.Write([]byte("x"))
		requireCanceled(t, ctx, err, "Write")
		server.Release()
		settled()
		e.requireNothingLeft(t)
	})
}

// TestStopUnbindsStream: afterwards the context does nothing to the stream.
func TestStopUnbindsStream(t *testing.T) {
	setup{guard: bindingGuard()}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		ctx, cancel := context.WithCancel(t.Context())
		stop := client.BindContext(ctx)
		require.True(t, stop(), "it prevents the reset")
		require.False(t, stop(), "the first stop has prevented it")
		cancel()
		settled()
		write(t, client, "still here")
		require.NoError(t, client.Close())
		expect(t, server, "still here")
		server.Close()
		_, err := client.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		server.Release()
		settled()
		e.requireNothingLeft(t)
	})
}

// TestStopBeforeResetHasBegun: if stop returns true, nothing is reset, even if
// the context has already called us.
func TestStopBeforeResetHasBegun(t *testing.T) {
	setup{guard: bindingGuard()}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		ctx := newCountingContext()
		stop := client.BindContext(ctx)
		stopped := make(chan bool, 1)
		calls := 0
		ctx.err = func() error {
			if calls++; calls == 3 { // package context makes the first two calls, before it calls us
				stopped <- stop()
			}
			return context.Canceled
		}
		ctx.first()()
		require.True(t, <-stopped)
		settled()
		write(t, client, "still here")
		expect(t, server, "still here")
		client.Release()
		server.Release()
		settled()
		e.requireNothingLeft(t)
	})
}

// TestFirstOfSeveralContextsResetsStream: the errors have the cause of the
// first.
func TestFirstOfSeveralContextsResetsStream(t *testing.T) {
	setup{guard: bindingGuard()}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		contexts := make([]context.Context, 3)
		cancels := make([]context.CancelCauseFunc, 3)
		stops := make([]func() bool, 3)
		for i := range contexts {
			contexts[i], cancels[i] = context.WithCancelCause(t.Context())
			stops[i] = client.BindContext(contexts[i])
		}
		require.True(t, stops[0]())
		for i := range contexts {
			cancels[i](fmt.Errorf("cause %d", i))
			settled()
		}
		require.False(t, stops[1]())
		require.False(t, stops[2]())
		_, err := client.Read(make([]byte, 1))
		requireCanceled(t, contexts[1], err, "Read")
		require.NotErrorIs(t, err, context.Cause(contexts[0]))
		require.NotErrorIs(t, err, context.Cause(contexts[2]))
		server.Release()
		settled()
		e.requireNothingLeft(t)
	})
}

// TestDetachedStreamIsBoundToNothing: whether it was bound before or after
// Detach.
func TestDetachedStreamIsBoundToNothing(t *testing.T) {
	setup{guard: bindingGuard()}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		ctx, cancel := context.WithCancel(t.Context())
		stop := client.BindContext(ctx)
		raw := client.Detach()
		require.False(t, stop())
		require.False(t, client.BindContext(ctx)())
		cancel()
		require.False(t, client.BindContext(ctx)())
		settled()
		_, err := raw.Write([]byte("still here"))
		require.NoError(t, err)
		expect(t, server, "still here")
		raw.CancelRead(0)
		raw.Close()
		server.Release()
		settled()
		e.requireNothingLeft(t)
	})
}

// TestContextDoesNothingToEndedStream: what was closed arrives, and the errors
// of the stream do not change.
func TestContextDoesNothingToEndedStream(t *testing.T) {
	for _, name := range []string{"done after the end", "bound after the end", "done before"} {
		t.Run(name, func(t *testing.T) {
			setup{guard: bindingGuard()}.in(t, func(t *testing.T, e ends) {
				ctx, cancel := context.WithCancel(t.Context())
				client, server := e.stream(t)
				send, receive := e.uniStream(t)
				var stops []func() bool
				bind := func() { stops = append(stops, client.BindContext(ctx), send.BindContext(ctx)) }
				if name == "done after the end" {
					bind()
				}
				write(t, server, "answer")
				require.NoError(t, server.Close())
				got, err := io.ReadAll(client)
				require.NoError(t, err)
				require.Equal(t, "answer", string(got))
				write(t, client, "last words")
				require.NoError(t, client.Close())
				write(t, send, "last words")
				require.NoError(t, send.Close())
				if name == "bound after the end" {
					bind()
				}
				cancel()
				if name == "done before" {
					bind()
				}
				for _, stop := range stops {
					require.False(t, stop())
				}
				for _, r := range []io.Reader{server, receive} {
					got, err = io.ReadAll(r)
					require.NoError(t, err)
					require.Equal(t, "last words", string(got))
				}
				_, err = client.Read(make([]byte, 1))
				require.Equal(t, io.EOF, err)
				_, err = client.Write([]byte("x"))
				require.Equal(t, quiclife.ErrStreamClosed, err)
				require.NoError(t, client.Close())
				require.NoError(t, send.Close())
				settled()
				e.requireNothingLeft(t)
			})
		})
	}
}

// TestContextLeavesEndedHalfItsError: only a half that the context has reset
// has its error.
func TestContextLeavesEndedHalfItsError(t *testing.T) {
	setup{guard: bindingGuard()}.in(t, func(t *testing.T, e ends) {
		b := make([]byte, 1)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		reachedEOF, peer := e.stream(t)
		peer.Close()
		_, err := reachedEOF.Read(b)
		require.Equal(t, io.EOF, err)
		reachedEOF.BindContext(ctx)
		_, err = reachedEOF.Read(b)
		require.Equal(t, io.EOF, err)
		_, err = reachedEOF.Write(b)
		requireCanceled(t, ctx, err, "Write")
		peer.Release()

		own, peer := e.stream(t)
		own.CancelRead(5)
		own.BindContext(ctx)
		_, err = own.Read(b)
		require.Equal(t, &quiclife.StreamError{StreamID: own.StreamID(), ErrorCode: 5}, err)
		requireCanceled(t, ctx, own.Close(), "Close")
		peer.Release()

		own, peer = e.stream(t)
		own.CancelWrite(5)
		own.BindContext(ctx)
		_, err = own.Write(b)
		require.Equal(t, &quiclife.StreamError{StreamID: own.StreamID(), ErrorCode: 5}, err)
		require.NoError(t, own.Close())
		_, err = own.Read(b)
		requireCanceled(t, ctx, err, "Read")
		peer.Release()
		settled()
		e.requireNothingLeft(t)
	})
}

// TestContextTakesBackWhatIsNotDelivered: as with Reset, data that was closed
// but not delivered is lost if the receive half is still open when the context
// is done.
func TestContextTakesBackWhatIsNotDelivered(t *testing.T) {
	setup{guard: bindingGuard(), serverConf: smallWindow}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		client.BindContext(ctx)
		write(t, client, "not read, and not delivered")
		require.NoError(t, client.Close())
		cancel(errUserLeft)
		settled()
		_, err := io.ReadAll(server)
		requirePeerReset(t, err, "Read")
		requireCanceled(t, ctx, client.Close(), "a second Close")
		_, err = client.Write([]byte("x"))
		requireCanceled(t, ctx, err, "Write after Close")
		server.Release()
		settled()
		e.requireNothingLeft(t)
	})
}

// TestContextDeliversUpToReliableBoundary: like Reset, a context leaves a
// closed send half alone after SetReliableBoundary.
func TestContextDeliversUpToReliableBoundary(t *testing.T) {
	conf := &quic.Config{EnableStreamResetPartialDelivery: true}
	setup{guard: bindingGuard(), clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		ctx, cancel := context.WithCancel(t.Context())
		client.BindContext(ctx)
		write(t, client, "promised")
		client.SetReliableBoundary()
		require.NoError(t, client.Close())
		cancel()
		settled()
		got, err := io.ReadAll(server)
		require.NoError(t, err)
		require.Equal(t, "promised", string(got))
		require.NoError(t, client.Close(), "nothing was taken back")
		server.Release()
		settled()
		e.requireNothingLeft(t)
	})
}

// TestBindNilContextPanics: with a message.
func TestBindNilContextPanics(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		send, receive := e.uniStream(t)
		for _, s := range []anyStream{client, server, send, receive} {
			require.PanicsWithValue(t, "quiclife: BindContext with a nil context", func() { s.BindContext(noContext) })
			s.Release()
		}
	})
}

// A countingContext is done when its done channel is closed. It counts who
// waits for that.
type countingContext struct {
	context.Context
	done chan struct{}

	bound   func()       // if not nil, called when somebody begins to wait
	unbound func()       // if not nil, called when somebody stops waiting
	err     func() error // if not nil, called by Err

	mu      sync.Mutex // guards the fields below
	waiting map[*func()]struct{}
	most    int
}

func newCountingContext() *countingContext {
	return &countingContext{Context: context.Background(), done: make(chan struct{}), waiting: make(map[*func()]struct{})}
}

func (c *countingContext) Done() <-chan struct{} { return c.done }

func (c *countingContext) Err() error {
	if c.err == nil {
		return nil
	}
	return c.err()
}

// AfterFunc is called by [context.AfterFunc].
func (c *countingContext) AfterFunc(f func()) func() bool {
	c.mu.Lock()
	c.waiting[&f] = struct{}{}
	c.most = max(c.most, len(c.waiting))
	c.mu.Unlock()
	if c.bound != nil {
		c.bound()
	}
	return func() bool {
		if c.unbound != nil {
			c.unbound()
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		_, waits := c.waiting[&f]
		delete(c.waiting, &f)
		return waits
	}
}

// first returns the function to call when the context is done.
func (c *countingContext) first() func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for f := range c.waiting {
		return *f
	}
	return nil
}

func (c *countingContext) count() (now, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting), c.most
}

// TestContextForgetsEndedStreams: a long-lived context refers to none of 10,000
// streams, however they have ended.
func TestContextForgetsEndedStreams(t *testing.T) {
	conf := &quic.Config{MaxIncomingStreams: 5000, MaxIncomingUniStreams: 5000}
	ways := []struct {
		name string
		end  func(t *testing.T, e ends, client, server *quiclife.Stream)
	}{
		{"Release", func(_ *testing.T, _ ends, client, _ *quiclife.Stream) { client.Release() }},
		{"Reset", func(_ *testing.T, _ ends, client, _ *quiclife.Stream) { client.Reset(1) }},
		{"CancelWrite and CancelRead", func(_ *testing.T, _ ends, client, _ *quiclife.Stream) {
			client.CancelWrite(1)
			client.CancelRead(1)
		}},
		{"Close and EOF", func(t *testing.T, _ ends, client, server *quiclife.Stream) {
			client.Close()
			server.Close()
			io.Copy(io.Discard, client)
		}},
		{"Close, and an EOF that nobody reads", func(t *testing.T, _ ends, client, server *quiclife.Stream) {
			client.Close()
			server.Close()
		}},
		{"the peer's reset", func(_ *testing.T, _ ends, client, server *quiclife.Stream) {
			server.Reset(1)
			client.Read(make([]byte, 1))
			for err := error(nil); err == nil; _, err = client.Write(make([]byte, 1)) {
				time.Sleep(time.Millisecond)
			}
		}},
		{"Detach", func(_ *testing.T, _ ends, client, server *quiclife.Stream) {
			raw := client.Detach()
			raw.CancelRead(0)
			raw.CancelWrite(0)
		}},
		{"Shutdown", nil},
		{"the connection's end", nil},
		{"the peer's end of the connection", nil},
	}
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
				const count = 1000
				ctx := newCountingContext()
				for range count {
					client, server := e.stream(t)
					client.BindContext(ctx)
					if way.end != nil {
						way.end(t, e, client, server)
					} else {
						keep(t, client)
					}
					server.Release()
				}
				switch way.name {
				case "Shutdown":
					done, cancel := context.WithCancel(t.Context())
					cancel()
					require.Error(t, e.client.Shutdown(done, 0, ""), "streams are open")
				case "the connection's end":
					e.client.CloseWithError(0, "")
				case "the peer's end of the connection":
					e.server.CloseWithError(0, "")
				}
				settled()
				now, most := ctx.count()
				require.Zero(t, now, "streams that the context still holds")
				require.Positive(t, most, "streams that it held")
			})
		})
	}
	t.Run("stop", func(t *testing.T) {
		setup{}.in(t, func(t *testing.T, e ends) {
			ctx := newCountingContext()
			client, server := e.stream(t)
			for range 1000 {
				require.True(t, client.BindContext(ctx)())
			}
			now, most := ctx.count()
			require.Zero(t, now)
			require.Equal(t, 1, most)
			client.Release()
			server.Release()
		})
	})
	t.Run("another context", func(t *testing.T) {
		setup{}.in(t, func(t *testing.T, e ends) {
			ctx := newCountingContext()
			other, cancel := context.WithCancel(t.Context())
			client, server := e.stream(t)
			client.BindContext(ctx)
			client.BindContext(other)
			cancel()
			settled()
			now, _ := ctx.count()
			require.Zero(t, now)
			server.Release()
		})
	})
	t.Run("an end during BindContext", func(t *testing.T) {
		setup{}.in(t, func(t *testing.T, e ends) {
			ctx := newCountingContext()
			client, server := e.stream(t)
			ctx.bound = client.Release
			require.False(t, client.BindContext(ctx)())
			now, most := ctx.count()
			require.Zero(t, now)
			require.Equal(t, 1, most)
			server.Release()
		})
	})
	t.Run("memory", func(t *testing.T) {
		e := setup{}.onLoopback(t)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		const count = 200
		held := make([]weak.Pointer[quic.Stream], count)
		for i := range held {
			client, server := e.stream(t)
			client.BindContext(ctx)
			held[i] = weak.Make(quiclife.RawStream(client))
			client.Release()
			server.Release()
		}
		eventually(t, func() bool {
			runtime.GC()
			left := 0
			for _, s := range held {
				if s.Value() != nil {
					left++
				}
			}
			return left <= 1 // the last may still be on a stack
		}, "streams that a context holds")
		runtime.KeepAlive(ctx)
	})
}

// TestBoundStreamIsFoundDropped: a binding does not keep the handle alive.
func TestBoundStreamIsFoundDropped(t *testing.T) {
	guard := &quiclife.Guard{AbandonGrace: -1}
	conf := &quic.Config{MaxIncomingStreams: 2000}
	setup{guard: guard, clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		ctx := newCountingContext()
		const count = 1000
		stops := bindAndDrop(t, e.client, ctx, count)
		before, _ := ctx.count()
		require.Equal(t, count, before)
		for range 2 {
			runtime.GC()
			settled()
			e.client.Stats() // in fake time, Stats looks for dropped streams
		}
		require.EqualValues(t, count, e.client.Stats().Outgoing.Reclaimed, "dropped streams that were found")
		left, _ := ctx.count()
		require.Zero(t, left, "dropped streams that the context still holds")
		for _, stop := range stops {
			require.False(t, stop())
		}
	})
}

//go:noinline
func bindAndDrop(t *testing.T, c *quiclife.Conn, ctx context.Context, count int) (stops []func() bool) {
	for range count {
		s, err := c.OpenStream()
		require.NoError(t, err)
		write(t, s, "x")
		stops = append(stops, s.BindContext(ctx))
	}
	return stops
}

// TestContextBesideOtherEnds: whichever end comes first, nothing is left of the
// stream, nothing hangs, and both sides see the same.
func TestContextBesideOtherEnds(t *testing.T) {
	message := bytes.Repeat([]byte("message "), 500)
	for _, beside := range []struct {
		name string
		do   func(client, server *quiclife.Stream)
	}{
		{"Close", func(client, _ *quiclife.Stream) { client.Close() }},
		{"Release", func(client, _ *quiclife.Stream) { client.Release() }},
		{"Reset", func(client, _ *quiclife.Stream) { client.Reset(5) }},
		{"Detach", func(client, _ *quiclife.Stream) {
			raw := client.Detach()
			raw.CancelRead(5)
			raw.CancelWrite(5)
		}},
		{"Read", func(client, _ *quiclife.Stream) { client.Read(make([]byte, 10)) }},
		{"Write", func(client, _ *quiclife.Stream) { client.Write(message) }},
		{"a Write of more than the window", func(client, _ *quiclife.Stream) { client.Write(tooMuch) }},
		{"Write and Close", func(client, _ *quiclife.Stream) { client.Write(message); client.Close() }},
		{"the peer's reset", func(_, server *quiclife.Stream) { server.Reset(6) }},
		{"the peer's end", func(_, server *quiclife.Stream) { server.Write(message); server.Close() }},
		{"another context", func(client, _ *quiclife.Stream) {
			ctx, cancel := context.WithCancel(context.Background())
			client.BindContext(ctx)
			cancel()
		}},
	} {
		t.Run(beside.name, func(t *testing.T) {
			setup{guard: bindingGuard(), clientConf: smallWindow, serverConf: smallWindow}.in(t, func(t *testing.T, e ends) {
				for range 100 {
					client, server := e.stream(t)
					ctx, cancel := context.WithCancel(t.Context())
					stop := client.BindContext(ctx)
					var both sync.WaitGroup
					both.Go(cancel)
					both.Go(func() { beside.do(client, server) })
					both.Wait()
					settled()
					require.False(t, stop(), "either the context or the other end has ended it")
					if info := client.Info(); beside.name != "Detach" { // Detach leaves the halves as they are
						require.NotEqual(t, quiclife.HalfOpen, info.Send, "send half")
						require.NotEqual(t, quiclife.HalfOpen, info.Receive, "receive half")
					}
					server.Reset(1)
				}
				settled()
				e.requireNothingLeft(t)
			})
		})
	}
}

// TestCloseBesideContextTellsTheTruth: on a unidirectional stream, Close
// returns nil if and only if the peer reads all of it.
func TestCloseBesideContextTellsTheTruth(t *testing.T) {
	message := bytes.Repeat([]byte("message "), 500)
	setup{guard: bindingGuard()}.in(t, func(t *testing.T, e ends) {
		closed := 0
		for i := range 300 {
			client, server := e.uniStream(t)
			ctx, cancel := context.WithCancel(t.Context())
			client.BindContext(ctx)
			_, err := client.Write(message)
			require.NoError(t, err)
			var canceling sync.WaitGroup
			canceling.Go(func() {
				for range i % 3 {
					runtime.Gosched()
				}
				cancel()
			})
			err = client.Close()
			canceling.Wait()
			got, readErr := io.ReadAll(server)
			if err == nil {
				closed++
				require.NoError(t, readErr, "Close returned nil")
				require.True(t, bytes.Equal(message, got), "Close returned nil")
			} else {
				requireCanceled(t, ctx, err, "Close")
				requirePeerReset(t, readErr, "Read")
			}
		}
		t.Logf("%d of 300 closed first", closed)
		settled()
		e.requireNothingLeft(t)
	})
}

// TestStopBesideContextTellsTheTruth: stop returns true if and only if the
// stream was not reset.
func TestStopBesideContextTellsTheTruth(t *testing.T) {
	setup{guard: bindingGuard()}.in(t, func(t *testing.T, e ends) {
		for range 300 {
			client, server := e.stream(t)
			ctx, cancel := context.WithCancel(t.Context())
			stop := client.BindContext(ctx)
			var canceling sync.WaitGroup
			canceling.Go(cancel)
			stopped := stop()
			canceling.Wait()
			settled()
			require.Equal(t, stopped, client.Info().Send == quiclife.HalfOpen)
			require.Equal(t, stopped, client.Info().Receive == quiclife.HalfOpen)
			client.Release()
			server.Release()
		}
		settled()
		e.requireNothingLeft(t)
	})
}

// TestContextDuringCloseTakesNothingBack: if Close is just ending a
// unidirectional stream, the context does not change what Close returns.
func TestContextDuringCloseTakesNothingBack(t *testing.T) {
	setup{guard: bindingGuard()}.in(t, func(t *testing.T, e ends) {
		client, server := e.uniStream(t)
		ctx, cancel := context.WithCancel(t.Context())
		stop := client.BindContext(ctx)
		write(t, client, "last words")
		quiclife.AfterClose(client, func() {
			cancel()
			synctest.Wait()
		})
		require.NoError(t, client.Close())
		require.False(t, stop())
		got, err := io.ReadAll(server)
		require.NoError(t, err)
		require.Equal(t, "last words", string(got))
		settled()
		e.requireNothingLeft(t)
	})
}

// TestDoSaysThatContextHasResetItsStream: even if the answer was read to its
// end.
func TestDoSaysThatContextHasResetItsStream(t *testing.T) {
	setup{guard: bindingGuard()}.in(t, func(t *testing.T, e ends) {
		go func() {
			s, err := e.server.AcceptStream(t.Context())
			if err == nil {
				s.Close()
				s.Release()
			}
		}()
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errUserLeft)
		err := e.client.Do(t.Context(), func(s *quiclife.Stream) error {
			write(t, s, "x")
			_, err := io.ReadAll(s)
			s.BindContext(ctx)
			return err
		})
		requireCanceled(t, ctx, err, "Do")
		settled()
		e.requireNothingLeft(t)
	})
}
