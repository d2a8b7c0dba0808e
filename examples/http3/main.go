// Command http3 serves HTTP/3 on connections of quiclife. It shuts down while a
// handler is at work, and the client of that handler gets the whole answer.
//
//	go run ./examples/http3
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quiclife/quiclife"
)

func main() {
	r, err := shutDownWhileServing(slow, 5*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("the client got %q, error: %v\n", r.answer, r.err)
	fmt.Printf("Guard.Shutdown returned after %v, error: %v\n", r.took.Round(10*time.Millisecond), r.shutdownErr)
	if r.answer != whole || r.err != nil || r.shutdownErr != nil {
		log.Fatal("the answer should be whole, and neither side should have an error")
	}
}

const noError = quiclife.ApplicationErrorCode(http3.ErrCodeNoError)

const whole = "first half, second half"

// slow answers in two parts, and works for 1.5 seconds in between.
func slow(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, "first half, ")
	http.NewResponseController(w).Flush()
	select {
	case <-time.After(1500 * time.Millisecond):
	case <-r.Context().Done(): // the client has left, or the connection has ended
		return
	}
	io.WriteString(w, "second half")
}

type result struct {
	answer      string
	err         error         // of reading the answer
	took        time.Duration // how long Shutdown took
	shutdownErr error
}

// shutDownWhileServing starts a server and makes a request. It shuts the server
// down once the first half of the answer has arrived.
func shutDownWhileServing(handler http.HandlerFunc, patience time.Duration) (r result, err error) {
	serverTLS, clientTLS := certificates()
	guard := &quiclife.Guard{
		MaxConns:  1000,
		MaxHeap:   1 << 30,
		CloseCode: noError, // what clients see if the Guard closes a connection
	}
	srv := &http3.Server{Handler: handler}
	guard.BeforeShutdown(srv.Shutdown) // the Guard does not see http3's streams, so srv has to finish them
	ln, err := guard.ListenAddr("127.0.0.1:0", serverTLS, nil)
	if err != nil {
		return r, err
	}
	go serve(srv, ln)

	transport := &http3.Transport{TLSClientConfig: clientTLS, Dial: dial}
	defer transport.Close()
	answer, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get("https://" + ln.Addr().String())
	if err != nil {
		return r, err
	}
	defer answer.Body.Close() // an answer that is neither read nor closed holds up the server's Shutdown
	read := make(chan struct{})
	go func() {
		defer close(read)
		var b []byte
		b, r.err = io.ReadAll(answer.Body)
		r.answer = string(b)
	}()

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	start := time.Now()
	r.shutdownErr = guard.Shutdown(ctx)
	r.took = time.Since(start)
	<-read
	return r, nil
}

// serve hands the connections of ln to srv, until Shutdown closes ln.
func serve(srv *http3.Server, ln *quiclife.Listener) {
	for {
		c, err := ln.Accept(context.Background())
		if err != nil {
			return
		}
		go func() {
			srv.ServeQUICConn(c.Unwrap())
			c.CloseWithError(noError, "") // http3 does not, if it could not begin or was shut down already
		}()
	}
}

// dial is for http3.Transport. It uses DefaultGuard, because Shutdown of the
// server's Guard would also end the client's connections. On an error c is nil,
// and Unwrap returns nil too.
func dial(ctx context.Context, addr string, tlsConf *tls.Config, conf *quic.Config) (*quic.Conn, error) {
	c, err := quiclife.DialAddrEarly(ctx, addr, tlsConf, conf)
	return c.Unwrap(), err
}

// certificates uses httptest's certificate for 127.0.0.1. The client trusts it.
func certificates() (server, client *tls.Config) {
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(web.Certificate())
	return http3.ConfigureTLSConfig(&tls.Config{Certificates: web.TLS.Certificates}), &tls.Config{RootCAs: trusted}
}
