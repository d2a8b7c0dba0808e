package leakfix

import (
	"context"
	"errors"
	"io"

	quic "github.com/quiclife/quiclife"
)

var bad bool

func fixed(ctx context.Context, c *quic.Conn) ([]byte, error) {
	s, err := c.OpenStreamSync(ctx) // want `neither half is ended on the path that returns`
	if err != nil {
		return nil, err
	}
	if bad {
		return nil, errors.New("bad")
	}
	s.Write(nil)
	s.Close()
	return io.ReadAll(s)
}

func readFirst(ctx context.Context, c *quic.Conn) {
	str, err := c.AcceptStream(ctx) // want `its send half is not ended on the path that returns`
	if err != nil {
		return
	}
	if _, err := str.Read(nil); err != nil {
		return
	}
	str.Write(nil)
	str.Close()
}

// Release would cut what is written here.
func written(c *quic.Conn) {
	s, err := c.OpenStream() // want `neither half is ended on the path that returns`
	if err != nil {
		return
	}
	s.Write(nil)
}

// A goroutine has it as well.
func shared(c *quic.Conn) error {
	s, err := c.OpenStream() // want `neither half is ended on the path that returns`
	if err != nil {
		return err
	}
	if bad {
		return errors.New("bad")
	}
	keep(s)
	return nil
}

var kept *quic.Stream

func keep(s *quic.Stream) { kept = s }

// A defer would come too late.
func loop(ctx context.Context, c *quic.Conn) {
	for {
		s, err := c.AcceptStream(ctx) // want `neither half is ended on the path that goes on to the next stream`
		if err != nil {
			return
		}
		if bad {
			continue
		}
		s.Close()
	}
}

func noCheck(c *quic.Conn) {
	s, _ := c.OpenStream() // want `neither half is ended`
	s.StreamID()
}

func uni(c *quic.Conn) error {
	s, err := c.OpenUniStreamSync(context.Background()) // want `it is not ended on the path that returns`
	if err != nil {
		return err
	}
	// The comment stays where it is.
	if bad {
		return errors.New("bad")
	}
	s.Write(nil)
	return s.Close()
}

func released(c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	defer s.Release()
	s.Write(nil)
}

func bound(ctx context.Context, c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	s.BindContext(ctx)
	s.Write(nil)
}

func asNetConn(c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	defer s.NetConn().Close()
}
