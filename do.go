package quiclife

import (
	"context"
	"fmt"
)

// Do opens a bidirectional stream, calls f with it, and ends the stream. It
// blocks as [Conn.OpenStreamSync] does until it has a slot, with the same
// errors, and then until f returns.
//
// If f returns nil, the stream is closed, then released. Do returns the error
// of Close: [ErrWriteCut], or the peer's [*StreamError] if the peer stopped
// reading. If f has read up to the peer's FIN, it is no error that the peer
// stopped reading. If f returns an error, the stream is reset with
// Codes.HandlerError, and Do returns the error. To send another code, f calls
// [Stream.Reset] before it returns. If f panics, the stream is reset with
// Codes.Panic, and the panic goes on.
//
// When ctx is done, the stream is reset, also with Codes.HandlerError, so that
// blocked calls on the stream return. The error of Do then matches ctx.Err()
// and the error of f.
func (c *Conn) Do(ctx context.Context, f func(*Stream) error) error {
	return do(ctx, c, c.OpenStreamSync, (*Stream).finish, f)
}

// finish is Close, but it is no error if the peer stopped reading and has
// answered in full.
func (s *Stream) finish() error {
	err := s.st.finish()
	if err != ErrWriteCut && !isCanceled(err) && s.Info().Receive == HalfFinished {
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
	case !stop(): // the stream is being reset, so what f wrote may not arrive
		return ctx.Err()
	}
	finished = true
	err = finish(s)
	s.Release()
	return err
}
