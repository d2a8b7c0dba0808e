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

// Handlers say what to do with the streams that the peer opens.
//
// Stream and UniStream are called in a goroutine of their own for each stream,
// at most as many at a time as the peer may have streams of that kind open, and
// on all connections of the Guard together as many as Guard.MaxStreams. A
// func that is nil refuses streams of its kind (Codes.Refused) as they come, so
// that they hold no slot: as many at once as the peer may have open, 1000 at
// most, from then on 100 a second. To forbid a kind, set
// Config.MaxIncomingStreams or Config.MaxIncomingUniStreams to -1 as well: then
// the peer cannot open such streams, and refusing them costs nothing.
//
// The stream ends with the handler. If it returns nil, the stream is closed,
// then released: what was written arrives. If it has not read all
// up to the peer's end, the peer is asked to stop sending (Codes.Release), and
// counts the stream as reset, though the answer is whole. If a Write was cut
// short and not continued, the stream is reset instead (see [Stream.Close]), and Error is
// called with [ErrWriteCut]. If the handler returns an error, the stream
// is reset with the code that Code gives for it, and Error is called. If it
// panics, the panic is logged with its stack and the stream reset with
// Codes.Panic; other streams do not notice. Only then the stream credit goes
// back.
//
// The ctx of Stream and UniStream is done when [Conn.Context] is, so when the
// connection has ended, not when Serve's context is. It has the values of both,
// the connection's first.
type Handlers struct {
	// Conn, if not nil, is called for each connection before its streams. The
	// context that it returns gives its values to the contexts of the handlers,
	// in place of ctx, from which it should be derived; keys that Conn.Context
	// has keep their values. An error refuses the connection: it is closed with
	// the code and message of the error if that is an [*ApplicationError], else
	// with Guard.CloseCode. So does a panic, which is logged. ctx is done when the
	// connection has ended or Shutdown has begun.
	Conn func(ctx context.Context, c *Conn) (context.Context, error)

	Stream    func(ctx context.Context, s *Stream) error
	UniStream func(ctx context.Context, s *ReceiveStream) error

	// Error, if not nil, is called with each error that a handler returned, and
	// with [ErrWriteCut] for each answer that was cut, after the stream has
	// ended. It is called by the handlers' goroutines, so at the same time for
	// several streams. nil means that they are logged: as warnings, or for
	// debugging once the connection has ended.
	Error func(c *Conn, s StreamInfo, err error)

	// Code says with which code to reset a stream whose handler returned err.
	// nil means Codes.HandlerError for all.
	Code func(err error) StreamErrorCode
}

// Serve accepts streams and has h handle them. It blocks until ctx is done,
// Shutdown is called or the connection has ended, and then until all handlers
// have returned. It returns ctx.Err(), [ErrShutdown], the error that ended
// the connection or that of h.Conn, never nil. A connection can be served once
// at a time.
//
// When ctx is done, no further stream is accepted, and handlers that are
// running go on. To end them too, within a time, call [Conn.Shutdown].
//
// At Guard.MaxStreams a stream waits for its turn, for Guard.MaxWait at most:
// then it is refused with Codes.Refused, and so are those that the peer has
// opened after it. No handler has seen them, so the peer may try again.
func (c *Conn) Serve(ctx context.Context, h Handlers) error {
	if ctx == nil {
		return errNilContext
	}
	c.mu.Lock()
	serving := c.serving
	c.serving = true
	c.mu.Unlock()
	if serving {
		return errors.New("quiclife: Serve is running on this connection already")
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
	var ended error // what accepting unidirectional streams ended with: bidirectional ones do with the same
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

// begin calls h.Conn, and closes the connection if that refuses it.
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
		if !returned { // it panicked, or called runtime.Goexit
			err = errConnPanicked
			c.panicked("quiclife: Handlers.Conn panicked", v)
		}
		if c.draining.Err() != nil || c.lifetime.Err() != nil { // Shutdown closes it, or nobody has to
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

// A server is what serves the streams of a connection.
type server struct {
	conn     *Conn
	handlers Handlers
	until    context.Context // accepts until then
	ctx      context.Context // of the handlers
}

// A handlerContext is done when the connection is, and has the values of both
// contexts.
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

// serveAll handles streams of one kind until accept fails, and all handlers
// have returned. It takes a slot of this connection before it accepts a stream,
// so that one that nobody can handle yet counts against the peer's limit.
func serveAll[R receiver, S ender](s server, k kind, next func(context.Context) (R, error), wrap func(R) S,
	handle func(context.Context, S) error, finish func(S) error) error {
	c := s.conn
	c.accepts(k)
	if handle == nil {
		return refuseAll(s.until, c, k, math.MaxInt64, next, c.guard.Codes.Refused)
	}
	limit := min(c.kinds[k].stats.Limit, math.MaxInt32)
	if limit == 0 { // Wrap may have been told otherwise
		limit = math.MaxInt32
	}
	c.handlers[k].Store(handlerStack(handle))
	slots := make(chan struct{}, limit)
	var handlers sync.WaitGroup
	defer handlers.Wait()
	for {
		slots <- struct{}{} // the end of ctx, or of the connection, is noticed after: Serve waits for the handlers anyway
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

// acceptUntil is accept, except that it accepts nothing once ctx is done.
// quic-go's own returns a stream that is queued even then.
func acceptUntil[S any](ctx context.Context, accept func(context.Context) (S, error)) (none S, err error) {
	if err := ctx.Err(); err != nil {
		return none, err
	}
	return accept(ctx)
}

// ender is what runHandler and do need of a stream.
type ender interface {
	StreamID() StreamID
	Info() StreamInfo
	Release()
	Reset(StreamErrorCode)
}

// runHandler runs a handler, and ends its stream as Handlers says.
func runHandler[S ender](s server, str S, finish func(S) error, handle func(context.Context, S) error) {
	c := s.conn
	abort := c.guard.Codes.Panic // also if handle calls runtime.Goexit
	var failure error
	returned := false
	defer func() {
		if v := recover(); v != nil || !returned {
			c.panicked("quiclife: handler panicked", v, "stream", int64(str.StreamID()))
		}
		if returned && failure == nil {
			err := finish(str)
			str.Release()
			if errors.Is(err, ErrWriteCut) { // what else finish returns is the peer's doing
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

// failed tells of an error that would be lost without it.
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

// panicked logs a panic of the program's, or its runtime.Goexit if v is nil.
func (c *Conn) panicked(msg string, v any, attrs ...any) {
	if v == nil {
		v = "runtime.Goexit was called"
	}
	c.guard.totals.handlerPanics.Add(1)
	c.guard.log(slog.LevelError, recordKind{msg: msg},
		append(attrs, "remote", c.RemoteAddr().String(), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))...)
}

// Serve accepts connections, and has h handle the streams of each. It blocks
// until ctx is done or the listener is closed, closes the listener, shuts down
// the connections side by side as [Conn.Shutdown] does, with Guard.CloseCode and
// within Guard.DrainTimeout, and returns when all handlers have returned. The
// error is ctx.Err(), [ErrServerClosed], or the transport's if that fails, never
// nil. If connections had to be cut, it is an error that matches that, and the
// [*ShutdownError] of each. While an Accept, a NetListener or another Serve uses
// the listener, it returns an error at once. If [Guard.Shutdown] has closed the
// listener, that shuts down the connections, and its error has what was cut.
func (l *Listener) Serve(ctx context.Context, h Handlers) error {
	if ctx == nil {
		return errNilContext
	}
	if err := l.l.begin(byServe); err != nil {
		return err
	}
	defer l.l.finish()
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
	for { // those that nobody accepted; it does not block any more
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

// drainFor is Shutdown within a time.
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
