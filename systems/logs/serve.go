package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/rig"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

// guarded is the service on quiclife.
type guarded struct {
	*collector
	tr      *quiclife.Transport
	conns   *lab.Conns
	running sync.WaitGroup
}

func newGuarded(socket net.PacketConn, col *collector, conns *lab.Conns, onLeak func(quiclife.Leak)) *guarded {
	guard := lab.Watched("collector", &quiclife.Guard{
		Codes:  quiclife.Codes{HandlerError: codeFailed, Panic: codePanic, Shutdown: codeShutdown},
		Logger: slog.New(slog.DiscardHandler), // otherwise the stack of each panic is logged
		OnLeak: onLeak,
	})
	return &guarded{collector: col, tr: &quiclife.Transport{Conn: socket, Guard: guard}, conns: conns}
}

func (g *guarded) listen() error {
	serverTLS, _ := rig.TLS()
	ln, err := g.tr.Listen(serverTLS, quicConf)
	if err != nil {
		return err
	}
	g.running.Go(func() {
		for {
			c, err := ln.Accept(context.Background())
			if err != nil {
				return // closed by Shutdown
			}
			g.conns.Add(c)
			g.running.Go(func() { g.serve(c) })
		}
	})
	return nil
}

// serve serves one producer. It returns when the producer is gone. When the
// service shuts down, it returns once the batches that have begun are finished.
func (g *guarded) serve(c *quiclife.Conn) {
	acks, err := c.OpenStreamSync(c.Context())
	if err != nil {
		return
	}
	defer acks.Release()
	s := &session{collector: g.collector, acks: acks}
	if err := s.greet(); err != nil {
		return
	}
	c.Serve(c.Context(), quiclife.Handlers{
		UniStream: func(_ context.Context, r *quiclife.ReceiveStream) error {
			// A producer finds a stream that it forgot only at its next garbage
			// collection. The collector must not wait that long.
			if err := r.SetReadDeadline(time.Now().Add(batchTime)); err != nil {
				return err
			}
			return s.handle(r)
		},
		Code: func(err error) quiclife.StreamErrorCode {
			if errors.Is(err, errMalformed) {
				return codeMalformed
			}
			return codeFailed
		},
	})
	finish(acks)
}

func (g *guarded) shutdown(ctx context.Context) error {
	err := g.tr.Guard.Shutdown(ctx)
	g.running.Wait()
	return err
}

func (g *guarded) close() error { return g.tr.Close() }

// plain is the service on quic-go, as one would write it.
type plain struct {
	*collector
	tr    *quic.Transport
	conns *lab.Conns

	ln      *quic.Listener
	stop    context.CancelFunc
	running sync.WaitGroup

	mu   sync.Mutex // guards the field below
	open []*quic.Conn
}

func (p *plain) listen() (err error) {
	serverTLS, _ := rig.TLS()
	if p.ln, err = p.tr.Listen(serverTLS, quicConf); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	p.running.Go(func() {
		for {
			c, err := p.ln.Accept(ctx)
			if err != nil {
				return
			}
			p.conns.Add(c)
			p.mu.Lock()
			p.open = append(p.open, c)
			p.mu.Unlock()
			p.running.Go(func() { p.serve(ctx, c) })
		}
	})
	return nil
}

func (p *plain) serve(ctx context.Context, c *quic.Conn) {
	acks, err := c.OpenStreamSync(ctx)
	if err != nil {
		return
	}
	s := &session{collector: p.collector, acks: acks}
	if err := s.greet(); err != nil {
		return
	}
	var handlers sync.WaitGroup
	for {
		r, err := c.AcceptUniStream(ctx)
		if err != nil {
			break
		}
		handlers.Go(func() {
			defer func() { recover() }() // one bad batch must not end the whole process
			s.handle(r)                  // careless: if it fails, nobody ends the stream
		})
	}
	handlers.Wait()
	finish(acks)
}

// shutdown waits until the sessions have ended or ctx is done. Then it closes
// all connections.
func (p *plain) shutdown(ctx context.Context) error {
	p.stop()
	err := p.ln.Close()
	ended := make(chan struct{})
	go func() {
		p.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		err = errors.Join(err, fmt.Errorf("there are handlers that do not end: %w", ctx.Err()))
	}
	p.mu.Lock()
	for _, c := range p.open {
		err = errors.Join(err, c.CloseWithError(0, ""))
	}
	p.open = nil
	p.mu.Unlock()
	<-ended
	return err
}

func (p *plain) close() error { return p.tr.Close() }
