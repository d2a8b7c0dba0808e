package browsertest

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/debugpage"
	"github.com/quiclife/quiclife/internal/quictest"
	"github.com/quiclife/quiclife/ledger"
)

const hostile = `<script>document.title = "hostile"</script><img src=//example.com onerror=alert(1)>`

// serve serves a page with rows in all tables: streams of several openers in
// several states, leaks, a ledger, and strings from a hostile peer.
func serve(t *testing.T) *httptest.Server {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	front := &quiclife.Guard{CaptureStacks: true, Logger: quiet}
	client := pair(t, front)
	for range 7 {
		ping(t, client)
	}
	for range 3 {
		download(t, pair(t, front))
	}
	control(t, pair(t, front))

	leaked := make(chan struct{}, 4)
	back := &quiclife.Guard{CaptureStacks: true, Logger: quiet, IdleTimeout: time.Millisecond, OnLeak: func(quiclife.Leak) { leaked <- struct{}{} }}
	l := ledger.New(ledger.Options{})
	options := debugpage.Options{Names: []string{"front", "back " + hostile}, Ledger: l}
	server := start(t, options.Handler(front, back))
	idler := pair(t, back)
	for range cap(leaked) {
		ping(t, idler)
	}
	for range cap(leaked) {
		<-leaked
	}
	trace(t, l)
	return server
}

func start(t *testing.T, h http.Handler) *httptest.Server {
	mux := http.NewServeMux()
	mux.Handle("/debug/quiclife", h)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

// serveExample serves the page of a program that has begun to leak streams.
func serveExample(t *testing.T) *httptest.Server {
	t.Helper()
	const leaks = 3
	leaked := make(chan struct{}, leaks)
	guard := &quiclife.Guard{CaptureStacks: true, AbandonGrace: -1, Logger: slog.New(slog.DiscardHandler), OnLeak: func(quiclife.Leak) { leaked <- struct{}{} }}
	server := start(t, debugpage.Handler(guard))
	for n := range 4 {
		client := pair(t, guard)
		for range 10 * (n + 1) {
			s, err := client.OpenStream()
			require.NoError(t, err)
			s.Close()
			s.Release()
		}
		for range 6*n + 1 {
			ping(t, client)
		}
		download(t, client)
		control(t, client)
		if n < leaks {
			forget(t, client)
		}
	}
	for range leaks {
		for waiting := true; waiting; {
			runtime.GC()
			select {
			case <-leaked:
				waiting = false
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return server
}

func forget(t *testing.T, c *quiclife.Conn) {
	s, err := c.OpenStream()
	require.NoError(t, err)
	s.Write([]byte("forgotten"))
}

// pair returns the client's end of a new connection.
func pair(t *testing.T, g *quiclife.Guard) *quiclife.Conn {
	t.Helper()
	rc, _ := quictest.Loopback(t, nil, nil)
	return g.Wrap(rc, nil)
}

func ping(t *testing.T, c *quiclife.Conn) {
	s, err := c.OpenStream()
	require.NoError(t, err)
	t.Cleanup(s.Release)
	s.Write([]byte("ping!"))
	s.Close()
}

func download(t *testing.T, c *quiclife.Conn) {
	s, err := c.OpenStream()
	require.NoError(t, err)
	t.Cleanup(s.Release)
	s.Write(make([]byte, 10_000))
}

func control(t *testing.T, c *quiclife.Conn) {
	s, err := c.OpenUniStream()
	require.NoError(t, err)
	t.Cleanup(s.Release)
	s.Write([]byte(strings.Repeat("x", 20)))
}

// trace makes two connections that l traces. On both the server holds streams. The
// client ends the second one with a hostile reason.
func trace(t *testing.T, l *ledger.Ledger) {
	t.Helper()
	conf := &quic.Config{Tracer: l.Tracer(nil), MaxIncomingStreams: 3}
	for _, hangUp := range []bool{false, true} {
		client, server := quictest.Loopback(t, nil, conf)
		for range 3 {
			s, err := client.OpenStreamSync(t.Context())
			require.NoError(t, err)
			s.Write([]byte("request"))
			s.Close()
			_, err = server.AcceptStream(t.Context())
			require.NoError(t, err)
		}
		if hangUp {
			client.CloseWithError(1, hostile)
			<-server.Context().Done()
		}
	}
}
