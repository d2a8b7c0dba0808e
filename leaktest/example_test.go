package leaktest_test

import (
	"context"
	"crypto/tls"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/leaktest"
)

// fetch is the program under test. It leaks no stream.
func fetch(ctx context.Context, conn *quiclife.Conn, request string) error {
	return conn.Do(ctx, func(s *quiclife.Stream) error {
		if _, err := io.WriteString(s, request); err != nil {
			return err
		}
		s.Close()
		_, err := io.ReadAll(s)
		return err
	})
}

// serve is its server.
func serve(conn *quiclife.Conn) {
	conn.Serve(context.Background(), quiclife.Handlers{
		Stream: func(ctx context.Context, s *quiclife.Stream) error {
			_, err := io.Copy(s, s)
			return err
		},
	})
}

func ExamplePair() {
	var t *testing.T // of TestFetch(t *testing.T)

	client, server := leaktest.Pair(t, nil, nil)
	go serve(server)
	if err := fetch(t.Context(), client, "hello"); err != nil {
		t.Fatal(err)
	}
}

func ExampleSimulated() {
	var t *testing.T // of TestFetch(t *testing.T)

	synctest.Test(t, func(t *testing.T) {
		client, server := leaktest.Simulated(t, nil, nil)
		go serve(server)
		time.Sleep(10 * time.Second) // takes no time
		if err := fetch(t.Context(), client, "hello"); err != nil {
			t.Fatal(err)
		}
	})
}

func ExampleNew() {
	var (
		t       *testing.T // of TestFetch(t *testing.T)
		addr    string
		tlsConf *tls.Config
	)

	guard := leaktest.New(t)
	guard.MaxOutgoingStreams = 10 // whatever the program sets
	conn, err := guard.DialAddr(t.Context(), addr, tlsConf, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseWithError(0, "") // closing the connection hides no leak
	if err := fetch(t.Context(), conn, "hello"); err != nil {
		t.Fatal(err)
	}
}

// If a program uses the package-level functions, its connections are under
// DefaultGuard.
func ExampleCheck() {
	var t *testing.T // of TestFetch(t *testing.T)

	quiclife.DefaultGuard.CaptureStacks = true // better in TestMain, before the first connection
	leaktest.Check(t, quiclife.DefaultGuard)
}

// HTTP/3 and MoQ have control streams, which stay open as long as their
// connection.
func ExampleAllow() {
	var t *testing.T // of TestFetch(t *testing.T)

	leaktest.New(t, leaktest.Allow(func(s quiclife.StreamInfo) bool {
		return s.Unidirectional && s.ID < 12 // the first three of each side
	}))
}
