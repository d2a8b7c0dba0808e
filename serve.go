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
)

var errNilContext = errors.New("quiclife: nil context")

// A Handler says what to do with the streams that the peer opens.
//
// Stream and UniStream are called in a goroutine of their own for each stream,
// at most as many at a time as the peer may have streams of that kind open. A
// func that is nil refuses streams of its kind (Codes.Refused) as they come, so
// that they hold no slot: as many at once as the peer may have open, 1000 at
// most, from then on 100 a second. To forbid a kind, set
// Config.MaxIncomingStreams or Config.MaxIncomingUniStreams to -1 as well: then
// the peer cannot open such streams, and refusing them costs nothing.
//
// The stream ends with the handler. If it returns nil, the stream is closed,
// then released: what was written arrives. If a Write was cut short and not
// continued, the stream is reset instead (see [Stream.Close]), and the loss is
// logged. If the handler returns an error, the stream
// is reset with the code that Code gives for it. If it panics, the panic is
// logged with its stack and the stream reset with Codes.Panic; other streams
// do not notice. Only then the stream credit goes back.
//
// ctx is done when [Conn.Context] is, so when the connection has ended, not when
// Serve's context is. It has the values of both, the connection's first.
type Handler struct {
	Stream    func(ctx context.Context, s *Stream) error
	UniStream func(ctx context.Context, s *ReceiveStream) error

	// Code says with which code to reset a stream whose handler returned err.
	// nil means Codes.HandlerError for all.
	Code func(err error) StreamErrorCode
}

// Serve accepts streams and has h handle them. It blocks until ctx is done,
// Shutdown is called or the connection has ended, and then until all handlers
// have returned. It returns ctx.Err(), [ErrShutdown] or the error that ended
// the connection, never nil. A connection can be served once at a time.
//
// When ctx is done, no further stream is accepted, and handlers that are
// running go on. To end them too, within a time, call [Conn.Shutdown].
func (c *Conn) Serve(ctx context.Context, h Handler) error {
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

	handlers := handlerContext{c.Context(), ctx}
	until, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.draining, cancel)()
	var both sync.WaitGroup
	var ended error // what accepting unidirectional streams ended with: bidirectional ones do with the same
	both.Go(func() {
		if h.Stream == nil {
			refuseAll(until, c, incoming, math.MaxInt64, c.raw.AcceptStream, c.guard.Codes.Refused)
			return
		}
		serveAll(until, c, incoming, c.AcceptStream, func(s *Stream) {
			runHandler(handlers, c, s, s.st.finish, h.Code, h.Stream)
		})
	})
	both.Go(func() {
		if h.UniStream == nil {
			ended = refuseAll(until, c, incomingUni, math.MaxInt64, c.raw.AcceptUniStream, c.guard.Codes.Refused)
			return
		}
		ended = serveAll(until, c, incomingUni, c.AcceptUniStream, func(s *ReceiveStream) {
			runHandler(handlers, c, s, func() error { return nil }, h.Code, h.UniStream)
		})
	})
	both.Wait()
	if c.draining.Err() != nil {
		return ErrShutdown
	}
	return ended
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

// serveAll handles streams until accept fails, and all handlers have returned.
// It takes a slot before it accepts a stream, so that one that nobody can
// handle yet counts against the peer's limit.
func serveAll[S any](ctx context.Context, c *Conn, k kind, accept func(context.Context) (S, error), handle func(S)) error {
	limit := min(c.kinds[k].stats.Limit, math.MaxInt32)
	if limit == 0 { // Wrap may have been told otherwise
		limit = math.MaxInt32
	}
	slots := make(chan struct{}, limit)
	var handlers sync.WaitGroup
	defer handlers.Wait()
	for {
		slots <- struct{}{} // the end of ctx, or of the connection, is noticed after: Serve waits for the handlers anyway
		s, err := acceptUntil(ctx, accept)
		if err != nil {
			return err
		}
		handlers.Go(func() {
			defer func() { <-slots }()
			handle(s)
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

// refuseAll refuses streams until accepting fails or ctx is done, but no more
// than most. It does so at a pace, since refusing gives the slot back, and a
// peer that opens streams in a loop would keep us busy: as many at once as the
// peer may have open, then one each refusalInterval.
func refuseAll[S receiver](ctx context.Context, c *Conn, k kind, most int64, accept func(context.Context) (S, error), code StreamErrorCode) error {
	pace := refusalPace{atOnce: min(c.kinds[k].stats.Limit, maxRefusedAtOnce)}
	if pace.atOnce == 0 { // GetConfigForClient may have said otherwise
		pace.atOnce = maxRefusedAtOnce
	}
	for range most {
		if err := pace.wait(ctx); err != nil {
			return err
		}
		raw, err := acceptUntil(ctx, accept)
		if err != nil {
			return err
		}
		refuse(raw, code)
		pace.refused(time.Now())
	}
	return nil
}

const (
	maxRefusedAtOnce = 1000
	refusalInterval  = 10 * time.Millisecond
)

// A refusalPace lets atOnce refusals pass, and one more for each
// refusalInterval that has gone by.
type refusalPace struct {
	atOnce int64
	rested time.Time // when atOnce may pass again
}

func (p *refusalPace) refused(now time.Time) {
	if p.rested.Before(now) {
		p.rested = now
	}
	p.rested = p.rested.Add(refusalInterval)
}

// wait waits until one more refusal may pass, or ctx is done.
func (p *refusalPace) wait(ctx context.Context) error {
	early := time.Until(p.rested.Add(-time.Duration(p.atOnce-1) * refusalInterval))
	if early <= 0 {
		return nil
	}
	timer := time.NewTimer(early)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ender is what runHandler and do need of a stream.
type ender interface {
	StreamID() StreamID
	Release()
	Reset(StreamErrorCode)
}

// runHandler runs a handler, and ends its stream as Handler says.
func runHandler[S ender](ctx context.Context, c *Conn, s S, finish func() error, code func(error) StreamErrorCode, f func(context.Context, S) error) {
	abort := c.guard.Codes.Panic // also if f calls runtime.Goexit
	finished := false
	defer func() {
		if v := recover(); v != nil {
			c.guard.log(slog.LevelError, recordKind{msg: "quiclife: handler panicked"}, "remote", c.RemoteAddr(), "stream", s.StreamID(),
				"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		}
		if finished {
			err := finish()
			s.Release()
			if errors.Is(err, ErrWriteCut) { // what else finish returns is the peer's doing
				c.guard.log(slog.LevelWarn, recordKind{msg: "quiclife: answer cut: the handler returned nil, but a Write was not complete"},
					"remote", c.RemoteAddr(), "stream", s.StreamID(), "error", err)
			}
		} else {
			s.Reset(abort)
		}
	}()
	err := f(ctx, s)
	if err == nil {
		finished = true
		return
	}
	abort = c.guard.Codes.HandlerError
	if code != nil {
		abort = code(err)
	}
}

// Do opens a stream, has f use it, and ends it. It waits for a slot as
// [Conn.OpenStreamSync] does. If f returns nil, the stream is closed, then
// released, and Do returns what Close returns: [ErrWriteCut], or the peer's
// [*StreamError] if it stopped reading, unless f has read the peer's answer to
// its end. If f returns an error, the stream is reset with Codes.HandlerError, and Do returns the error. If f
// panics, the stream is reset with Codes.Panic, and the panic goes on.
//
// When ctx is done, the stream is reset with Codes.HandlerError, so that what f is blocked in returns;
// the error of Do then matches ctx.Err() and that of f.
func (c *Conn) Do(ctx context.Context, f func(*Stream) error) error {
	return do(ctx, c, c.OpenStreamSync, (*Stream).finish, f)
}

// finish is Close, but a peer that stops reading once it has answered in full
// is no error.
func (s *Stream) finish() error {
	err := s.st.finish()
	if err != ErrWriteCut && s.Info().Receive == HalfFinished {
		return nil
	}
	return err
}

// DoUni is [Conn.Do] with a unidirectional stream.
func (c *Conn) DoUni(ctx context.Context, f func(*SendStream) error) error {
	return do(ctx, c, c.OpenUniStreamSync, func(s *SendStream) error { return s.st.finish() }, f)
}

func do[S ender](ctx context.Context, c *Conn, open func(context.Context) (S, error), finish func(S) error, f func(S) error) error {
	if ctx == nil {
		return errNilContext
	}
	s, err := open(ctx)
	if err != nil {
		return err
	}
	abort, finished := c.guard.Codes.Panic, false
	defer func() {
		if !finished {
			s.Reset(abort)
		}
	}()
	stop := context.AfterFunc(ctx, func() { s.Reset(c.guard.Codes.HandlerError) })
	defer stop()
	err = f(s)
	abort = c.guard.Codes.HandlerError
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	case err != nil:
		return err
	case !stop(): // the stream is being reset: what f wrote may not arrive
		return ctx.Err()
	}
	finished = true
	err = finish(s)
	s.Release()
	return err
}

// Serve accepts connections, and has h handle the streams of each. It blocks
// until ctx is done or the listener is closed, closes the listener, shuts down
// the connections side by side as [Conn.Shutdown] does, with code 0 and within
// Guard.DrainTimeout, and returns when all handlers have returned: ctx.Err() or
// [ErrServerClosed], never nil. What had to be cut is logged.
func (l *Listener) Serve(ctx context.Context, h Handler) error {
	if ctx == nil {
		return errNilContext
	}
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	var conns sync.WaitGroup
	serve := func(c *Conn) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.Serve(context.WithoutCancel(ctx), h)
		}()
		select {
		case <-stop.Done():
			c.drainFor(c.guard.drainTimeout())
		case <-done:
		}
		<-done
	}
	var err error
	for {
		var c *Conn
		if c, err = l.Accept(ctx); err != nil {
			break
		}
		conns.Go(func() { serve(c) })
	}
	cancel()
	l.Close()
	for { // those that nobody accepted; it does not block any more
		c, err := l.Accept(context.Background())
		if err != nil {
			break
		}
		conns.Go(func() { serve(c) })
	}
	conns.Wait()
	return err
}

// drainFor is Shutdown within a time.
func (c *Conn) drainFor(timeout time.Duration) {
	ctx := context.Background()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	if err := c.Shutdown(ctx, 0, ""); err != nil {
		c.guard.log(slog.LevelWarn, recordKind{msg: "quiclife: connection cut at shutdown"}, "remote", c.RemoteAddr(), "error", err)
	}
}
