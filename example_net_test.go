package quiclife_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/quiclife/quiclife"
)

// An HTTP server on the streams of all connections of a listener. The requests
// of the client share one connection.
func ExampleListener_NetListener() {
	serverTLS, clientTLS := exampleTLS()
	guard := &quiclife.Guard{}
	ln, err := guard.ListenAddr("127.0.0.1:0", serverTLS, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	type connKey struct{}
	web := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn := r.Context().Value(connKey{}).(*quiclife.Conn)
			fmt.Fprint(w, r.URL.Path, " over ", conn.ConnectionState().TLS.NegotiatedProtocol)
		}),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c.(*quiclife.NetConn).Stream().Conn())
		},
	}
	served := make(chan error)
	go func() { served <- web.Serve(ln.NetListener()) }()

	conn, err := guard.DialAddr(context.Background(), ln.Addr().String(), clientTLS, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	transport := &http.Transport{DialContext: conn.DialContext}
	res, err := (&http.Client{Transport: transport}).Get("http://quic/home")
	if err != nil {
		fmt.Println(err)
		return
	}
	page, err := io.ReadAll(res.Body)
	res.Body.Close()
	fmt.Println(string(page), err)

	transport.CloseIdleConnections()
	fmt.Println(web.Shutdown(context.Background()), <-served) // no new streams; waits for the handlers
	fmt.Println(guard.Shutdown(context.Background()))         // everything that was written has arrived
	// Output:
	// /home over example <nil>
	// <nil> http: Server closed
	// <nil>
}

// net/http over the streams of a connection.
func ExampleConn_NetListener() {
	client, server, end := connect(&quiclife.Guard{})
	defer end()
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "hello from ", r.URL.Path)
	})}
	go web.Serve(server.NetListener())
	defer web.Close()

	browser := &http.Client{Transport: &http.Transport{DialContext: client.DialContext, DisableKeepAlives: true}}
	res, err := browser.Get("http://quic/home")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	fmt.Println(string(page), err)
	// Output:
	// hello from /home <nil>
}

// A stream as a net.Conn.
func ExampleStream_NetConn() {
	client, server, end := connect(&quiclife.Guard{})
	defer end()
	ln := server.NetListener()
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.Copy(c, c) // to the half-close
	}()

	s, err := client.OpenStream()
	if err != nil {
		fmt.Println(err)
		return
	}
	c := s.NetConn()
	defer c.Close()
	fmt.Fprint(c, "hello")
	fmt.Println(c.CloseWrite()) // the peer reads io.EOF, c can still be read
	b, err := io.ReadAll(c)
	fmt.Println(string(b), err)
	// Output:
	// <nil>
	// hello <nil>
}
