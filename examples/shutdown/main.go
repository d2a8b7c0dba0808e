// Command shutdown ends a server that has two streams open. One handler returns
// in time, and all that it wrote arrives. The other does not, and is cut.
//
//	go run ./examples/shutdown
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
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

const lastWords = 100_000 // bytes

// feed sends a line now and then. When the shutdown begins it sends the rest and
// returns nil. That closes the stream, so the rest arrives.
func feed(s *quiclife.Stream) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if _, err := io.WriteString(s, "news\n"); err != nil {
				return err
			}
		case <-s.Conn().Draining():
			_, err := s.Write(make([]byte, lastWords))
			return err
		}
	}
}

// stubborn ignores Draining. Its ctx is done only when the connection has ended.
func stubborn(ctx context.Context, s *quiclife.Stream) error {
	if _, err := io.WriteString(s, "news\n"); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// handle reads which of the two handlers the client wants.
func handle(ctx context.Context, s *quiclife.Stream) error {
	name, err := io.ReadAll(io.LimitReader(s, 100))
	if err != nil {
		return err
	}
	if string(name) == "stubborn" {
		return stubborn(ctx, s)
	}
	return feed(s)
}

func run(w io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	serverTLS, clientTLS := certificates()
	// A client whose stream is cut sees a reset or a closed connection, whichever
	// packet comes first.
	guard := &quiclife.Guard{CloseCode: 9, CloseReason: "restarting", Codes: quiclife.Codes{Shutdown: 9}}
	guard.BeforeShutdown(func(ctx context.Context) error {
		fmt.Fprintln(w, "BeforeShutdown: the listener is closed, the streams go on") // the place to call http3.Server.Shutdown
		return nil
	})
	ln, err := guard.ListenAddr("127.0.0.1:0", serverTLS, nil)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- ln.Serve(ctx, quiclife.Handlers{Stream: handle}) }()

	conn, err := quiclife.DialAddr(ctx, ln.Addr().String(), clientTLS, nil)
	if err != nil {
		return err
	}
	defer conn.CloseWithError(0, "")
	started, fed, cut := make(chan struct{}, 2), make(chan error, 1), make(chan error, 1)
	go func() { fed <- watch(ctx, conn, "feed", started) }()
	go func() { cut <- watch(ctx, conn, "stubborn", started) }()
	for range 2 {
		select {
		case <-started:
		case <-ctx.Done():
			return ctx.Err()
		}
	}

	patience, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err = guard.Shutdown(patience)
	fmt.Fprintf(w, "Shutdown: %v\n", err)
	if shutdown, ok := errors.AsType[*quiclife.ShutdownError](err); ok {
		for _, s := range shutdown.Streams {
			fmt.Fprintf(w, "  cut: stream %d, with %d bytes written\n", s.ID, s.BytesWritten)
		}
	}
	fmt.Fprintln(w, "client: feed ended, error:", <-fed)
	fmt.Fprintln(w, "client: stubborn ended, error:", <-cut)
	if err := <-served; !errors.Is(err, quiclife.ErrServerClosed) {
		return err
	}
	return nil
}

// watch reads a stream to its end. nil means that the last words have arrived.
func watch(ctx context.Context, conn *quiclife.Conn, name string, started chan<- struct{}) error {
	return conn.Do(ctx, func(s *quiclife.Stream) error {
		if _, err := io.WriteString(s, name); err != nil {
			return err
		}
		if err := s.Close(); err != nil { // the server reads to the io.EOF
			return err
		}
		if _, err := io.ReadFull(s, make([]byte, len("news\n"))); err != nil {
			return err
		}
		started <- struct{}{}
		n, err := io.Copy(io.Discard, s)
		if err == nil && n < lastWords {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
}

// certificates uses httptest's certificate for 127.0.0.1. The client trusts it.
func certificates() (server, client *tls.Config) {
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(web.Certificate())
	return &tls.Config{Certificates: web.TLS.Certificates, NextProtos: []string{"feed"}},
		&tls.Config{RootCAs: trusted, NextProtos: []string{"feed"}}
}
