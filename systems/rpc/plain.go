package main

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife/internal/rig"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

// A plainNet is the network on quic-go. It has only the limits of quic.Config.
// Its streams are closed when their call ends, as if they were TCP connections.
type plainNet struct {
	transports []*quic.Transport // the first is the server's
	ln         *quic.Listener
	service    service
	conns      *lab.Conns
	running    sync.WaitGroup
}

func startPlain(sz size, conns *lab.Conns) (network, error) {
	serverTLS, _ := rig.TLS()
	p := &plainNet{conns: conns, service: service{maxHeap: sz.maxHeap()}}
	for range 1 + sockets {
		udp, err := listenUDP()
		if err != nil {
			return nil, errors.Join(err, p.stop(context.Background()))
		}
		p.transports = append(p.transports, &quic.Transport{Conn: udp})
	}
	var err error
	if p.ln, err = p.transports[0].Listen(serverTLS, quicConfig); err != nil {
		return nil, errors.Join(err, p.stop(context.Background()))
	}
	p.running.Go(p.serve)
	return p, nil
}

func (p *plainNet) serve() {
	for {
		c, err := p.ln.Accept(context.Background())
		if err != nil {
			return // the server is stopping
		}
		p.conns.Add(c)
		p.running.Go(func() { p.serveConn(c) })
	}
}

func (p *plainNet) serveConn(c *quic.Conn) {
	for {
		s, err := c.AcceptStream(context.Background())
		if err != nil {
			return // the connection has ended
		}
		p.running.Go(func() {
			// Careless: Close ends one half only, and makes a failure look like
			// an empty answer.
			defer s.Close()
			defer func() { _ = recover() }() // a real server would log the panic
			_ = p.service.handle(s)          // a real server would log the error
		})
	}
}

func (p *plainNet) dial(ctx context.Context, socket int) (conn, error) {
	_, clientTLS := rig.TLS()
	c, err := p.transports[1+socket].Dial(ctx, p.ln.Addr(), clientTLS, quicConfig)
	if err != nil {
		return nil, err
	}
	p.conns.Add(c)
	return plainConn{c}, nil
}

func (p *plainNet) leaks() (idle, other int64) { return 0, 0 } // quic-go does not report leaks

func (p *plainNet) stop(context.Context) error {
	var errs []error
	for _, t := range p.transports {
		errs = append(errs, t.Close(), t.Conn.Close())
	}
	p.running.Wait()
	return errors.Join(errs...)
}

type plainConn struct{ *quic.Conn }

func (c plainConn) call(ctx context.Context, f func(stream) error) error {
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	defer s.Close() // careless: if the caller gives up, its request looks complete to the server
	if deadline, ok := ctx.Deadline(); ok {
		s.SetDeadline(deadline)
	}
	return f(s)
}

func (c plainConn) leave() error { return c.CloseWithError(0, "") }

func listenUDP() (*net.UDPConn, error) {
	return net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
}
