package main

import (
	"context"
	"log/slog"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/rig"
)

// lifeLibrary is quiclife, with both ends wrapped.
type lifeLibrary struct{}

func (lifeLibrary) connect() (*link, error) {
	rawClient, rawServer, end, err := dialQUIC()
	if err != nil {
		return nil, err
	}
	guard := &quiclife.Guard{Logger: slog.New(slog.DiscardHandler)} // so that leaks are not logged
	return &link{lifeLibrary{}, lifeEnd(guard.Wrap(rawClient, nil)), lifeEnd(guard.Wrap(rawServer, nil)), end}, nil
}

func lifeEnd(c *quiclife.Conn) end {
	return end{
		open:   func(ctx context.Context) (stream, error) { return c.OpenStreamSync(ctx) },
		accept: func(ctx context.Context) (stream, error) { return c.AcceptStream(ctx) },
		held:   func() int { return rig.Held(c.Unwrap()) },
	}
}

func (lifeLibrary) flush(stream)    {}
func (lifeLibrary) finish(s stream) { s.Close() }
func (lifeLibrary) done(s stream)   { s.(*quiclife.Stream).Release() }

func (lifeLibrary) stopReading(s stream) bool {
	s.(*quiclife.Stream).CancelRead(0)
	return true
}

func (lifeLibrary) abort(s stream) { s.(*quiclife.Stream).Release() }

func (lifeLibrary) bind(ctx context.Context, s stream) (stop func() bool) {
	return s.(*quiclife.Stream).BindContext(ctx)
}
