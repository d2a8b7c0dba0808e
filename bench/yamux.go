package main

import (
	"context"
	"crypto/tls"
	"io"
	"net"

	"github.com/hashicorp/yamux"

	"github.com/quiclife/quiclife/internal/rig"
)

// yamuxTCP is hashicorp's yamux over TLS over TCP, with its default Config. Close
// ends the send half. No call aborts a half.
type yamuxTCP struct{}

func (yamuxTCP) connect() (_ *link, err error) {
	var ends []func()
	defer func() {
		if err != nil {
			endAll(ends)
		}
	}()
	serverTLS, clientTLS := rig.TLS()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", serverTLS)
	if err != nil {
		return nil, err
	}
	ends = append(ends, func() { ln.Close() })
	type accepted struct {
		conn net.Conn
		err  error
	}
	accepting := make(chan accepted, 1)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			err = c.(*tls.Conn).Handshake()
		}
		accepting <- accepted{c, err}
	}()
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: connectTimeout}, Config: clientTLS}
	clientConn, err := dialer.Dial("tcp", ln.Addr().String())
	if err != nil {
		return nil, err
	}
	ends = append(ends, func() { clientConn.Close() })
	a := <-accepting
	if a.err != nil {
		return nil, a.err
	}
	ends = append(ends, func() { a.conn.Close() })
	conf := yamux.DefaultConfig()
	conf.LogOutput = io.Discard // so that it does not log the end of the connection
	client, err := yamux.Client(clientConn, conf)
	if err != nil {
		return nil, err
	}
	ends = append(ends, func() { client.Close() })
	server, err := yamux.Server(a.conn, conf)
	if err != nil {
		return nil, err
	}
	ends = append(ends, func() { server.Close() })
	return &link{yamuxTCP{}, yamuxEnd(client), yamuxEnd(server), func() { endAll(ends) }}, nil
}

func yamuxEnd(s *yamux.Session) end {
	return end{
		open:   func(context.Context) (stream, error) { return s.OpenStream() },
		accept: func(ctx context.Context) (stream, error) { return s.AcceptStreamWithContext(ctx) },
		held:   s.NumStreams,
	}
}

func (yamuxTCP) flush(stream)            {}
func (yamuxTCP) finish(s stream)         { s.Close() }
func (yamuxTCP) done(stream)             {}
func (yamuxTCP) stopReading(stream) bool { return false }
func (yamuxTCP) abort(s stream)          { s.Close() }

func (yamuxTCP) bind(ctx context.Context, s stream) (stop func() bool) {
	return deadlineAtEnd(ctx, s.(*yamux.Stream).SetDeadline)
}
