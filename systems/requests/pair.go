package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife/internal/rig"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

// A pair is the two ends of a connection over loopback.
type pair struct {
	tally
	leaks          *atomic.Int64 // leaks reported to Guard.OnLeak
	client, server lab.Conns     // one end of the connection each
	load           func(ctx context.Context, n int64)
	ended          atomic.Bool
	over           func() // called when the load is over
	end            func() error
}

// connect makes a connection and starts its server. Its arguments are all that
// differs between quic-go and quiclife.
func connect[L listener[SC], SC conn, CC clientConn[S], S stream](
	dial func(context.Context, string, *tls.Config, *quic.Config) (CC, error),
	listen func(string, *tls.Config, *quic.Config) (L, error),
	serve func(SC, *tally),
) (*pair, error) {
	serverTLS, clientTLS := rig.TLS()
	ln, err := listen("127.0.0.1:0", serverTLS, &quic.Config{MaxIncomingStreams: limit})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, err := dial(ctx, ln.Addr().String(), clientTLS, nil)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	server, err := ln.Accept(ctx)
	if err != nil {
		return nil, errors.Join(err, client.CloseWithError(0, ""), ln.Close())
	}
	p := new(pair)
	p.client.Add(client)
	p.server.Add(server)
	p.load = func(ctx context.Context, n int64) { load(ctx, client, n, &p.tally) }
	var serving sync.WaitGroup
	serving.Go(func() { serve(server, &p.tally) })
	p.end = func() error {
		p.ended.Store(true)
		err := errors.Join(client.CloseWithError(0, ""), server.CloseWithError(0, ""), ln.Close())
		serving.Wait()
		return err
	}
	return p, nil
}

type conn interface {
	Context() context.Context
	CloseWithError(quic.ApplicationErrorCode, string) error
}

type clientConn[S stream] interface {
	conn
	opener[S]
}

type listener[C any] interface {
	Accept(context.Context) (C, error)
	Addr() net.Addr
	Close() error
}
