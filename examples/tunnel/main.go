// Command tunnel carries TCP connections through one QUIC connection, each on its
// own stream. A half-close goes through, and so does a reset.
//
//	go run ./examples/tunnel
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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

// forward joins each connection that ln accepts with one that it dials. The near
// end of the tunnel dials streams, and the far end accepts them. The far end
// learns of a stream from its first byte, so the client has to speak first.
func forward(ctx context.Context, ln net.Listener, dial func(ctx context.Context, network, addr string) (net.Conn, error), addr string) error {
	for {
		from, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			to, err := dial(ctx, "tcp", addr)
			if err == nil {
				err = join(from.(conn), to.(conn))
			}
			if err != nil {
				log.Print("tunnel: ", err)
				abort(from)
			}
		}()
	}
}

// conn is a *net.TCPConn or a *quiclife.NetConn.
type conn interface {
	net.Conn
	CloseWrite() error
}

// join copies in both directions until both have ended, or one fails.
func join(a, b conn) error {
	defer a.Close()
	defer b.Close()
	done := make(chan error, 2)
	go func() { done <- pass(a, b) }()
	go func() { done <- pass(b, a) }()
	for range 2 {
		if err := <-done; err != nil {
			abort(a) // makes the other direction return too
			abort(b)
			return err
		}
	}
	return nil
}

// pass copies until from ends, and passes on the end. The other direction stays open.
func pass(to, from conn) error {
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	return to.CloseWrite()
}

// abort resets c, so that cut data does not look whole at the other end.
func abort(c net.Conn) {
	switch c := c.(type) {
	case *net.TCPConn:
		c.SetLinger(0)
	case *quiclife.NetConn:
		c.Stream().Reset(1)
	}
	c.Close()
}

func run(w io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer target.Close()
	go count(target)

	serverTLS, clientTLS := certificates()
	far, err := quiclife.ListenAddr("127.0.0.1:0", serverTLS, nil)
	if err != nil {
		return err
	}
	defer far.Close()
	go forward(ctx, far.NetListener(), new(net.Dialer).DialContext, target.Addr().String())
	tunnel, err := quiclife.DialAddr(ctx, far.Addr().String(), clientTLS, nil)
	if err != nil {
		return err
	}
	near, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer near.Close()
	go forward(ctx, near, tunnel.DialContext, "")
	client, err := net.Dial("tcp", near.Addr().String()) // knows nothing of QUIC
	if err != nil {
		return err
	}
	defer client.Close()
	client.Write(make([]byte, 100_000))
	client.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(client)
	fmt.Fprintf(w, "the server says %q, the client's error: %v\n", answer, err)
	err = tunnel.Shutdown(ctx, 0, "done") // waits for the stream to end
	fmt.Fprintf(w, "streams: %+v\n", tunnel.Stats().Outgoing)
	return err
}

// count answers with the size of what it was sent.
func count(ln net.Listener) {
	if c, err := ln.Accept(); err == nil {
		n, err := io.Copy(io.Discard, c)
		fmt.Fprintf(c, "%d bytes, error: %v", n, err)
		c.Close()
	}
}

// certificates uses httptest's certificate for 127.0.0.1. The client trusts it.
func certificates() (server, client *tls.Config) {
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(web.Certificate())
	return &tls.Config{Certificates: web.TLS.Certificates, NextProtos: []string{"tunnel"}},
		&tls.Config{RootCAs: trusted, NextProtos: []string{"tunnel"}}
}
