package quiclife_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// ends are the two ends of a connection, as quic-go's and as ours.
type ends struct {
	client, server       *quiclife.Conn
	rawClient, rawServer *quic.Conn
}

// setup says how to make ends. The zero value is fine.
type setup struct {
	net                    quictest.Net
	clientConf, serverConf *quic.Config
	guard                  *quiclife.Guard // of both ends
}

// in runs f inside a synctest bubble, on a connection over simnet.
func (s setup) in(t *testing.T, f func(t *testing.T, e ends)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		rc, rs := s.net.Pair(t, s.clientConf, s.serverConf)
		f(t, s.wrap(rc, rs))
	})
}

// bubble runs f inside a synctest bubble.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// onLoopback makes ends over UDP, in real time.
func (s setup) onLoopback(t testing.TB) ends {
	rc, rs := quictest.Loopback(t, s.clientConf, s.serverConf)
	return s.wrap(rc, rs)
}

func (s setup) wrap(rc, rs *quic.Conn) ends {
	if s.guard == nil {
		s.guard = &quiclife.Guard{}
	}
	if s.guard.Logger == nil {
		s.guard.Logger = slog.New(slog.DiscardHandler)
	}
	return ends{s.guard.Wrap(rc, s.clientConf), s.guard.Wrap(rs, s.serverConf), rc, rs}
}

// conns returns the connections of Guard.Conns as a slice.
func conns(g *quiclife.Guard) []*quiclife.Conn { return slices.Collect(g.Conns()) }

// stream opens a stream on the client, sends x on it, and accepts it on the
// server.
func (e ends) stream(t *testing.T) (client, server *quiclife.Stream) {
	t.Helper()
	client, err := e.client.OpenStreamSync(t.Context())
	require.NoError(t, err)
	write(t, client, "x")
	server, err = e.server.AcceptStream(t.Context())
	require.NoError(t, err)
	expect(t, server, "x")
	return client, server
}

func write(t *testing.T, w io.Writer, s string) {
	t.Helper()
	n, err := io.WriteString(w, s)
	require.NoError(t, err)
	require.Equal(t, len(s), n)
}

// expect requires that the next bytes to read are s.
func expect(t *testing.T, r io.Reader, s string) {
	t.Helper()
	b := make([]byte, len(s))
	_, err := io.ReadFull(r, b)
	require.NoError(t, err)
	require.Equal(t, s, string(b))
}

// settled waits in fake time until everything in flight has arrived.
func settled() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// requireNothingLeft requires that neither end holds a stream, and that the
// connection has not ended.
func (e ends) requireNothingLeft(t testing.TB, msg ...any) {
	t.Helper()
	require.NoError(t, context.Cause(e.client.Context()), msg...)
	require.NoError(t, context.Cause(e.server.Context()), msg...)
	require.Zero(t, quictest.Held(e.rawClient), msg...)
	require.Zero(t, quictest.Held(e.rawServer), msg...)
	for _, c := range []*quiclife.Conn{e.client, e.server} {
		stats := c.Stats()
		require.Zero(t, stats.Open(), msg...)
		requireBalance(t, stats)
	}
}

// requireBalance requires the equation that StreamStats promises.
func requireBalance(t testing.TB, stats quiclife.Stats) {
	t.Helper()
	for _, s := range []quiclife.StreamStats{stats.Outgoing, stats.OutgoingUni, stats.Incoming, stats.IncomingUni} {
		require.Equal(t, s.Opened, s.Open+s.Finished+s.Released+s.Reset+s.Reclaimed+s.Detached, "%+v", s)
		require.GreaterOrEqual(t, s.Open, int64(0))
		require.GreaterOrEqual(t, s.Peak, s.Open)
	}
}

// raise sets a counter to n if it is lower. Calls may be concurrent.
func raise(to *atomic.Int64, n int64) {
	for old := to.Load(); old < n && !to.CompareAndSwap(old, n); old = to.Load() {
	}
}

// eventually polls in real time, for conditions without a channel.
func eventually(t testing.TB, f func() bool, msg ...any) {
	t.Helper()
	require.Eventually(t, f, 20*time.Second, 2*time.Millisecond, msg...)
}

// keep keeps s alive until the end of the test.
func keep(t testing.TB, s any) { t.Cleanup(func() { runtime.KeepAlive(s) }) }

// collectConstantly forces garbage collections in the background until the test ends.
func collectConstantly(t testing.TB) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				runtime.GC()
			}
		}
	})
	t.Cleanup(func() { close(done); wg.Wait() })
}

// randomBytes returns n bytes that are the same in each run.
func randomBytes(n int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	r.Read(b)
	return b
}

// logged is a log that tests can read while it is written.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// onTransports dials a connection over simnet and accepts it through server. It
// must be called inside a synctest bubble. What it makes is closed at the end
// of the test.
func onTransports(t *testing.T, server *quiclife.Transport) ends {
	t.Helper()
	serverTLS, clientTLS := quictest.TLS()
	cc, sc, addr := quictest.Net{}.Endpoints(t)
	server.Conn = sc
	client := &quiclife.Transport{Conn: cc}
	ln, err := server.Listen(serverTLS, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		ln.Close()
		client.Close()
		server.Close()
	})
	c, err := client.Dial(t.Context(), addr, clientTLS, nil)
	require.NoError(t, err)
	s, err := ln.Accept(t.Context())
	require.NoError(t, err)
	return ends{c, s, c.Unwrap(), s.Unwrap()}
}

// uniStream opens a unidirectional stream on the client, sends x on it, and
// accepts it on the server.
func (e ends) uniStream(t *testing.T) (client *quiclife.SendStream, server *quiclife.ReceiveStream) {
	t.Helper()
	client, err := e.client.OpenUniStreamSync(t.Context())
	require.NoError(t, err)
	write(t, client, "x")
	server, err = e.server.AcceptUniStream(t.Context())
	require.NoError(t, err)
	expect(t, server, "x")
	return client, server
}

// requireHalves requires that both halves of a stream are in these states.
func requireHalves(t testing.TB, s interface{ Info() quiclife.StreamInfo }, send, receive quiclife.HalfState, msg ...any) {
	t.Helper()
	words := func(send, receive quiclife.HalfState) string {
		return fmt.Sprintf("send half %v, receive half %v", send, receive)
	}
	info := s.Info()
	require.Equal(t, words(send, receive), words(info.Send, info.Receive), msg...)
}

// requireLimitError requires that err is a LimitError, and returns it.
func requireLimitError(t testing.TB, err error, msg ...any) *quiclife.LimitError {
	t.Helper()
	var limit *quiclife.LimitError
	require.ErrorAs(t, err, &limit, msg...)
	return limit
}

// together makes the calls at the same moment, and waits until all have
// returned.
func together(calls ...func()) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for _, call := range calls {
		wg.Go(func() { <-start; call() })
	}
	close(start)
	wg.Wait()
}

// acceptAndRelease releases each stream that the peer opens, until c ends.
func acceptAndRelease(c *quiclife.Conn) {
	for {
		s, err := c.AcceptStream(context.Background())
		if err != nil {
			return
		}
		s.Release()
	}
}

// requireNothingLeftOf releases the streams, and then requires that neither end
// holds a stream. It is for fake time.
func (e ends) requireNothingLeftOf(t testing.TB, streams ...interface{ Release() }) {
	t.Helper()
	for _, s := range streams {
		s.Release()
	}
	settled()
	e.requireNothingLeft(t)
}

// udpSocket returns a socket that is closed at the end of the test.
func udpSocket(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// dialEarly dials with 0-RTT, which the server rejects or accepts. It returns
// the client's end before the handshake has completed. Call it in a bubble.
func dialEarly(t *testing.T, reject bool) (c *quiclife.Conn, accept func() *quiclife.Conn) {
	return dialEarlyUnder(t, &quiclife.Guard{}, reject)
}

func dialEarlyUnder(t *testing.T, guard *quiclife.Guard, reject bool) (c *quiclife.Conn, accept func() *quiclife.Conn) {
	clientSocket, serverSocket, addr := quictest.Net{}.Endpoints(t)
	serverTLS, clientTLS := quictest.TLS()
	serverTLS, clientTLS = serverTLS.Clone(), clientTLS.Clone()
	clientTLS.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	guard.Logger = slog.New(slog.DiscardHandler)
	client, server := &quiclife.Transport{Conn: clientSocket, Guard: guard}, &quiclife.Transport{Conn: serverSocket, Guard: guard}
	t.Cleanup(func() {
		client.Close()
		server.Close()
	})

	ln, err := server.ListenEarly(serverTLS, &quiclife.Config{Allow0RTT: true})
	require.NoError(t, err)
	c, err = client.Dial(t.Context(), addr, clientTLS, nil)
	require.NoError(t, err)
	settled() // the session ticket arrives
	require.NoError(t, c.CloseWithError(0, ""))
	require.NoError(t, ln.Close())

	ln, err = server.ListenEarly(serverTLS, &quiclife.Config{Allow0RTT: !reject})
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	c, err = client.DialEarly(t.Context(), addr, clientTLS, nil)
	require.NoError(t, err)
	require.False(t, c.ConnectionState().TLS.HandshakeComplete)
	synctest.Wait()
	return c, func() *quiclife.Conn {
		s, err := ln.Accept(t.Context())
		require.NoError(t, err)
		t.Cleanup(func() { s.CloseWithError(0, "") })
		return s
	}
}

// expectAll requires that r has s and then io.EOF.
func expectAll(t testing.TB, r io.Reader, s string) {
	t.Helper()
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, s, string(b))
}

// A site is a listener in fake time, and a transport to dial it from.
type site struct {
	listener       *quiclife.Listener
	server, client *quiclife.Transport
}

// newSite listens with server. Call it in a bubble. What it makes is closed at
// the end of the test.
func newSite(t *testing.T, server *quiclife.Transport, conf *quic.Config) *site {
	t.Helper()
	serverTLS, _ := quictest.TLS()
	cc, sc, _ := quictest.Net{}.Endpoints(t)
	server.Conn = sc
	client := &quiclife.Transport{Conn: cc, Guard: &quiclife.Guard{Logger: slog.New(slog.DiscardHandler)}}
	ln, err := server.Listen(serverTLS, conf)
	require.NoError(t, err)
	t.Cleanup(func() {
		ln.Close()
		client.Close()
		server.Close()
	})
	return &site{ln, server, client}
}

func (s *site) dial(ctx context.Context) (*quiclife.Conn, error) {
	_, clientTLS := quictest.TLS()
	return s.client.Dial(ctx, s.listener.Addr(), clientTLS, nil)
}

// connect dials and accepts.
func (s *site) connect(t *testing.T) ends {
	t.Helper()
	c, err := s.dial(t.Context())
	require.NoError(t, err)
	sc, err := s.listener.Accept(t.Context())
	require.NoError(t, err)
	return ends{c, sc, c.Unwrap(), sc.Unwrap()}
}

// leaks collects the leaks given to OnLeak.
type leaks struct {
	mu  sync.Mutex
	all []quiclife.Leak
}

func (l *leaks) add(leak quiclife.Leak) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, leak)
}

func (l *leaks) list() []quiclife.Leak {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

// require requires that exactly these leaks were reported so far.
func (l *leaks) require(t testing.TB, reasons ...quiclife.LeakReason) {
	t.Helper()
	var got []quiclife.LeakReason
	for _, leak := range l.list() {
		got = append(got, leak.Reason)
	}
	require.Equal(t, reasons, got, "leaks that were reported: %v", l.list())
}

// drop opens a stream, does something with it, and drops it.
//
//go:noinline
func drop(t *testing.T, c *quiclife.Conn, do func(*quiclife.Stream)) {
	s, err := c.OpenStream()
	require.NoError(t, err)
	do(s)
}

// dropUni opens a unidirectional stream, writes to it, and drops it.
//
//go:noinline
func dropUni(ctx context.Context, c *quiclife.Conn) error {
	s, err := c.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	_, err = io.WriteString(s, "settings")
	return err
}

// collectAndLook finds all dropped streams. In a bubble, Stats weakens young
// streams and looks for dropped ones.
func collectAndLook(conns ...*quiclife.Conn) {
	for _, c := range conns {
		c.Stats()
	}
	runtime.GC()
	for _, c := range conns {
		c.Stats()
	}
}

// handleEach runs handle for each bidirectional stream that the peer opens,
// each in its own goroutine, until c ends.
func handleEach(c *quiclife.Conn, handle func(*quiclife.Stream)) {
	for {
		s, err := c.AcceptStream(context.Background())
		if err != nil {
			return
		}
		go handle(s)
	}
}

// readAllAndRelease handles a stream as an application should.
func readAllAndRelease(s *quiclife.Stream) {
	io.Copy(io.Discard, s)
	s.Release()
}

// noContext is what a program passes by mistake.
var noContext context.Context

// longConf makes connections outlive all timeouts of their streams.
var longConf = &quic.Config{MaxIdleTimeout: 10 * time.Hour}

// requireRefused requires that a dial is refused.
func (s *site) requireRefused(t *testing.T) {
	t.Helper()
	_, err := s.dial(t.Context())
	require.ErrorIs(t, err, &quiclife.TransportError{ErrorCode: quiclife.ConnectionRefused, Remote: true})
}
