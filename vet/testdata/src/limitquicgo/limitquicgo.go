package limitquicgo

import (
	"context"

	"github.com/quic-go/quic-go"
)

// quic-go returns the error of the context as it is.
func equal(ctx context.Context, c *quic.Conn) bool {
	s, err := c.OpenStreamSync(ctx)
	if err == context.DeadlineExceeded {
		return false
	}
	if err != nil {
		return false
	}
	s.CancelRead(0)
	s.Close()
	return true
}
