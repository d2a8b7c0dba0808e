package quiclife

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

var errNilContext = errors.New("quiclife: nil context")

// Handlers are the functions that handle the streams that the peer opens.
//
// Stream and UniStream are called once for each stream of their kind, each in
// its own goroutine. On one connection, at most as many run at a time as the
// peer may have streams of that kind open. On all connections of the Guard
// together, at most Guard.MaxStreams run at a time.
//
// If a function is nil, streams of its kind are refused with Codes.Refused as
// they come, so that they hold no slot. The pace is limited: as many as the
// peer may have open, but at most 1000, are refused at once, and after that 100
// per second. To forbid a kind, set Config.MaxIncomingStreams or
// Config.MaxIncomingUniStreams to -1 as well. Then the peer cannot open such
// streams, and nothing needs to be refused.
//
// The stream ends when its handler returns. If the handler returns nil, the
// stream is closed, then released: what was written arrives. If the handler has
// not read to the peer's end, the peer is asked to stop sending (Codes.Release)
// and counts the stream as reset, although the answer is whole. If a Write was
// cut short and not continued, the stream is reset instead (see [Stream.Close]),
// and Error is called with [ErrWriteCut]. If the handler returns an error, the
// stream is reset with the code that Code returns for it, and Error is called.
// If the handler panics, the panic is logged with its stack, and the stream is
// reset with Codes.Panic. Other streams are not affected. The stream credit is
// returned after the handler has returned, not before.
//
// The ctx of Stream and UniStream is done when [Conn.Context] is done: when the
// connection has ended. It is not done when the peer gives up this one stream:
// [Stream.Context] is, once the peer has asked us to stop sending. The end of
// Serve's context does not affect ctx; [Conn.Draining] tells a handler that the
// server stops. ctx has the values of both contexts. If both have a value for a
// key, the connection's takes precedence.
type Handlers struct {
	// Conn, if not nil, is called for each connection before its streams are
	// accepted. ctx is done when the connection has ended or Shutdown has
	// begun. Conn returns a context, which should be derived from ctx. The
	// handlers' contexts have its values instead of those of Serve's context.
	// If Conn.Context has a value for the same key, that one takes precedence.
	// If Conn returns an error, the connection is refused: it is closed with
	// the code and message of the error if that is an [*ApplicationError], else
	// with Guard.CloseCode and CloseReason. If Conn panics, the panic is logged
	// and the connection refused as well.
	Conn func(ctx context.Context, c *Conn) (context.Context, error)

	Stream    func(ctx context.Context, s *Stream) error
	UniStream func(ctx context.Context, s *ReceiveStream) error

	// Error, if not nil, is called with each error that a handler returned, and
	// with [ErrWriteCut] for each answer that was cut, after the stream has
	// ended. It is called on the handlers' goroutines, so calls may be
	// concurrent. nil means that errors are logged, at level Warn, or at level
	// Debug once the connection has ended. The log has one of them in ten
	// seconds: see Guard.Logger.
	Error func(c *Conn, s StreamInfo, err error)

	// Code returns the code for the reset of a stream whose handler returned
	// err. The peer's calls return a [*StreamError] with this code, and with
	// Remote set. nil means Codes.HandlerError for all errors.
	Code func(err error) StreamErrorCode
}

// Serve accepts streams and runs the handlers in h for them. It blocks until
// ctx is done, Shutdown is called or the connection has ended, and then until
// all handlers have returned. It never returns nil: it returns ctx.Err(),
// [ErrShutdown], the error that ended the connection, or the error of h.Conn.
// Only one Serve can run on a connection at a time.
//
// When ctx is done, Serve accepts no more streams, and running handlers go on.
// To end them within a time limit, call [Conn.Shutdown].
//
// At Guard.MaxStreams a stream waits for its turn for at most Guard.MaxWait.
// Then it is refused with Codes.Refused, and so are the streams of its kind
// that the peer has opened after it. No handler has seen these streams, so the
// peer may safely try again.
func (c *Conn) Serve(ctx context.Context, h Handlers) error {
	if ctx == nil {
		return errNilContext
	}
	c.mu.Lock()
	serving := c.serving
	c.serving = true
	c.mu.Unlock()
	if serving {
		return errors.New("quiclife: Serve is already running on this connection")
	}
	defer func() {
		c.mu.Lock()
		c.serving = false
		c.mu.Unlock()
	}()

	until, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.draining, cancel)()
	values, err := h.begin(ctx, c)
	if err != nil {
		return err
	}
	s := server{c, h, until, handlerContext{c.Context(), values}}
	var both sync.WaitGroup
	var ended error // why accepting unidirectional streams ended; for bidirectional ones it is the same
	both.Go(func() {
		wrap := func(raw *quic.Stream) *Stream { return newStream(c, incoming, raw, true) }
		serveAll(s, incoming, c.raw.AcceptStream, wrap, h.Stream, func(s *Stream) error { return s.st.finish() })
	})
	both.Go(func() {
		wrap := func(raw *quic.ReceiveStream) *ReceiveStream { return newReceiveStream(c, raw, true) }
		ended = serveAll(s, incomingUni, c.raw.AcceptUniStream, wrap, h.UniStream, func(*ReceiveStream) error { return nil })
	})
	both.Wait()
	if c.draining.Err() != nil {
		return ErrShutdown
	}
	return ended
}

var errConnPanicked = errors.New("quiclife: Handlers.Conn panicked")

// begin calls h.Conn, and closes the connection if h.Conn refuses it.
func (h *Handlers) begin(ctx context.Context, c *Conn) (values context.Context, err error) {
	if h.Conn == nil {
		return ctx, nil
	}
	until, cancel := context.WithCancel(handlerContext{c.Context(), ctx})
	context.AfterFunc(c.draining, cancel)
	returned := false
	defer func() {
		v := recover()
		if returned && err == nil {
			return
		}
		if !returned { // h.Conn panicked, or called runtime.Goexit
			err = errConnPanicked
			c.panicked("quiclife: Handlers.Conn panicked", v)
		}
		if c.draining.Err() != nil || c.lifetime.Err() != nil { // Shutdown will close it, or it has ended
			return
		}
		c.guard.log(slog.LevelWarn, recordKind{msg: "quiclife: connection refused by Handlers.Conn"}, "remote", c.RemoteAddr().String(), "error", err.Error())
		code, reason := c.guard.CloseCode, c.guard.CloseReason
		if e, ok := errors.AsType[*ApplicationError](err); ok {
			code, reason = e.ErrorCode, e.ErrorMessage
		}
		c.CloseWithError(code, reason)
	}()
	values, err = h.Conn(until, c)
	if err == nil && values == nil {
		err = errNilContext
	}
	returned = true
	return values, err
}

// A server has what serveAll and runHandler need to serve a connection.
type server struct {
	conn     *Conn
	handlers Handlers
	until    context.Context // streams are accepted until it is done
	ctx      context.Context // the context for handlers
}

// A handlerContext is done when the connection has ended, and has the values of
// both contexts.
type handlerContext struct {
	context.Context // the connection's
	serve           context.Context
}

func (h handlerContext) Value(key any) any {
	if v := h.Context.Value(key); v != nil {
		return v
	}
	return h.serve.Value(key)
}

// serveAll handles streams of one kind. It returns when accept has failed and
// all handlers have returned. It takes a slot before it accepts a stream: a
// stream that nobody can handle yet stays unaccepted, and so counts against the
// peer's limit.
func serveAll[R receiver, S ender](s server, k kind, next func(context.Context) (R, error), wrap func(R) S,
	handle func(context.Context, S) error, finish func(S) error) error {
	c := s.conn
	c.accepts(k)
	if handle == nil {
		return refuseAll(s.until, c, k, math.MaxInt64, next, c.guard.Codes.Refused)
	}
	limit := min(c.kinds[k].stats.Limit, math.MaxInt32)
	if limit == 0 { // the limit may be wrong if Wrap was given another Config
		limit = math.MaxInt32
	}
	c.handlers[k].Store(handlerStack(handle))
	slots := make(chan struct{}, limit)
	var handlers sync.WaitGroup
	defer handlers.Wait()
	for {
		slots <- struct{}{} // need not watch ctx or the connection: Serve waits for the handlers anyway
		raw, err := acceptUntil(s.until, func(ctx context.Context) (R, error) { return accept(ctx, c, k, next) })
		if err != nil {
			return err
		}
		str := wrap(raw)
		if err := c.awaitHandling(s.until); err == errWaited {
			refuseWaiting(c, str, k, next)
			<-slots
			continue
		} else if err != nil {
			str.Reset(c.refusalCode())
			return err
		}
		handlers.Go(func() {
			defer func() {
				c.handled()
				<-slots
			}()
			runHandler(s, str, finish, handle)
		})
	}
}

// acceptUntil calls accept, but not if ctx is done: quic-go returns a queued
// stream even then.
func acceptUntil[S any](ctx context.Context, accept func(context.Context) (S, error)) (none S, err error) {
	if err := ctx.Err(); err != nil {
		return none, err
	}
	return accept(ctx)
}

// ender is the part of a stream that runHandler and do need.
type ender interface {
	StreamID() StreamID
	Info() StreamInfo
	Release()
	Reset(StreamErrorCode)
}

// runHandler runs a handler, and then ends its stream as documented at
// Handlers.
func runHandler[S ender](s server, str S, finish func(S) error, handle func(context.Context, S) error) {
	c := s.conn
	abort := c.guard.Codes.Panic // even if handle calls runtime.Goexit
	var failure error
	returned := false
	defer func() {
		if v := recover(); v != nil || !returned {
			c.panicked("quiclife: handler panicked", v, "stream", int64(str.StreamID()))
		}
		if returned && failure == nil {
			err := finish(str)
			str.Release()
			if errors.Is(err, ErrWriteCut) { // other errors of finish are caused by the peer
				failure = err
			}
		} else {
			str.Reset(abort)
		}
		if failure != nil {
			s.handlers.failed(c, str.Info(), failure)
		}
	}()
	failure = handle(s.ctx, str)
	returned = true
	if failure == nil {
		return
	}
	abort = c.guard.Codes.HandlerError
	if s.handlers.Code != nil {
		abort = s.handlers.Code(failure)
	}
}

// failed reports the error of a handler, to h.Error or the log.
func (h *Handlers) failed(c *Conn, info StreamInfo, err error) {
	c.guard.totals.handlerErrors.Add(1)
	if h.Error != nil {
		defer func() {
			if v := recover(); v != nil {
				c.panicked("quiclife: Handlers.Error panicked", v)
			}
		}()
		h.Error(c, info, err)
		return
	}
	level, msg := slog.LevelWarn, "quiclife: handler failed"
	if err == ErrWriteCut {
		msg = "quiclife: answer cut: the handler returned nil, but a Write was not complete"
	}
	if c.lifetime.Err() != nil {
		level = slog.LevelDebug
	}
	c.guard.log(level, recordKind{msg: msg, of: level.String()}, "remote", c.RemoteAddr().String(), "stream", int64(info.ID), "error", err.Error())
}

// panicked logs a panic in the program's code, or a call of runtime.Goexit if v
// is nil.
func (c *Conn) panicked(msg string, v any, attrs ...any) {
	if v == nil {
		v = "runtime.Goexit was called"
	}
	c.guard.totals.handlerPanics.Add(1)
	c.guard.log(slog.LevelError, recordKind{msg: msg},
		append(attrs, "remote", c.RemoteAddr().String(), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))...)
}

// Serve accepts connections, and runs the handlers in h for the streams of
// each. It blocks until ctx is done or the listener is closed. Then it closes
// the listener and shuts down the connections in parallel, as [Conn.Shutdown]
// does, with Guard.CloseCode and within Guard.DrainTimeout. It returns when all
// handlers have returned.
//
// Serve never returns nil. It returns ctx.Err(), [ErrServerClosed], or the
// transport's error if the transport fails. If connections had to be cut, the
// error also matches the [*ShutdownError] of each. So after a clean stop it
// matches ctx.Err(), and no ShutdownError. If an Accept, a NetListener or
// another Serve uses the listener, Serve returns an error at once.
//
// If [Guard.Shutdown] has closed the listener, then Guard.Shutdown shuts down
// the connections, and its error says what was cut.
func (l *Listener) Serve(ctx context.Context, h Handlers) error {
	if ctx == nil {
		return errNilContext
	}
	if err := l.l.begin(byServe); err != nil {
		return err
	}
	defer l.l.finish()
	defer l.l.guard.flushAll()
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	var conns sync.WaitGroup
	var mu sync.Mutex // guards cut
	var cut groupError
	serve := func(c *Conn) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.Serve(context.WithoutCancel(ctx), h)
		}()
		select {
		case <-stop.Done():
			c.guard.awaitShutdown(done, ctx.Done())
			err := c.drainFor(c.guard.drainTimeout())
			mu.Lock()
			cut.add(err)
			mu.Unlock()
		case <-done:
		}
		<-done
	}
	serveConn := func(c *Conn) {
		cut.conns++
		conns.Go(func() { serve(c) })
	}
	var err error
	for {
		var c *Conn
		if c, err = l.l.accept(ctx); err != nil {
			break
		}
		serveConn(c)
	}
	cancel()
	l.Close()
	for { // take the connections that nobody accepted; this no longer blocks
		c, err := l.l.accept(context.Background())
		if err != nil {
			break
		}
		serveConn(c)
	}
	conns.Wait()
	if len(cut.errs) > 0 {
		return fmt.Errorf("%w: %w", err, &cut)
	}
	return err
}

// drainFor calls Shutdown with a timeout, and logs if the connection was cut.
func (c *Conn) drainFor(timeout time.Duration) error {
	ctx := context.Background()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	err := c.Shutdown(ctx, c.guard.CloseCode, c.guard.CloseReason)
	if err != nil {
		c.guard.log(slog.LevelWarn, recordKind{msg: "quiclife: connection cut at shutdown"}, "remote", c.RemoteAddr().String(), "error", err.Error())
	}
	return err
}
