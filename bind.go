package quiclife

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"github.com/quic-go/quic-go"
)

// Streams that end with a context.

// BindContext binds the stream to ctx: when ctx is done, the stream is reset
// with Codes.Canceled, as [Stream.Reset] does it. Both halves are aborted, even
// if the stream was closed but its data was not delivered yet, and blocked
// calls return. From then on the errors of Read, Peek, Write, WriteWithLimit,
// TryWriteAll and Close match [context.Cause](ctx), ctx.Err() and a
// [*StreamError], with [errors.Is] and [errors.As]. A half that had ended
// before keeps its error: a Read that has reached io.EOF still returns io.EOF.
//
//	stop := str.BindContext(ctx)
//	defer stop()
//
// BindContext does not block. If ctx is already done, the stream is reset
// before BindContext returns. Once both halves have ended, or after Detach, the
// stream is no longer bound: data that was written and closed arrives, and ctx
// no longer refers to the stream. Binding a stream that has ended has no
// effect.
//
// stop unbinds the stream. Like the stop function of [context.AfterFunc], it
// reports whether it prevented the reset. It returns false if the stream has
// been reset, has ended, or was unbound before. It does not wait for a reset in
// progress.
//
// A stream can be bound to several contexts. The first that is done resets it.
// A bound stream can still be found dropped. BindContext panics if ctx is nil.
func (s *Stream) BindContext(ctx context.Context) (stop func() bool) {
	stop = s.st.bind(ctx)
	runtime.KeepAlive(s)
	return stop
}

// BindContext is [Stream.BindContext]. Close ends the stream, and with it the
// binding.
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

// A binding is one context that a stream is bound to. The context refers to it,
// so it refers to the streamState and not to the program's handle.
type binding struct {
	st     *streamState
	ctx    context.Context
	forget func() bool // stops the AfterFunc of ctx, or nil if that was not set yet; guarded by st.mu
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

// add binds the stream, unless it has ended or was detached.
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

// forgetWith sets b.forget. If b is no longer bound, it calls forget at once.
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

// unbindLocked removes all bindings when the stream has ended. The caller must
// pass them to letGo after unlocking.
func (st *streamState) unbindLocked() []*binding {
	if st.extra == nil {
		return nil
	}
	bound := st.extra.bindings
	st.extra.bindings = nil
	return bound
}

// letGo makes the contexts forget bindings that were removed. The caller holds
// no lock, since a context may be the program's own.
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
	if !slices.Contains(st.extra.bindings, b) { // unbound, or ended, just now
		st.mu.Unlock()
		return
	}
	bound := st.unbindLocked()
	closed := (st.sendHalf == HalfFinished || st.closing) && !st.boundary // the reset takes it back
	send, receive := st.claimLocked(true, true)
	reset := send || receive // else another call is just ending it
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

// A canceled says why a stream was reset by a context that it was bound to.
type canceled struct {
	err, cause    error // of the context
	send, receive bool  // the halves that it has reset
}

// wrap adds the reason to err, the error of a call.
func (c *canceled) wrap(err error) error { return &canceledError{c, err} }

// canceledErr is the error that quic-go returns after the reset.
func (st *streamState) canceledErr() error {
	return &quic.StreamError{StreamID: st.id(), ErrorCode: st.conn.guard.Codes.Canceled}
}

// receiveCanceled adds the reason to err, which has ended the receive half, if
// a bound context has reset it.
func (st *streamState) receiveCanceled(err error) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if x := st.extra; x == nil || x.canceled == nil || !x.canceled.receive {
		return err
	}
	return st.extra.canceled.wrap(err)
}

// sendCanceled is receiveCanceled for the send half. If err is ErrStreamClosed,
// the reset has not reached quic-go yet.
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

// A canceledError is the error of a call on a stream that was reset by a
// context that it was bound to.
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
