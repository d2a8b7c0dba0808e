package main

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/rig"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

// This file has all that differs between quic-go and quiclife: the functions that
// make connections, the count of open streams, and how a node shuts down.

// codeShutdown is the code with which quiclife refuses streams while it shuts
// down.
const codeShutdown = quic.StreamErrorCode(1)

// A network is quic-go or quiclife, set up for one node.
type network struct {
	listen   func() (*listener, error)
	dial     func(ctx context.Context, addr string) (link, error)
	shutdown func(context.Context) error // if nil, the node has to close its connections itself
}

func newNetwork(c *cluster, name string) network {
	conf := &quic.Config{MaxIncomingStreams: c.conf.maxStreams}
	if c.Plain {
		return using(conf, quic.ListenAddr, quic.DialAddr, func(raw *quic.Conn) link { return newLink(raw, raw) })
	}
	guard := lab.Watched(name, &quiclife.Guard{
		Codes:  quiclife.Codes{Shutdown: codeShutdown},
		Logger: slog.New(slog.DiscardHandler), // otherwise each leak is logged
		OnLeak: c.onLeak,
	})
	n := using(conf, guard.ListenAddr, guard.DialAddr, func(c *quiclife.Conn) link {
		l := newLink(c, c.Unwrap())
		l.open = func() int64 { return c.Stats().Open() }
		return l
	})
	n.shutdown = guard.Shutdown
	return n
}

type listener struct {
	addr   string
	accept func(context.Context) (link, error)
	close  func() error
}

func using[L interface {
	Accept(context.Context) (C, error)
	Addr() net.Addr
	Close() error
}, C any](
	conf *quic.Config,
	listen func(string, *tls.Config, *quic.Config) (L, error),
	dial func(context.Context, string, *tls.Config, *quic.Config) (C, error),
	toLink func(C) link,
) network {
	server, client := rig.TLS()
	return network{
		listen: func() (*listener, error) {
			ln, err := listen("127.0.0.1:0", server, conf)
			if err != nil {
				return nil, err
			}
			return &listener{ln.Addr().String(), convert(ln.Accept, toLink), ln.Close}, nil
		},
		dial: func(ctx context.Context, addr string) (link, error) {
			return convert(func(ctx context.Context) (C, error) { return dial(ctx, addr, client, conf) }, toLink)(ctx)
		},
	}
}

// convert wraps next so that it returns a type that is the same for both
// libraries.
func convert[S, T any](next func(context.Context) (S, error), to func(S) T) func(context.Context) (T, error) {
	return func(ctx context.Context) (none T, err error) {
		s, err := next(ctx)
		if err != nil {
			return none, err
		}
		return to(s), nil
	}
}

// A stream is a *quic.Stream or a *quiclife.Stream.
type stream interface {
	io.ReadWriteCloser
	CancelRead(quic.StreamErrorCode)
	CancelWrite(quic.StreamErrorCode)
	SetDeadline(time.Time) error
}

// A link is what the nodes need of a connection.
type link struct {
	conn         context.Context // done when the connection has ended
	close        func(quic.ApplicationErrorCode, string) error
	openStream   func(context.Context) (stream, error)
	acceptStream func(context.Context) (stream, error)
	openGossip   func(context.Context) (io.WriteCloser, error)
	acceptGossip func(context.Context) (io.Reader, error)

	counter *atomic.Int64 // open streams, counted by the application's wrapper
	open    func() int64  // how many streams the application counts as open
	held    func() int64  // how many streams quic-go keeps
}

func newLink[S stream, W io.WriteCloser, R io.Reader](c interface {
	OpenStreamSync(context.Context) (S, error)
	AcceptStream(context.Context) (S, error)
	OpenUniStreamSync(context.Context) (W, error)
	AcceptUniStream(context.Context) (R, error)
	CloseWithError(quic.ApplicationErrorCode, string) error
	Context() context.Context
}, raw *quic.Conn) link {
	var counter atomic.Int64
	wrap := func(s S) stream {
		counter.Add(1)
		return &counted{stream: s, counter: &counter}
	}
	return link{
		conn:         c.Context(),
		close:        c.CloseWithError,
		openStream:   convert(c.OpenStreamSync, wrap),
		acceptStream: convert(c.AcceptStream, wrap),
		openGossip:   convert(c.OpenUniStreamSync, func(s W) io.WriteCloser { return s }),
		acceptGossip: convert(c.AcceptUniStream, func(s R) io.Reader { return s }),
		counter:      &counter,
		open:         counter.Load,
		held:         func() int64 { return int64(rig.Held(raw)) },
	}
}

// A counted stream is the application's wrapper. It counts a stream as closed
// after a call of Close. On quiclife nobody uses this count.
type counted struct {
	stream
	counter *atomic.Int64
	once    sync.Once
}

func (s *counted) Close() error {
	s.once.Do(func() { s.counter.Add(-1) })
	return s.stream.Close()
}
