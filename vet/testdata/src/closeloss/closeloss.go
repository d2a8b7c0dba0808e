package closeloss

import (
	"context"
	"io"
	"log"
	"time"

	"github.com/quic-go/quic-go"
)

func atOnce(ctx context.Context) error {
	c, err := quic.DialAddr(ctx, "")
	if err != nil {
		return err
	}
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	s.Write(nil)
	if err := s.Close(); err != nil {
		log.Println(err)
	}
	return c.CloseWithError(0, "") // want `this drops what was written to the stream of line 17, which was closed just before`
}

func deferred(ctx context.Context) error {
	c, err := quic.DialAddr(ctx, "")
	if err != nil {
		return err
	}
	defer c.CloseWithError(0, "") // want `this drops what was written`
	s, err := c.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.Write(nil)
	return err
}

func closedThenDeferred(ctx context.Context, c *quic.Conn) error {
	defer c.CloseWithError(0, "") // want `this drops what was written`
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	io.WriteString(s, "bye")
	return s.Close()
}

type client struct{ conn *quic.Conn }

func (c *client) bye() {
	s, err := c.conn.OpenStream()
	if err != nil {
		return
	}
	s.Write(nil)
	s.Close()
	c.conn.CloseWithError(0, "") // want `this drops what was written`
}

// Here the peer has had its say, or there is nothing to lose.

func answered(c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	s.Write(nil)
	s.Close()
	io.ReadAll(s)
	c.CloseWithError(0, "")
}

func answeredBefore(c *quic.Conn) error {
	defer c.CloseWithError(0, "")
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	defer s.Close()
	s.Write(nil)
	_, err = io.ReadFull(s, nil)
	return err
}

func writeFailed(c *quic.Conn) error {
	defer c.CloseWithError(0, "")
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Write(nil); err != nil {
		return err
	}
	_, err = io.ReadFull(s, nil)
	return err
}

func closeFailed(c *quic.Conn) error {
	defer c.CloseWithError(0, "")
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	s.Write(nil)
	if err := s.Close(); err != nil {
		return err
	}
	_, err = io.ReadAll(s)
	return err
}

func waited(ctx context.Context, c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	s.Write(nil)
	s.Close()
	<-ctx.Done()
	c.CloseWithError(0, "")
}

func slept(c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	s.Write(nil)
	s.Close()
	time.Sleep(time.Second)
	c.CloseWithError(0, "")
}

func nothingWritten(c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	s.Close()
	c.CloseWithError(0, "")
}

func another(c, d *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	s.Write(nil)
	s.Close()
	d.CloseWithError(0, "")
}

func silenced(c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	s.Write(nil)
	s.Close()
	c.CloseWithError(0, "") //quiclife:ended
}
