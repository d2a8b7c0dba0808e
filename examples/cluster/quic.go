package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/rig"
)

// What differs between quic-go and quiclife: how connections are made and
// ended, and whom the application asks how many of its streams are open.

// A stream is what the nodes need of *quic.Stream and of *quiclife.Stream.
type stream interface {
	io.ReadWriteCloser
	CancelRead(quic.StreamErrorCode)
	CancelWrite(quic.StreamErrorCode)
	SetDeadline(time.Time) error
}

// A conn is what they need of *quic.Conn and of *quiclife.Conn.
type conn[S stream, W io.WriteCloser, R io.Reader] interface {
	OpenStreamSync(context.Context) (S, error)
	AcceptStream(context.Context) (S, error)
	OpenUniStreamSync(context.Context) (W, error)
	AcceptUniStream(context.Context) (R, error)
	Context() context.Context
}

// A link is a connection of either library.
type link struct {
	conn         context.Context // done when it has ended
	openStream   func(context.Context) (stream, error)
	acceptStream func(context.Context) (stream, error)
	openGossip   func(context.Context) (io.WriteCloser, error)
	acceptGossip func(context.Context) (io.Reader, error)

	counter *atomic.Int64 // of the application's wrapper
	open    func() int64  // how many streams are open, as the application sees it
	held    func() int64  // how many quic-go keeps
}

func newLink[S stream, W io.WriteCloser, R io.Reader](c conn[S, W, R], raw *quic.Conn) link {
	var counter atomic.Int64
	wrap := func(s S) stream {
		counter.Add(1)
		return &counted{stream: s, counter: &counter}
	}
	return link{
		conn:         c.Context(),
		openStream:   convert(c.OpenStreamSync, wrap),
		acceptStream: convert(c.AcceptStream, wrap),
		openGossip:   convert(c.OpenUniStreamSync, func(s W) io.WriteCloser { return s }),
		acceptGossip: convert(c.AcceptUniStream, func(s R) io.Reader { return s }),
		counter:      &counter,
		open:         counter.Load,
		held:         func() int64 { return int64(rig.Held(raw)) },
	}
}

// convert makes next return an interface, as methods of either library do not.
func convert[S, T any](next func(context.Context) (S, error), to func(S) T) func(context.Context) (T, error) {
	return func(ctx context.Context) (none T, err error) {
		s, err := next(ctx)
		if err != nil {
			return none, err
		}
		return to(s), nil
	}
}

// A counted stream is the application's wrapper. To it a stream is closed once
// Close was called. With quiclife nobody asks it.
type counted struct {
	stream
	counter *atomic.Int64
	once    sync.Once
}

func (s *counted) Close() error {
	s.once.Do(func() { s.counter.Add(-1) })
	return s.stream.Close()
}

// A network is the library as one node uses it.
type network interface {
	listen() (addr string, accept func(context.Context) (link, error), err error)
	dial(ctx context.Context, addr string) (link, error)
	shutdown(context.Context) error
}

func (c *cluster) network() network {
	conf := &quic.Config{MaxIncomingStreams: c.conf.maxStreams}
	if c.Plain {
		return &plain{conf: conf, conns: make(map[*quic.Conn]struct{})}
	}
	return &guarded{conf: conf, guard: &quiclife.Guard{
		Codes:  quiclife.Codes{Shutdown: codeShutdown},
		Logger: slog.New(slog.DiscardHandler), // else a line for each leak
		OnLeak: c.onLeak,
	}}
}

// guarded is quiclife. A guard knows the connections of its node.
type guarded struct {
	conf  *quic.Config
	guard *quiclife.Guard
}

func (g *guarded) listen() (string, func(context.Context) (link, error), error) {
	server, _ := rig.TLS()
	ln, err := g.guard.ListenAddr("127.0.0.1:0", server, g.conf)
	if err != nil {
		return "", nil, err
	}
	return ln.Addr().String(), convert(ln.Accept, g.link), nil
}

func (g *guarded) dial(ctx context.Context, addr string) (link, error) {
	_, client := rig.TLS()
	return convert(func(ctx context.Context) (*quiclife.Conn, error) {
		return g.guard.DialAddr(ctx, addr, client, g.conf)
	}, g.link)(ctx)
}

func (g *guarded) link(c *quiclife.Conn) link {
	l := newLink(c, c.Unwrap())
	l.open = func() int64 { return c.Stats().Open() }
	return l
}

func (g *guarded) shutdown(ctx context.Context) error { return g.guard.Shutdown(ctx) }

// plain is quic-go, where the node keeps a list of its own.
type plain struct {
	conf *quic.Config
	ln   *quic.Listener // of a server

	mu    sync.Mutex // guards the field below
	conns map[*quic.Conn]struct{}
}

func (p *plain) listen() (string, func(context.Context) (link, error), error) {
	server, _ := rig.TLS()
	ln, err := quic.ListenAddr("127.0.0.1:0", server, p.conf)
	if err != nil {
		return "", nil, err
	}
	p.ln = ln
	return ln.Addr().String(), convert(ln.Accept, p.link), nil
}

func (p *plain) dial(ctx context.Context, addr string) (link, error) {
	_, client := rig.TLS()
	return convert(func(ctx context.Context) (*quic.Conn, error) {
		return quic.DialAddr(ctx, addr, client, p.conf)
	}, p.link)(ctx)
}

func (p *plain) link(c *quic.Conn) link {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = struct{}{}
	context.AfterFunc(c.Context(), func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, c)
	})
	return newLink(c, c)
}

func (p *plain) shutdown(context.Context) error {
	p.mu.Lock()
	var conns []*quic.Conn
	for c := range p.conns {
		conns = append(conns, c)
	}
	p.mu.Unlock()
	var errs []error
	for _, c := range conns {
		errs = append(errs, c.CloseWithError(0, "shutdown"))
	}
	if p.ln != nil {
		errs = append(errs, p.ln.Close())
	}
	return errors.Join(errs...)
}
