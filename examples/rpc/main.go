// Command rpc is a small request and answer protocol, with one stream per call.
// The server has a handler for each stream. The client runs each call with Do.
//
//	go run ./examples/rpc
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"time"

	"github.com/quiclife/quiclife"
)

func main() {
	if err := run(log.New(os.Stdout, "", 0)); err != nil {
		log.Fatal(err)
	}
}

// The protocol's error codes. A stream that is reset carries one of them.
const (
	codeInternal quiclife.StreamErrorCode = 1
	codeNoMethod quiclife.StreamErrorCode = 2
)

var errNoMethod = errors.New("no such method")

// callerKey is for the value that handlers find in their context.
type callerKey struct{}

// handle reads a request to its end and answers it. Its result ends the stream:
// nil closes the stream, and an error resets it.
func handle(ctx context.Context, s *quiclife.Stream) error {
	method, err := io.ReadAll(io.LimitReader(s, 1000))
	if err != nil {
		return err
	}
	switch string(method) {
	case "whoami":
		_, err := fmt.Fprintf(s, "you are %v", ctx.Value(callerKey{}))
		return err
	case "wait":
		<-s.Context().Done() // the caller has left, or the connection has ended
		return context.Cause(s.Context())
	}
	return errNoMethod
}

// handlers say what happens to a connection, to its streams, and to their errors.
func handlers(out *log.Logger) quiclife.Handlers {
	return quiclife.Handlers{
		Conn: func(ctx context.Context, c *quiclife.Conn) (context.Context, error) {
			// A real server checks its caller's certificate, and returns an error for strangers.
			return context.WithValue(ctx, callerKey{}, "a client that speaks "+c.ConnectionState().TLS.NegotiatedProtocol), nil
		},
		Stream: handle,
		Error: func(_ *quiclife.Conn, s quiclife.StreamInfo, err error) {
			out.Printf("server: handler of stream %d failed: %v", s.ID, err)
		},
		Code: func(err error) quiclife.StreamErrorCode {
			if errors.Is(err, errNoMethod) {
				return codeNoMethod
			}
			return codeInternal
		},
	}
}

// call sends a request and returns the answer. When ctx is done, the stream is
// reset and call returns, whatever it was blocked in.
func call(ctx context.Context, conn *quiclife.Conn, method string) (answer string, err error) {
	err = conn.Do(ctx, func(s *quiclife.Stream) error {
		if _, err := io.WriteString(s, method); err != nil {
			return err
		}
		if err := s.Close(); err != nil { // the server reads to the io.EOF
			return err
		}
		b, err := io.ReadAll(s)
		answer = string(b)
		return err
	})
	return answer, err
}

func run(out *log.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	serverTLS, clientTLS := certificates()
	ln, err := quiclife.ListenAddr("127.0.0.1:0", serverTLS, nil)
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- ln.Serve(serving, handlers(out)) }()

	conn, err := quiclife.DialAddr(ctx, ln.Addr().String(), clientTLS, nil)
	if err != nil {
		return err
	}
	defer conn.CloseWithError(0, "")
	answer, err := call(ctx, conn, "whoami")
	out.Printf("client: whoami: %q, error: %v", answer, err)

	_, err = call(ctx, conn, "fly")
	if reset, ok := errors.AsType[*quiclife.StreamError](err); ok && reset.Remote && reset.ErrorCode == codeNoMethod {
		out.Print("client: fly: the server has no such method")
	}

	hurry, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	_, err = call(hurry, conn, "wait")
	if errors.Is(err, context.DeadlineExceeded) {
		out.Print("client: wait: gave up after 100ms, which reset the stream")
	}

	// Serve returns once all streams have ended and all data has arrived. If it
	// had to cut streams, its error is also a *ShutdownError.
	stop()
	err = <-served
	if _, cut := errors.AsType[*quiclife.ShutdownError](err); cut || !errors.Is(err, context.Canceled) {
		return err
	}
	out.Printf("client: streams open: %d", conn.Stats().Open())
	return nil
}

// certificates uses httptest's certificate for 127.0.0.1. The client trusts it.
func certificates() (server, client *tls.Config) {
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(web.Certificate())
	server = &tls.Config{Certificates: web.TLS.Certificates, NextProtos: []string{"rpc"}}
	client = &tls.Config{RootCAs: trusted, NextProtos: []string{"rpc"}}
	return server, client
}
