package main

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

// guarded is the program on quiclife. Close of a NetConn ends both halves, and
// Serve ends each stream when its handler returns. With only the import line
// changed, a streamConn would still leak its stream, but quiclife would find,
// report and end it.
func guarded() library[*quiclife.Listener, *quiclife.Conn] {
	var leaks atomic.Int64
	guard := lab.Watched("proxy", &quiclife.Guard{
		OnLeak: func(quiclife.Leak) { leaks.Add(1) },
		Logger: slog.New(slog.DiscardHandler), // leaks are counted instead
	})
	return library[*quiclife.Listener, *quiclife.Conn]{
		listen: guard.ListenAddr,
		dial:   guard.DialAddr,
		open: func(ctx context.Context, c *quiclife.Conn) (net.Conn, error) {
			return c.DialContext(ctx, "", "")
		},
		serve: func(c *quiclife.Conn, handle func(net.Conn) error) {
			c.Serve(context.Background(), quiclife.Handlers{
				Stream: func(_ context.Context, s *quiclife.Stream) error { return handle(s.NetConn()) },
			})
		},
		shutdown: func(*quiclife.Listener, []*quiclife.Conn) error {
			ctx, cancel := context.WithTimeout(context.Background(), closeTime)
			defer cancel()
			return guard.Shutdown(ctx)
		},
		leaks: leaks.Load,
	}
}
