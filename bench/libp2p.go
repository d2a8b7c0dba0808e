package main

import (
	"context"
	"crypto/rand"
	"errors"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife/internal/rig"
)

// libp2p is the QUIC transport of go-libp2p without a host around it, as in its
// own example program: streams have no resource manager and no protocol
// negotiation.
type libp2p struct{}

func (libp2p) connect() (_ *link, err error) {
	var ends []func()
	defer func() {
		if err != nil {
			endAll(ends)
		}
	}()
	var transports [2]transport.Transport
	var server peer.ID
	for i := range transports {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			return nil, err
		}
		if server, err = peer.IDFromPrivateKey(key); err != nil {
			return nil, err
		}
		manager, err := quicreuse.NewConnManager(quic.StatelessResetKey{}, quic.TokenGeneratorKey{})
		if err != nil {
			return nil, err
		}
		ends = append(ends, func() { manager.Close() })
		if transports[i], err = libp2pquic.NewTransport(key, manager, nil, nil, nil); err != nil {
			return nil, err
		}
	}
	addr, err := multiaddr.NewMultiaddr("/ip4/127.0.0.1/udp/0/quic-v1")
	if err != nil {
		return nil, err
	}
	ln, err := transports[1].Listen(addr)
	if err != nil {
		return nil, err
	}
	ends = append(ends, func() { ln.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	c, err := transports[0].Dial(ctx, ln.Multiaddr(), server)
	if err != nil {
		return nil, err
	}
	ends = append(ends, func() { c.Close() })
	s, err := ln.Accept()
	if err != nil {
		return nil, err
	}
	ends = append(ends, func() { s.Close() })
	clientEnd, err := libp2pEnd(c)
	if err != nil {
		return nil, err
	}
	serverEnd, err := libp2pEnd(s)
	if err != nil {
		return nil, err
	}
	return &link{libp2p{}, clientEnd, serverEnd, func() { endAll(ends) }}, nil
}

func libp2pEnd(c transport.CapableConn) (end, error) {
	var raw *quic.Conn
	if as, ok := c.(interface{ As(any) bool }); !ok || !as.As(&raw) {
		return end{}, errors.New("libp2p's connection does not give access to its *quic.Conn")
	}
	return end{
		open:   func(ctx context.Context) (stream, error) { return c.OpenStream(ctx) },
		accept: func(context.Context) (stream, error) { return c.AcceptStream() },
		held:   func() int { return rig.Held(raw) },
	}, nil
}

func (libp2p) flush(stream)    {}
func (libp2p) finish(s stream) { s.(network.MuxedStream).CloseWrite() }
func (libp2p) done(s stream)   { s.Close() }

func (libp2p) stopReading(s stream) bool {
	s.(network.MuxedStream).CloseRead()
	return true
}

func (libp2p) abort(s stream) { s.(network.MuxedStream).Reset() }

func (libp2p) bind(ctx context.Context, s stream) (stop func() bool) {
	return deadlineAtEnd(ctx, s.(network.MuxedStream).SetDeadline)
}
