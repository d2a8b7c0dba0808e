package interfaces

import (
	"context"
	"errors"
	"io"

	"github.com/quic-go/quic-go"
)

func leaks(ctx context.Context, c quic.Connection, bad bool) error {
	s, err := c.OpenStreamSync(ctx) // want `neither half is ended on the path that returns`
	if err != nil {
		return err
	}
	if bad {
		return errors.New("bad")
	}
	return s.Close()
}

func early(c quic.EarlyConnection) error {
	s, err := c.OpenStream() // want `its send half is not ended on the path that returns`
	if err != nil {
		return err
	}
	_, err = io.ReadAll(s)
	return err
}

func ends(c quic.Connection) error {
	s, err := c.OpenUniStream()
	if err != nil {
		return err
	}
	return finish(s)
}

func finish(s quic.SendStream) error { return s.Close() }

func asReader(ctx context.Context, c quic.Connection) {
	s, err := c.AcceptStream(ctx) // want `its send half is not ended on the path that returns`
	if err != nil {
		return
	}
	read(s)
}

func read(s quic.ReceiveStream) { s.CancelRead(0) }

func handedOn(ctx context.Context, c quic.Connection, streams chan quic.Stream) {
	s, err := c.AcceptStream(ctx)
	if err != nil {
		return
	}
	streams <- s
}
