package quiclife_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/quiclife/quiclife"
)

// A blocked call on a stream returns when a context is done, and says why.
func ExampleStream_BindContext() {
	client, _, end := connect(&quiclife.Guard{Codes: quiclife.Codes{Canceled: 3}}, nil)
	defer end()
	str, err := client.OpenStream()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer str.Release()

	ctx, cancel := context.WithCancelCause(context.Background())
	defer str.BindContext(ctx)()
	go cancel(errors.New("the user has left"))

	_, err = str.Read(make([]byte, 100)) // nobody answers
	fmt.Println(context.Cause(ctx), errors.Is(err, context.Cause(ctx)), errors.Is(err, context.Canceled))
	var reset *quiclife.StreamError
	fmt.Println(errors.As(err, &reset), reset.ErrorCode)
	// Output:
	// the user has left true true
	// true 3
}

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
