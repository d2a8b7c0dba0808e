// Command tunnel carries TCP connections through one QUIC connection, each on a
// stream of its own. A half-close goes through it, and so does a reset.
//
//	go run ./examples/tunnel
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"time"

	"github.com/quiclife/quiclife"
)

func main() {
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// enter opens a stream for each TCP connection that ln accepts.
func enter(ctx context.Context, ln net.Listener, conn *quiclife.Conn) error {
	for {
		tcp, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			err := conn.Do(ctx, func(s *quiclife.Stream) error {
				// The peer learns of a stream with its first byte. Without this one
				// a server that speaks first would not be dialed.
				if _, err := s.Write([]byte{0}); err != nil {
					return err
				}
				return join(tcp.(*net.TCPConn), s.NetConn())
			})
			finish(tcp.(*net.TCPConn), err)
		}()
	}
}

// exit dials the target for each stream.
func exit(target string) quiclife.Handlers {
	return quiclife.Handlers{Stream: func(ctx context.Context, s *quiclife.Stream) error {
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			return err
		}
		var dialer net.Dialer
		tcp, err := dialer.DialContext(ctx, "tcp", target)
		if err != nil {
			return err
		}
		err = join(tcp.(*net.TCPConn), s.NetConn())
		finish(tcp.(*net.TCPConn), err)
		return err
	}}
}
