package limit

import (
	"context"
	"io"
	"net"

	quic "github.com/quiclife/quiclife"
)

func equal(ctx context.Context, c *quic.Conn) bool {
	s, err := c.OpenStreamSync(ctx)
	if err == context.DeadlineExceeded { // want `may be a \*LimitError that wraps what it is compared with: use errors.Is`
		return false
	}
	if err != nil {
		return false
	}
	s.Release()
	return true
}

func notEqual(ctx context.Context, c *quic.Conn) bool {
	s, err := c.OpenUniStreamSync(ctx)
	if err != nil && ctx.Err() != err { // want `use errors.Is`
		return false
	}
	if err != nil && !(err == context.Canceled) { // want `use errors.Is`
		return false
	}
	s.Release()
	return true
}

func switches(ctx context.Context, c *quic.Conn) string {
	s, err := c.OpenStreamSync(ctx)
	switch err {
	case nil:
	case context.Canceled, context.DeadlineExceeded: // want `use errors.Is` `use errors.Is`
		return "late"
	default:
		return "bad"
	}
	s.Release()
	return "good"
}

func merged(ctx context.Context, c *quic.Conn) bool {
	s, err := c.OpenStream()
	if err != nil {
		s, err = c.OpenStreamSync(ctx)
	}
	if err == context.Canceled { // want `use errors.Is`
		return false
	}
	if err == nil {
		s.Release()
	}
	return true
}

func asserted(ctx context.Context, c *quic.Conn) bool {
	s, err := c.OpenStream()
	if _, ok := err.(*quic.StreamLimitReachedError); ok { // want `use errors.As to find a \*quiclife.StreamLimitReachedError`
		return false
	}
	if e, ok := err.(net.Error); ok && e.Timeout() { // want `use errors.As to find a net.Error`
		return false
	}
	switch err.(type) {
	case nil:
		s.Release()
	case *quic.StreamLimitReachedError: // want `use errors.As`
	case *quic.LimitError, *quic.ApplicationError:
		return false
	}
	return true
}

// These are as they should be.
func right(ctx context.Context, c *quic.Conn) bool {
	s, err := c.OpenStreamSync(ctx)
	if err == quic.ErrShutdown || err == quic.Err0RTTRejected {
		return false
	}
	if err != nil {
		return false
	}
	defer s.Release()
	_, err = s.Read(nil)
	if err == io.EOF {
		return true
	}
	s, err = c.AcceptStream(ctx)
	if err == context.Canceled {
		return false
	}
	s.Release()
	return true
}

func silenced(ctx context.Context, c *quic.Conn) bool {
	s, err := c.OpenStreamSync(ctx)
	if err == context.Canceled { //quiclife:ended
		return false
	}
	s.Release()
	return true
}
