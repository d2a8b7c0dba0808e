package leak

import (
	"context"

	"github.com/quic-go/quic-go"
)

func firstOfTwo(ctx context.Context, c *quic.Conn) ([]byte, error) {
	s, err := c.OpenStreamSync(ctx) // want `on the path that returns at line 16$`
	if err != nil {
		return nil, err
	}
	msg, err := pack()
	if err != nil {
		return nil, err
	}
	if len(msg) == 0 {
		return nil, nil
	}
	return msg, s.Close()
}

func fallsOffTheEnd(ctx context.Context, c *quic.Conn) {
	if s, err := c.OpenStreamSync(ctx); err == nil { // want `on the path that returns at line 28$`
		s.Read(nil)
	}
}
