package main

import (
	"context"
	"crypto/tls"
	"time"

	xquic "golang.org/x/net/quic"

	"github.com/quiclife/quiclife/internal/rig"
)

// xnet is golang.org/x/net/quic. It sends when a packet is full, and at Flush and
// CloseWrite.
type xnet struct{}

func (xnet) connect() (_ *link, err error) {
	var ends []func()
	defer func() {
		if err != nil {
			endAll(ends)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	serverTLS, clientTLS := rig.TLS()
	listen := func(conf *tls.Config) (*xquic.Endpoint, *xquic.Config, error) {
		conf = conf.Clone()
		conf.MinVersion = tls.VersionTLS13
		quicConf := &xquic.Config{TLSConfig: conf}
		e, err := xquic.Listen("udp", "127.0.0.1:0", quicConf)
		if err == nil {
			ends = append(ends, func() { closeEndpoint(e) })
		}
		return e, quicConf, err
	}
	serverEndpoint, _, err := listen(serverTLS)
	if err != nil {
		return nil, err
	}
	clientEndpoint, clientConf, err := listen(clientTLS)
	if err != nil {
		return nil, err
	}
	client, err := clientEndpoint.Dial(ctx, "udp", serverEndpoint.LocalAddr().String(), clientConf)
	if err != nil {
		return nil, err
	}
	ends = append(ends, func() { client.Abort(nil) })
	server, err := serverEndpoint.Accept(ctx)
	if err != nil {
		return nil, err
	}
	ends = append(ends, func() { server.Abort(nil) })
	return &link{xnet{}, xnetEnd(client), xnetEnd(server), func() { endAll(ends) }}, nil
}

// closeEndpoint does not wait for acknowledgements of a peer that is gone.
func closeEndpoint(e *xquic.Endpoint) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	e.Close(ctx)
}

func xnetEnd(c *xquic.Conn) end {
	return end{
		open:   func(ctx context.Context) (stream, error) { return c.NewStream(ctx) },
		accept: func(ctx context.Context) (stream, error) { return c.AcceptStream(ctx) },
	}
}

func (xnet) flush(s stream)  { s.(*xquic.Stream).Flush() }
func (xnet) finish(s stream) { s.(*xquic.Stream).CloseWrite() }

// done closes the receive half. x/net/quic gives a stream's slot back only when
// both halves were closed, even after the io.EOF was read.
func (xnet) done(s stream) { s.(*xquic.Stream).CloseRead() }

func (xnet) stopReading(s stream) bool {
	s.(*xquic.Stream).CloseRead()
	return true
}

func (xnet) abort(s stream) {
	s.(*xquic.Stream).Reset(0)
	s.(*xquic.Stream).CloseRead()
}

func (xnet) bind(ctx context.Context, s stream) (stop func() bool) {
	s.(*xquic.Stream).SetReadContext(ctx)
	s.(*xquic.Stream).SetWriteContext(ctx)
	return func() bool { return ctx.Err() == nil }
}
