package main

import (
	"context"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife/internal/rig"
)

// quicGo is quic-go, used correctly: both halves of each stream are ended.
type quicGo struct{}

func (quicGo) connect() (*link, error) {
	client, server, end, err := dialQUIC()
	if err != nil {
		return nil, err
	}
	return &link{quicGo{}, quicGoEnd(client), quicGoEnd(server), end}, nil
}

func quicGoEnd(c *quic.Conn) end {
	return end{
		open:   func(ctx context.Context) (stream, error) { return c.OpenStreamSync(ctx) },
		accept: func(ctx context.Context) (stream, error) { return c.AcceptStream(ctx) },
		held:   func() int { return rig.Held(c) },
	}
}

// dialQUIC connects two ends of quic-go, each with its own transport.
func dialQUIC() (client, server *quic.Conn, end func(), err error) {
	var ends []func()
	defer func() {
		if err != nil {
			endAll(ends)
		}
	}()
	var transports [2]*quic.Transport
	for i := range transports {
		socket, err := listenUDP()
		if err != nil {
			return nil, nil, nil, err
		}
		transports[i] = &quic.Transport{Conn: socket}
		ends = append(ends, func() { socket.Close() }, func() { transports[i].Close() })
	}
	serverTLS, clientTLS := rig.TLS()
	ln, err := transports[1].Listen(serverTLS, nil)
	if err != nil {
		return nil, nil, nil, err
	}
	ends = append(ends, func() { ln.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	client, err = transports[0].Dial(ctx, ln.Addr(), clientTLS, nil)
	if err != nil {
		return nil, nil, nil, err
	}
	ends = append(ends, func() { client.CloseWithError(0, "") })
	server, err = ln.Accept(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	ends = append(ends, func() { server.CloseWithError(0, "") })
	return client, server, func() { endAll(ends) }, nil
}

// connectTimeout is long enough for a busy machine.
const connectTimeout = 30 * time.Second

func (quicGo) flush(stream)    {}
func (quicGo) finish(s stream) { s.Close() }
func (quicGo) done(stream)     {}

func (quicGo) stopReading(s stream) bool {
	s.(*quic.Stream).CancelRead(0)
	return true
}

func (quicGo) abort(s stream) {
	s.(*quic.Stream).CancelWrite(0)
	s.(*quic.Stream).CancelRead(0)
}

func (quicGo) bind(ctx context.Context, s stream) (stop func() bool) {
	return deadlineAtEnd(ctx, s.(*quic.Stream).SetDeadline)
}

// deadlineAtEnd binds a context to a stream that knows only deadlines.
func deadlineAtEnd(ctx context.Context, set func(time.Time) error) (stop func() bool) {
	return context.AfterFunc(ctx, func() { set(time.Now()) })
}
