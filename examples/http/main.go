// Command http serves net/http over QUIC streams: the server's listener and the
// client's dialer are quiclife's. The server shuts down while it is answering.
//
//	go run ./examples/http
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
	"net/http"
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

// connKey finds the QUIC connection in a request's context.
type connKey struct{}

// newServer makes a plain http.Server. ConnContext gives its handlers the QUIC
// connection, for the peer's certificate or the counts of its streams.
func newServer(answering chan<- struct{}) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		conn := r.Context().Value(connKey{}).(*quiclife.Conn)
		fmt.Fprintf(w, "%s, over %s", r.URL.Path, conn.ConnectionState().TLS.NegotiatedProtocol)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "first half, ")
		http.NewResponseController(w).Flush()
		answering <- struct{}{}
		select {
		case <-time.After(300 * time.Millisecond): // work
			io.WriteString(w, "second half")
		case <-r.Context().Done(): // the client has left
		}
	})
	return &http.Server{
		Handler: mux,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c.(*quiclife.NetConn).Stream().Conn())
		},
	}
}

func run(w io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	serverTLS, clientTLS := certificates()

	guard := &quiclife.Guard{}
	// -1: this protocol has no unidirectional streams.
	ln, err := guard.ListenAddr("127.0.0.1:0", serverTLS, &quiclife.Config{MaxIncomingUniStreams: -1})
	if err != nil {
		return err
	}
	answering := make(chan struct{}, 1)
	server := newServer(answering)
	guard.BeforeShutdown(server.Shutdown) // requests end before connections do
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln.NetListener()) }()

	conn, err := quiclife.DialAddr(ctx, ln.Addr().String(), clientTLS, nil)
	if err != nil {
		return err
	}
	defer conn.CloseWithError(0, "")
	// QUIC encrypts everything, so the URLs are http. Their host is ignored.
	client := &http.Client{Transport: &http.Transport{DialContext: conn.DialContext}}
	for _, path := range []string{"/", "/about"} {
		answer, err := get(ctx, client, path)
		fmt.Fprintf(w, "%q, error: %v\n", answer, err)
	}
	stats := conn.Stats().Outgoing
	fmt.Fprintf(w, "streams: %d opened, %d open, kept for the next request\n", stats.Opened, stats.Open)

	slow := make(chan string, 1)
	go func() {
		answer, err := get(ctx, client, "/slow")
		slow <- fmt.Sprintf("%q, error: %v", answer, err)
	}()
	select {
	case <-answering:
	case <-ctx.Done():
		return ctx.Err()
	}
	fmt.Fprintf(w, "Shutdown: %v\n", guard.Shutdown(ctx)) // nil: the client has the whole answer
	fmt.Fprintln(w, <-slow)
	// Shutdown closes the listener, then the server. Serve returns the error of either.
	if err := <-served; !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// get reads an answer to its end, and closes it, as every HTTP client must.
func get(ctx context.Context, client *http.Client, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://quic"+path, nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

// certificates uses httptest's certificate for 127.0.0.1. The client trusts it.
func certificates() (server, client *tls.Config) {
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(web.Certificate())
	return &tls.Config{Certificates: web.TLS.Certificates, NextProtos: []string{"example-http"}},
		&tls.Config{RootCAs: trusted, NextProtos: []string{"example-http"}}
}
