package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/quiclife/quiclife"

	"github.com/quiclife/quiclife/internal/rig"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

// A guardedNet is the network on quiclife. It has one Guard for the server, with
// limits, and another for the callers, so that the limits do not apply to them.
type guardedNet struct {
	server, callers *quiclife.Guard
	transports      []*quiclife.Transport // the first is the server's
	ln              *quiclife.Listener
	handler         quiclife.Handlers
	conns           *lab.Conns
	running         sync.WaitGroup
	idle, other     atomic.Int64 // streams that quiclife ended: idle ones, and all others
}

func startGuarded(sz size, conns *lab.Conns) (network, error) {
	serverTLS, _ := rig.TLS()
	g := &guardedNet{conns: conns}
	quiet := slog.New(slog.DiscardHandler) // panics and leaks are counted instead
	g.server = lab.Watched("server", &quiclife.Guard{
		MaxConns:    int64(sz.conns),
		MaxHeap:     sz.maxHeap(),
		IdleTimeout: sz.idleTimeout,
		Codes:       quiclife.Codes{Idle: codeIdle, Panic: codePanic, HandlerError: codeFailed},
		Logger:      quiet,
		OnLeak:      g.count,
	})
	g.callers = lab.Watched("callers", &quiclife.Guard{Logger: quiet, OnLeak: g.count})
	service := &service{maxHeap: sz.maxHeap()}
	g.handler = quiclife.Handlers{
		Stream: func(_ context.Context, s *quiclife.Stream) error { return service.handle(s) },
	}
	guard := g.server
	for range 1 + sockets {
		udp, err := listenUDP()
		if err != nil {
			return nil, errors.Join(err, g.stop(context.Background()))
		}
		g.transports = append(g.transports, &quiclife.Transport{Conn: udp, Guard: guard})
		guard = g.callers
	}
	var err error
	if g.ln, err = g.transports[0].Listen(serverTLS, quicConfig); err != nil {
		return nil, errors.Join(err, g.stop(context.Background()))
	}
	g.running.Go(g.serve)
	return g, nil
}

func (g *guardedNet) count(l quiclife.Leak) {
	if l.Reason == quiclife.LeakIdle {
		g.idle.Add(1)
	} else {
		g.other.Add(1)
	}
}

// serve does what Listener.Serve does. In addition it records the connections,
// for the table.
func (g *guardedNet) serve() {
	for {
		c, err := g.ln.Accept(context.Background())
		if err != nil {
			return // the server is stopping
		}
		g.conns.Add(c)
		g.running.Go(func() { c.Serve(context.Background(), g.handler) }) // returns when the connection ends
	}
}

func (g *guardedNet) dial(ctx context.Context, socket int) (conn, error) {
	_, clientTLS := rig.TLS()
	c, err := g.transports[1+socket].Dial(ctx, g.ln.Addr(), clientTLS, quicConfig)
	if err != nil {
		return nil, err
	}
	g.conns.Add(c)
	return guardedConn{c}, nil
}

func (g *guardedNet) leaks() (idle, other int64) { return g.idle.Load(), g.other.Load() }

func (g *guardedNet) stop(ctx context.Context) error {
	errs := []error{g.server.Shutdown(ctx)}
	for _, t := range g.transports {
		errs = append(errs, t.Close(), t.Conn.Close())
	}
	g.running.Wait()
	return errors.Join(errs...)
}

type guardedConn struct{ *quiclife.Conn }

func (c guardedConn) call(ctx context.Context, f func(stream) error) error {
	return c.Do(ctx, func(s *quiclife.Stream) error { return f(s) })
}

func (c guardedConn) leave() error { return c.CloseWithError(0, "") }
