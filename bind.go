package quiclife

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"github.com/quic-go/quic-go"
)

// Streams that end with a context.

// BindContext has the stream reset with Codes.Canceled when ctx is done, as
// [Stream.Reset] does it: both halves are aborted, also data that was closed
// and not yet delivered, and what is blocked returns. From then on the errors of
// Read, Peek, Write, WriteWithLimit, TryWriteAll and Close match, with
// [errors.Is] and [errors.As], [context.Cause](ctx), ctx.Err() and the
// [*StreamError]. A half that had ended before keeps the error that it ended
// with: a Read that has reached io.EOF goes on to return it.
//
//	stop := str.BindContext(ctx)
//	defer stop()
//
// If ctx is done already, the stream is reset before BindContext returns. It
// does not block. Once both halves have ended, or with Detach, the stream is
// bound to nothing any more: what was written and closed arrives, and ctx keeps
// nothing of it. To bind a stream that has ended has no effect.
//
// stop unbinds the stream. It reports whether that prevented the reset, as the
// one of [context.AfterFunc] does: it returns false if the stream has been
// reset, has ended, or was unbound before. It does not wait for a reset that is
// under way.
//
// A stream can be bound to several contexts; the first that is done resets it.
// The binding does not keep the stream from being found dropped. A nil ctx
// panics.
func (s *Stream) BindContext(ctx context.Context) (stop func() bool) {
	stop = s.st.bind(ctx)
	runtime.KeepAlive(s)
	return stop
}

// BindContext is [Stream.BindContext]. The stream has ended with Close.
func (s *SendStream) BindContext(ctx context.Context) (stop func() bool) {
	stop = s.st.bind(ctx)
	runtime.KeepAlive(s)
	return stop
}

// BindContext is [Stream.BindContext].
func (s *ReceiveStream) BindContext(ctx context.Context) (stop func() bool) {
	stop = s.st.bind(ctx)
	runtime.KeepAlive(s)
	return stop
}

// A binding is a context that a stream is bound to. The context holds it, so it
// refers to the state and not to the program's handle.
type binding struct {
	st     *streamState
	ctx    context.Context
	forget func() bool // has ctx forget it; st.mu guards it, nil if that is not known yet
}

// bind is BindContext.
func (st *streamState) bind(ctx context.Context) (stop func() bool) {
	if ctx == nil {
		panic("quiclife: BindContext with a nil context")
	}
	b := &binding{st: st, ctx: ctx}
	if !b.add() {
		return func() bool { return false }
	}
	if ctx.Err() != nil {
		b.done()
	} else {
		b.forgetWith(context.AfterFunc(ctx, b.done))
	}
	return b.remove
}

// add binds the stream, unless it has ended or was given away.
func (b *binding) add() bool {
	st := b.st
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.sendHalf != HalfOpen && st.receiveHalf != HalfOpen {
		return false
	}
	x := st.extraLocked()
	x.bindings = append(x.bindings, b)
	return true
}

// forgetWith sets how ctx forgets b, which may be right now.
func (b *binding) forgetWith(forget func() bool) {
	b.st.mu.Lock()
	bound := slices.Contains(b.st.extra.bindings, b)
	b.forget = forget
	b.st.mu.Unlock()
	if !bound {
		forget()
	}
}

// remove unbinds the stream. It reports whether it was bound.
func (b *binding) remove() bool {
	b.st.mu.Lock()
	x := b.st.extra
	i := slices.Index(x.bindings, b)
	if i >= 0 {
		x.bindings = slices.Delete(x.bindings, i, i+1)
	}
	b.st.mu.Unlock()
	if i < 0 {
		return false
	}
	letGo([]*binding{b})
	return true
}

// unbindLocked is called when the stream has ended. The contexts are yet to be
// told, with letGo.
func (st *streamState) unbindLocked() []*binding {
	if st.extra == nil {
		return nil
	}
	bound := st.extra.bindings
	st.extra.bindings = nil
	return bound
}

// letGo has the contexts forget bindings that were removed. No lock is held: a
// context may be the program's own.
func letGo(bound []*binding) {
	for _, b := range bound {
		b.st.mu.Lock()
		forget := b.forget
		b.st.mu.Unlock()
		if forget != nil {
			forget()
		}
	}
}

// done resets the stream, now that ctx is done.
func (b *binding) done() {
	st := b.st
	why := &canceled{err: b.ctx.Err(), cause: context.Cause(b.ctx)}
	st.mu.Lock()
	if !slices.Contains(st.extra.bindings, b) { // stopped, or ended, just now
		st.mu.Unlock()
		return
	}
	bound := st.unbindLocked()
	closed := (st.sendHalf == HalfFinished || st.closing) && !st.boundary // which is taken back
	send, receive := st.claimLocked(true, true)
	reset := send || receive // else somebody else is just ending it
	if reset {
		why.send, why.receive = send || closed, receive
		st.extra.canceled = why
	}
	st.mu.Unlock()
	letGo(bound)
	if reset {
		st.abort(st.conn.guard.Codes.Canceled, send, receive)
	}
}

// A canceled says why a bound context has reset a stream.
type canceled struct {
	err, cause    error // of the context
	send, receive bool  // the halves that it has reset
}

// wrap has err, which a call returned, say why.
func (c *canceled) wrap(err error) error { return &canceledError{c, err} }

// canceledErr is what quic-go returns after the reset.
func (st *streamState) canceledErr() error {
	return &quic.StreamError{StreamID: st.id(), ErrorCode: st.conn.guard.Codes.Canceled}
}

// receiveCanceled has err, which has ended the receive half, say so if a
// context has reset it.
func (st *streamState) receiveCanceled(err error) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if x := st.extra; x == nil || x.canceled == nil || !x.canceled.receive {
		return err
	}
	return st.extra.canceled.wrap(err)
}

// sendCanceled is receiveCanceled for the send half. The reset may not have
// reached quic-go yet.
func (st *streamState) sendCanceled(err error) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if x := st.extra; x == nil || x.canceled == nil || !x.canceled.send {
		return err
	}
	if err == quic.ErrStreamClosed {
		err = st.canceledErr()
	}
	return st.extra.canceled.wrap(err)
}

// A canceledError is the error of a call on a stream that a bound context has
// reset.
type canceledError struct {
	why *canceled
	err error // what the call would return otherwise
}

func (e *canceledError) Error() string {
	return fmt.Sprintf("quiclife: the stream's context is done: %v: %v", e.why.cause, e.err)
}

// Unwrap returns the context's cause, its error and the stream's.
func (e *canceledError) Unwrap() []error { return []error{e.why.cause, e.why.err, e.err} }

func isCanceled(err error) bool {
	_, ok := err.(*canceledError)
	return ok
}
