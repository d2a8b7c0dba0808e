// Command echo shows the leak in an echo client that looks right. quic-go's own
// example has a similar one. The same functions run on quic-go and on quiclife.
//
//	go run ./examples/echo
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"runtime"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quiclife/quiclife"
)

func main() {
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

const question = "hello"

// ask reads exactly the answer. The io.EOF comes after it and nobody reads it,
// so quic-go keeps the stream until the connection ends.
func ask[S io.ReadWriteCloser](open func() (S, error)) error {
	s, err := open()
	if err != nil {
		return err
	}
	defer s.Close() // ends the send half only
	if _, err := io.WriteString(s, question); err != nil {
		return err
	}
	_, err = io.ReadFull(s, make([]byte, len(question)))
	return err
}

// askOften asks 200 times. It stops at the first error.
func askOften[S io.ReadWriteCloser](open func() (S, error)) (answers int, err error) {
	for answers = range 200 {
		if err := ask(open); err != nil {
			return answers, err
		}
	}
	return 200, nil
}

// serve makes the same mistake: it reads exactly the question. A server pays
// more for it. Each stream that it keeps takes a slot from the client.
func serve[S io.ReadWriteCloser](ctx context.Context, accept func(context.Context) (S, error)) {
	for {
		s, err := accept(ctx)
		if err != nil {
			return // the connection has ended
		}
		io.CopyN(s, s, int64(len(question)))
		s.Close()
	}
}

// forget does not even close its stream. Programs do that when they return early.
func forget(c *quiclife.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	_, err = io.WriteString(s, question)
	return err
}

// remember is forget with one more line. Now no return leaks the stream.
func remember(c *quiclife.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	defer s.Release()
	_, err = io.WriteString(s, question)
	return err
}

func run(w io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	plain, plainServer, err := connect(ctx)
	if err != nil {
		return err
	}
	defer plain.CloseWithError(0, "")
	go serve(ctx, plainServer.AcceptStream)
	answers, err := askOften(plain.OpenStream)
	fmt.Fprintf(w, "quic-go:  %d of 200 answers, error: %v\n", answers, err)

	// Wrap does for one connection what swapping the import does for a program.
	raw, rawServer, err := connect(ctx)
	if err != nil {
		return err
	}
	defer raw.CloseWithError(0, "")
	leaks := make(chan quiclife.Leak, 1)
	guard := &quiclife.Guard{CaptureStacks: true, OnLeak: func(l quiclife.Leak) { leaks <- l }} // the leak is also logged
	client, server := guard.Wrap(raw, nil), quiclife.Wrap(rawServer, nil)
	go serve(ctx, server.AcceptStream)
	answers, err = askOften(client.OpenStream)
	for client.Stats().Open()+server.Stats().Open() > 0 && ctx.Err() == nil {
		runtime.Gosched() // the last FIN is on its way
	}
	fmt.Fprintf(w, "quiclife: %d of 200 answers, error: %v; streams held by the client %d, by the server %d\n",
		answers, err, client.Stats().Open(), server.Stats().Open())

	err = remember(client)
	fmt.Fprintf(w, "remember: error: %[2]v; streams held by the client %[1]d, thanks to Release\n", client.Stats().Open(), err)
	err = forget(client)
	fmt.Fprintf(w, "forget:   error: %[2]v; streams held by the client %[1]d, until a garbage collection\n", client.Stats().Open(), err)
	for len(leaks) == 0 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		runtime.GC() // a real program waits for the next collection
	}
	fmt.Fprintf(w, "OnLeak:   %v\n", (<-leaks).Stream)
	return nil
}

// connect makes both ends of a quic-go connection, with httptest's certificate.
func connect(ctx context.Context) (client, server *quic.Conn, err error) {
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(web.Certificate())
	ln, err := quic.ListenAddr("127.0.0.1:0", &tls.Config{Certificates: web.TLS.Certificates, NextProtos: []string{"echo"}}, nil)
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	client, err = quic.DialAddr(ctx, ln.Addr().String(), &tls.Config{RootCAs: trusted, NextProtos: []string{"echo"}}, nil)
	if err != nil {
		return nil, nil, err
	}
	server, err = ln.Accept(ctx)
	return client, server, err
}
