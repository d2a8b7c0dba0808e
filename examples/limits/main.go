// Command limits runs into several limits of a Guard, and prints the errors.
//
//	go run ./examples/limits
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
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

// The codes with which the server says why it reset a stream.
const (
	codeBusy quiclife.StreamErrorCode = 1
	codeIdle quiclife.StreamErrorCode = 2
)

func run(w io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	serverTLS, clientTLS := certificates()

	quiet := slog.New(slog.DiscardHandler) // otherwise the limits would also be logged

	// The server guards against its clients.
	server := &quiclife.Guard{
		MaxConns:    1,
		MaxStreams:  1,                     // streams handled at a time, on all connections together
		MaxWait:     50 * time.Millisecond, // a stream that waits longer for its turn is refused
		IdleTimeout: time.Second,           // a stream that moves no byte for this long is reset
		Codes:       quiclife.Codes{Refused: codeBusy, Idle: codeIdle},
		Logger:      quiet,
	}
	ln, err := server.ListenAddr("127.0.0.1:0", serverTLS, nil)
	if err != nil {
		return err
	}
	go ln.Serve(ctx, quiclife.Handlers{Stream: func(_ context.Context, s *quiclife.Stream) error {
		_, err := io.Copy(s, s)
		return err
	}})

	// The client guards against its own mistakes.
	client := &quiclife.Guard{
		MaxOutgoingStreams: 2,    // on each connection
		CaptureStacks:      true, // so that errors say where the oldest stream was opened
		Logger:             quiet,
	}
	conn, err := client.DialAddr(ctx, ln.Addr().String(), clientTLS, nil)
	if err != nil {
		return err
	}
	defer conn.CloseWithError(0, "")
	_, err = client.DialAddr(ctx, ln.Addr().String(), clientTLS, nil)
	fmt.Fprintf(w, "MaxConns: %v\n", err) // a *quiclife.TransportError

	first, err := open(ctx, conn)
	if err != nil {
		return err
	}
	defer first.Release()
	second, err := open(ctx, conn)
	if err != nil {
		return err
	}
	defer second.Release()
	_, err = conn.OpenStream()
	fmt.Fprintf(w, "MaxOutgoingStreams: %v\n", err)
	if limit, ok := errors.AsType[*quiclife.LimitError](err); ok {
		fmt.Fprintf(w, "  its fields: scope %v, %d of %d open, the oldest is stream %d\n", limit.Scope, limit.Open, limit.Limit, limit.Oldest.ID)
	}

	_, err = io.ReadAll(second) // refused, because the server is still handling the first
	fmt.Fprintf(w, "MaxStreams: %v, is codeBusy: %t\n", err, hasCode(err, codeBusy))
	_, err = io.ReadAll(first) // reset, because the client sends nothing more on it
	fmt.Fprintf(w, "IdleTimeout: %v, is codeIdle: %t\n", err, hasCode(err, codeIdle))

	err = server.Shutdown(ctx)
	stats := server.Stats()
	fmt.Fprintf(w, "server: %d streams accepted, %d refused at MaxStreams, %d ended as idle, %d open\n",
		stats.Incoming.Opened, stats.LimitErrors.Streams, stats.Incoming.Reclaimed, stats.Open())
	return err
}

// open opens a stream and writes to it. Only then does the server learn of it.
func open(ctx context.Context, conn *quiclife.Conn) (*quiclife.Stream, error) {
	s, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	s.BindContext(ctx)
	if _, err := io.WriteString(s, "hello"); err != nil {
		s.Release()
		return nil, err
	}
	return s, nil
}

// hasCode reports whether the peer has reset the stream with code.
func hasCode(err error, code quiclife.StreamErrorCode) bool {
	reset, ok := errors.AsType[*quiclife.StreamError](err)
	return ok && reset.Remote && reset.ErrorCode == code
}

// certificates uses httptest's certificate for 127.0.0.1. The client trusts it.
func certificates() (server, client *tls.Config) {
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(web.Certificate())
	return &tls.Config{Certificates: web.TLS.Certificates, NextProtos: []string{"limits"}},
		&tls.Config{RootCAs: trusted, NextProtos: []string{"limits"}}
}
