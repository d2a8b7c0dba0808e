package main

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/quic-go/quic-go"
)

// quicgo is the program on quic-go, as people often write it.
func quicgo() library[*quic.Listener, *quic.Conn] {
	return library[*quic.Listener, *quic.Conn]{
		listen: quic.ListenAddr,
		dial:   quic.DialAddr,
		open: func(ctx context.Context, c *quic.Conn) (net.Conn, error) {
			s, err := c.OpenStreamSync(ctx)
			if err != nil {
				return nil, err
			}
			return &streamConn{s, c}, nil
		},
		serve: func(c *quic.Conn, handle func(net.Conn) error) {
			var handlers sync.WaitGroup
			defer handlers.Wait()
			for {
				s, err := c.AcceptStream(context.Background())
				if err != nil {
					return // the connection has ended
				}
				handlers.Go(func() {
					conn := &streamConn{s, c}
					defer conn.Close()
					handle(conn)
				})
			}
		},
		shutdown: func(ln *quic.Listener, conns []*quic.Conn) error {
			var errs []error
			for _, c := range conns {
				errs = append(errs, c.CloseWithError(0, ""))
			}
			return errors.Join(append(errs, ln.Close())...)
		},
		leaks: func() int64 { return 0 },
	}
}

// A streamConn looks like a net.Conn, but its Close is the stream's Close, which
// ends the send half only.
type streamConn struct {
	*quic.Stream
	conn *quic.Conn
}

func (c *streamConn) LocalAddr() net.Addr  { return c.conn.LocalAddr() }
func (c *streamConn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }
func (c *streamConn) CloseWrite() error    { return c.Stream.Close() }
