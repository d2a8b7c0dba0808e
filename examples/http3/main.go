// Command http3 serves HTTP/3 on connections of quiclife. It shuts down while a
// handler is at work, and the client of that handler gets the whole answer.
//
//	go run ./examples/http3
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quiclife/quiclife"
)

const noError = quiclife.ApplicationErrorCode(http3.ErrCodeNoError)

func main() {
	r, err := shutDownWhileServing(slow, 5*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("the client got %q, error: %v\n", r.answer, r.err)
	fmt.Printf("Guard.Shutdown returned after %v, error: %v\n", r.took.Round(10*time.Millisecond), r.shutdownErr)
	if r.answer != whole || r.err != nil || r.shutdownErr != nil {
		fmt.Println("failed: the answer should be whole, and neither side should have an error")
		os.Exit(1)
	}
}

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
	took        time.Duration // by Shutdown
	shutdownErr error
}

// shutDownWhileServing starts a server, asks it for something, and shuts it
// down once the first half of the answer is here.
func shutDownWhileServing(handler http.HandlerFunc, patience time.Duration) (r result, err error) {
	cert, roots, err := certificate()
	if err != nil {
		return r, err
	}
	guard := &quiclife.Guard{
		MaxConns:  1000,
		MaxHeap:   1 << 30,
		CloseCode: noError, // what clients see if it is the Guard that closes a connection
	}
	srv := &http3.Server{Handler: handler}
	guard.BeforeShutdown(srv.Shutdown) // the Guard does not know the streams of http3, so it has to ask
	ln, err := guard.ListenAddr("127.0.0.1:0", http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{cert}}), nil)
	if err != nil {
		return r, err
	}
	go serve(srv, ln)

	transport := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, Dial: dial}
	defer transport.Close()
	answer, err := (&http.Client{Transport: transport}).Get("https://" + ln.Addr().String())
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

// dial is for http3.Transport. Unwrap of the nil that comes with an error is nil.
func dial(ctx context.Context, addr string, tlsConf *tls.Config, conf *quic.Config) (*quic.Conn, error) {
	c, err := clients.DialAddrEarly(ctx, addr, tlsConf, conf)
	return c.Unwrap(), err
}

// clients is not the server's Guard, whose Shutdown would end them too.
var clients = &quiclife.Guard{MaxConns: 100}

// certificate makes one for the loopback address, and the pool that trusts it.
func certificate() (cert tls.Certificate, roots *x509.CertPool, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return cert, nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{{127, 0, 0, 1}}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return cert, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return cert, nil, err
	}
	roots = x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, roots, nil
}
