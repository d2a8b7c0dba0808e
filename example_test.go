package quiclife_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"time"

	"github.com/quiclife/quiclife"
)

// exampleTLS makes a certificate for localhost, and the configuration of a
// client that trusts it.
func exampleTLS() (server, client *tls.Config) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}, NextProtos: []string{"example"}},
		&tls.Config{RootCAs: trusted, ServerName: "localhost", NextProtos: []string{"example"}}
}

// connect makes the connection for the examples, over loopback.
func connect(guard *quiclife.Guard) (client, server *quiclife.Conn, end func()) {
	serverTLS, clientTLS := exampleTLS()
	ctx := context.Background()
	ln, err := guard.ListenAddr("127.0.0.1:0", serverTLS, nil)
	if err != nil {
		panic(err)
	}
	client, err = guard.DialAddr(ctx, ln.Addr().String(), clientTLS, nil)
	if err != nil {
		panic(err)
	}
	server, err = ln.Accept(ctx)
	if err != nil {
		panic(err)
	}
	return client, server, func() { ln.Close(); guard.Shutdown(ctx) }
}

// The stream is ended whichever way the function returns.
func ExampleStream_Release() {
	client, server, end := connect(&quiclife.Guard{})
	defer end()
	go server.Serve(context.Background(), quiclife.Handlers{
		Stream: func(ctx context.Context, s *quiclife.Stream) error {
			_, err := io.Copy(s, s)
			return err
		},
	})

	ask := func(question string) (string, error) {
		str, err := client.OpenStreamSync(context.Background())
		if err != nil {
			return "", err
		}
		defer str.Release() // leaves a half alone that has ended properly
		if _, err := io.WriteString(str, question); err != nil {
			return "", err
		}
		if err := str.Close(); err != nil {
			return "", err
		}
		answer, err := io.ReadAll(str)
		return string(answer), err
	}
	fmt.Println(ask("hello"))
	fmt.Println(client.Stats().Open(), "open")
	// Output:
	// hello <nil>
	// 0 open
}

// A blocked call on a stream returns when a context is done, and says why.
func ExampleStream_BindContext() {
	client, _, end := connect(&quiclife.Guard{Codes: quiclife.Codes{Canceled: 3}})
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
	if reset, ok := errors.AsType[*quiclife.StreamError](err); ok {
		fmt.Println(reset.ErrorCode)
	}
	// Output:
	// the user has left true true
	// 3
}

// A server that handles the streams of each connection, and drains when its
// context is done.
func ExampleListener_Serve() {
	serverTLS, clientTLS := exampleTLS()
	guard := &quiclife.Guard{Codes: quiclife.Codes{HandlerError: 7}}
	ln, err := guard.ListenAddr("127.0.0.1:0", serverTLS, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background()) // in a program: signal.NotifyContext
	defer stop()
	served := make(chan error)
	go func() {
		served <- ln.Serve(ctx, quiclife.Handlers{
			Stream: func(ctx context.Context, s *quiclife.Stream) error {
				name, err := io.ReadAll(s)
				if err != nil {
					return err
				}
				if len(name) == 0 {
					return errors.New("no name") // resets the stream, with code 7
				}
				_, err = fmt.Fprintf(s, "Hello, %s!", name)
				return err // nil closes and releases it
			},
		})
	}()

	client, err := guard.DialAddr(context.Background(), ln.Addr().String(), clientTLS, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range []string{"Ada", ""} {
		err := client.Do(context.Background(), func(s *quiclife.Stream) error {
			if _, err := io.WriteString(s, name); err != nil {
				return err
			}
			if err := s.Close(); err != nil { // the server reads to the end
				return err
			}
			answer, err := io.ReadAll(s)
			fmt.Printf("%q\n", answer)
			return err
		})
		fmt.Println(err)
	}
	stop()
	fmt.Println(<-served)
	// Output:
	// "Hello, Ada!"
	// <nil>
	// ""
	// stream 4 canceled by remote with error code 7
	// context canceled
}

// At a limit, the error says what holds the slots.
func ExampleLimitError() {
	client, _, end := connect(&quiclife.Guard{MaxOutgoingStreams: 2})
	defer end()
	for range 2 {
		str, err := client.OpenStream()
		if err != nil {
			fmt.Println(err)
			return
		}
		defer str.Release()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	err := client.Do(ctx, func(*quiclife.Stream) error { return nil })
	if limit, ok := errors.AsType[*quiclife.LimitError](err); ok {
		fmt.Println(limit.Scope, "is", limit.Limit, "and", limit.Open, "are open, the oldest is stream", limit.Oldest.ID)
	}
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output:
	// outgoing is 2 and 2 are open, the oldest is stream 0
	// true
}

// With Shutdown, what was written and closed arrives before the connection
// ends. With CloseWithError it may be lost.
func ExampleConn_Shutdown() {
	client, server, end := connect(&quiclife.Guard{})
	defer end()
	received := make(chan int64, 1)
	go server.Serve(context.Background(), quiclife.Handlers{
		UniStream: func(ctx context.Context, s *quiclife.ReceiveStream) error {
			n, err := io.Copy(io.Discard, s)
			received <- n
			return err
		},
	})

	err := client.DoUni(context.Background(), func(s *quiclife.SendStream) error {
		_, err := s.Write(make([]byte, 100_000))
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	fmt.Println(client.Shutdown(ctx, 0, "done"))
	fmt.Println(<-received, "bytes")
	// Output:
	// <nil>
	// 100000 bytes
}

// One request: open, use, end. When ctx is done, blocked calls on the stream
// return.
func ExampleConn_Do() {
	client, server, end := connect(&quiclife.Guard{})
	defer end()
	go server.Serve(context.Background(), quiclife.Handlers{
		Stream: func(ctx context.Context, s *quiclife.Stream) error {
			_, err := io.Copy(s, s)
			return err
		},
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := client.Do(ctx, func(s *quiclife.Stream) error {
		if _, err := io.WriteString(s, "question"); err != nil {
			return err // resets the stream
		}
		if err := s.Close(); err != nil {
			return err
		}
		answer, err := io.ReadAll(s)
		fmt.Printf("%s\n", answer)
		return err
	})
	fmt.Println(err)
	// Output:
	// question
	// <nil>
}

// Limits for a group of connections, and what a refused client sees.
func ExampleGuard() {
	serverTLS, clientTLS := exampleTLS()
	guard := &quiclife.Guard{
		MaxConns:    1,
		MaxHeap:     1 << 30,          // bytes of live heap of the whole process
		IdleTimeout: 10 * time.Minute, // for a stream on which no byte moves
		Logger:      slog.New(slog.DiscardHandler),
	}
	ln, err := guard.ListenAddr("127.0.0.1:0", serverTLS, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	clients := &quiclife.Guard{}
	for range 2 {
		_, err := clients.DialAddr(context.Background(), ln.Addr().String(), clientTLS, nil)
		fmt.Println(err)
	}
	// Shuts down all listeners and connections of the group.
	fmt.Println(guard.Shutdown(context.Background()))
	clients.Shutdown(context.Background())
	// Output:
	// <nil>
	// CONNECTION_REFUSED (remote)
	// <nil>
}
