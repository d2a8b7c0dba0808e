package quiclife_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// A dialWay is one of the ways to dial.
type dialWay struct {
	name string
	dial func(t *testing.T, addr net.Addr, tlsConf *tls.Config, conf *quiclife.Config) (*quiclife.Conn, error)
}

// dialAddr is DialAddr or DialAddrEarly.
type dialAddr = func(context.Context, string, *tls.Config, *quiclife.Config) (*quiclife.Conn, error)

func byAddr(name string, f dialAddr) dialWay {
	return dialWay{name, func(t *testing.T, addr net.Addr, tlsConf *tls.Config, conf *quiclife.Config) (*quiclife.Conn, error) {
		return f(t.Context(), addr.String(), tlsConf, conf)
	}}
}

func bySocket(name string, f func(context.Context, net.PacketConn, net.Addr, *tls.Config, *quiclife.Config) (*quiclife.Conn, error)) dialWay {
	return dialWay{name, func(t *testing.T, addr net.Addr, tlsConf *tls.Config, conf *quiclife.Config) (*quiclife.Conn, error) {
		return f(t.Context(), udpSocket(t), addr, tlsConf, conf)
	}}
}

func dialWays(g *quiclife.Guard) []dialWay {
	if g == nil {
		return []dialWay{
			byAddr("DialAddr", quiclife.DialAddr), byAddr("DialAddrEarly", quiclife.DialAddrEarly),
			bySocket("Dial", quiclife.Dial), bySocket("DialEarly", quiclife.DialEarly),
		}
	}
	return []dialWay{
		byAddr("Guard.DialAddr", g.DialAddr), byAddr("Guard.DialAddrEarly", g.DialAddrEarly),
	}
}

// roundTrip requires that data sent from c to s comes back.
func roundTrip(t *testing.T, c, s *quiclife.Conn) {
	t.Helper()
	here, there := ends{client: c, server: s}.stream(t)
	write(t, there, "y")
	require.NoError(t, there.Close())
	require.NoError(t, here.Close())
	expectAll(t, here, "y")
	expectAll(t, there, "")
}

// Each function that makes connections makes them under the right Guard, with
// the limits of the Config in its counts.
func TestDialAndListenUseTheirGuardAndConfig(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	// Nothing else reads the variable meanwhile.
	defer func(g *quiclife.Guard) { quiclife.DefaultGuard = g }(quiclife.DefaultGuard)
	quiclife.DefaultGuard = &quiclife.Guard{MaxOutgoingStreams: 11}
	own := &quiclife.Guard{MaxOutgoingStreams: 12}

	for _, g := range []*quiclife.Guard{nil, own} {
		listens, dials := transportWays(t, g)
		listens, dials = append(listens, listenWays(g)...), append(dials, dialWays(g)...)
		require.Len(t, dials, len(listens))
		limit := int64(11)
		if g != nil {
			limit = 12
		}
		for i, l := range listens {
			d := dials[i]
			t.Run(l.name+" "+d.name, func(t *testing.T) {
				serverConf := &quiclife.Config{MaxIncomingStreams: 3, MaxIncomingUniStreams: -1}
				clientConf := &quiclife.Config{MaxIncomingStreams: 5, MaxIncomingUniStreams: 6}
				ln, err := l.listen("127.0.0.1:0", udpSocket(t), serverTLS, serverConf)
				require.NoError(t, err)
				defer ln.Close()
				c, err := d.dial(t, ln.Addr(), clientTLS, clientConf)
				require.NoError(t, err)
				defer c.CloseWithError(0, "")
				s, err := ln.Accept(t.Context())
				require.NoError(t, err)
				defer s.CloseWithError(0, "")
				roundTrip(t, c, s)
				requireLimits(t, c, 5, 6, limit)
				requireLimits(t, s, 3, 0, limit)
			})
		}
	}
	require.Equal(t, int64(12), own.MaxOutgoingStreams, "the Guard was written to")
}

// requireLimits requires the limits in the Stats of c.
func requireLimits(t *testing.T, c *quiclife.Conn, incoming, incomingUni, outgoing int64, msg ...any) {
	t.Helper()
	words := func(incoming, incomingUni, outgoing int64) string {
		return fmt.Sprintf("%d incoming, %d incoming unidirectional, %d outgoing", incoming, incomingUni, outgoing)
	}
	stats := c.Stats()
	require.Equal(t, words(incoming, incomingUni, outgoing), words(stats.Incoming.Limit, stats.IncomingUni.Limit, stats.Outgoing.Limit), msg...)
}

// A ticketCache signals when it has a session ticket.
type ticketCache struct {
	tls.ClientSessionCache
	put chan struct{}
}

func (c ticketCache) Put(key string, state *tls.ClientSessionState) {
	c.ClientSessionCache.Put(key, state)
	select {
	case c.put <- struct{}{}:
	default:
	}
}

func TestOnlyDialsNamedEarlyUse0RTT(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	clientTLS = clientTLS.Clone()
	ln, err := quiclife.ListenAddrEarly("127.0.0.1:0", serverTLS, &quiclife.Config{Allow0RTT: true})
	require.NoError(t, err)
	defer ln.Close()
	for _, g := range []*quiclife.Guard{nil, {}} {
		_, dials := transportWays(t, g)
		for _, d := range append(dials, dialWays(g)...) {
			cache := ticketCache{tls.NewLRUClientSessionCache(1), make(chan struct{}, 1)}
			clientTLS.ClientSessionCache = cache
			for _, want := range []bool{false, strings.HasSuffix(d.name, "Early")} {
				c, err := d.dial(t, ln.Addr(), clientTLS, nil)
				require.NoError(t, err, d.name)
				<-c.HandshakeComplete()
				require.Equal(t, want, c.ConnectionState().Used0RTT, "whether %s used 0-RTT", d.name)
				<-cache.put
				require.NoError(t, c.CloseWithError(0, ""))
			}
		}
	}
}

// openSockets returns the open sockets of the process.
func openSockets(t *testing.T) map[string]bool {
	t.Helper()
	const dir = "/proc/self/fd/"
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Skip("no " + dir)
	}
	sockets := make(map[string]bool)
	for _, f := range files {
		if name, _ := os.Readlink(dir + f.Name()); strings.HasPrefix(name, "socket:") {
			sockets[name] = true
		}
	}
	return sockets
}

// newSockets counts the open sockets that are not in before.
func newSockets(t *testing.T, before map[string]bool) (n int) {
	t.Helper()
	for s := range openSockets(t) {
		if !before[s] {
			n++
		}
	}
	return n
}

// A failed dial leaves no socket open. quic-go leaves it to the garbage
// collector; the plain half of the test fails once quic-go has fixed that.
func TestFailedDialLeavesNoSocket(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the garbage collector would close forgotten sockets
	_, clientTLS := quictest.TLS()
	silent := udpSocket(t).LocalAddr().String() // nobody answers there
	for _, tt := range []struct {
		name      string
		addr      string
		tlsConf   *tls.Config
		conf      *quiclife.Config
		cancelled bool
		want      error // or nil for any
		plain     int   // sockets that quic-go leaves
	}{
		{name: "no tls.Config", addr: silent, plain: 1},
		{name: "no port", addr: "127.0.0.1", tlsConf: clientTLS, plain: 1},
		{name: "no such port", addr: "127.0.0.1:nosuchport", tlsConf: clientTLS, plain: 1},
		{name: "bad version", addr: silent, tlsConf: clientTLS, conf: &quiclife.Config{Versions: []quiclife.Version{1234}}},
		{name: "cancelled", addr: silent, tlsConf: clientTLS, cancelled: true, want: context.Canceled},
		{name: "no answer", addr: silent, tlsConf: clientTLS, want: context.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before, sockets := goleak.IgnoreCurrent(), openSockets(t)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			switch {
			case tt.cancelled:
				cancel()
			case tt.want != nil:
				ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
			}
			for _, dial := range []dialAddr{
				quiclife.DialAddr, quiclife.DialAddrEarly,
			} {
				c, err := dial(ctx, tt.addr, tt.tlsConf, tt.conf)
				require.Error(t, err)
				require.Nil(t, c)
				if tt.want != nil {
					require.ErrorIs(t, err, tt.want)
				}
			}
			quictest.RequireNoGoroutines(t, before)
			require.Zero(t, newSockets(t, sockets), "sockets left open")

			_, err := quic.DialAddr(ctx, tt.addr, tt.tlsConf, tt.conf)
			require.Error(t, err)
			require.Equal(t, tt.plain, newSockets(t, sockets), "sockets that plain quic-go leaves open")
			eventually(t, func() bool {
				runtime.GC()
				return newSockets(t, sockets) == 0
			})
		})
	}
}

// As in quic-go, DialAddr takes the server's name from addr if the tls.Config
// has none. The Config may be nil.
func TestDialAddrInfersServerName(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	serverTLS, clientTLS = serverTLS.Clone(), clientTLS.Clone()
	asked := make(chan string, 1)
	serverTLS.GetConfigForClient = func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		asked <- info.ServerName
		return nil, nil
	}
	ln, err := quiclife.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	require.NoError(t, err)

	for _, tt := range []struct{ configured, host, want string }{
		{"", "localhost", "localhost"},
		{"", "127.0.0.1", ""}, // an address is verified, but not sent
		{"localhost", "127.0.0.1", "localhost"},
	} {
		clientTLS.ServerName = tt.configured
		for name, dial := range map[string]dialAddr{
			"DialAddr":      quiclife.DialAddr,
			"DialAddrEarly": quiclife.DialAddrEarly,
			"quic-go": func(ctx context.Context, addr string, tlsConf *tls.Config, conf *quiclife.Config) (*quiclife.Conn, error) {
				raw, err := quic.DialAddr(ctx, addr, tlsConf, conf)
				if err != nil {
					return nil, err
				}
				return quiclife.Wrap(raw, conf), nil
			},
		} {
			c, err := dial(t.Context(), net.JoinHostPort(tt.host, port), clientTLS, nil)
			require.NoError(t, err, name)
			require.Equal(t, tt.want, <-asked, "the name that %s sends for %s, configured %q", name, tt.host, tt.configured)
			require.Equal(t, tt.configured, clientTLS.ServerName, "%s has written to the caller's tls.Config", name)
			require.NoError(t, c.CloseWithError(0, ""))
		}
	}
}

func TestDialAddrClosesItsSocketWhenConnectionHasEnded(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	ln, err := quiclife.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	defer ln.Close()
	for name, dial := range map[string]dialAddr{"DialAddr": quiclife.DialAddr, "DialAddrEarly": quiclife.DialAddrEarly} {
		sockets := openSockets(t)
		c, err := dial(t.Context(), ln.Addr().String(), clientTLS, nil)
		require.NoError(t, err, name)
		require.Equal(t, 1, newSockets(t, sockets), name)
		require.NoError(t, c.CloseWithError(0, ""))
		eventually(t, func() bool { return newSockets(t, sockets) == 0 }, name)
	}
}

// setResolver makes the default resolver reach DNS servers through dial, until
// the end of the test.
func setResolver(t *testing.T, dial func(context.Context, string, string) (net.Conn, error)) {
	old := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: dial}
	t.Cleanup(func() { net.DefaultResolver = old })
}

// answerDNS answers one question in the format for TCP. both.example has
// addresses of both families, v6.example has one, and other names have none.
func answerDNS(c net.Conn) {
	defer c.Close()
	length := make([]byte, 2)
	if _, err := io.ReadFull(c, length); err != nil {
		return
	}
	query := make([]byte, binary.BigEndian.Uint16(length))
	if _, err := io.ReadFull(c, query); err != nil {
		return
	}
	const header = 12
	end := header + bytes.IndexByte(query[header:], 0) + 5 // end of the question: name, type, class
	answer := append(query[:2:2], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0)
	answer = append(answer, query[header:end]...)
	name, aaaa := string(query[header+1:header+5]), query[end-3] == 28
	var ip net.IP
	switch {
	case aaaa && (name == "both" || name[:2] == "v6"):
		ip = net.ParseIP("2001:db8::1")
	case !aaaa && name == "both":
		ip = net.IPv4(192, 0, 2, 1).To4()
	}
	if ip != nil {
		answer[7] = 1
		answer = append(answer, 0xc0, header)
		answer = append(answer, query[end-4:end]...)
		answer = append(answer, 0, 0, 0, 60, 0, byte(len(ip)))
		answer = append(answer, ip...)
	}
	binary.BigEndian.PutUint16(length, uint16(len(answer)))
	c.Write(append(length, answer...))
}

// DialAddr resolves to the same addresses as quic-go's, and fails in the same
// way.
func TestDialAddrResolvesAsQUICGoDoes(t *testing.T) {
	setResolver(t, func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go answerDNS(server)
		return client, nil
	})
	for _, addr := range []string{
		"", ":", ":443", ":domain", "127.0.0.1", "127.0.0.1:", "127.0.0.1:443", "127.0.0.1:domain", "127.0.0.1:nosuchport",
		"127.0.0.1:99999", "127.0.0.1:-1", "::1:443", "[::1]", "[::1]:443", "[::]:1", "[fe80::1%lo]:443", "[fe80::1%nosuch]:1",
		"[::ffff:1.2.3.4]:443", "[127.0.0.1]:443", "localhost:443", "[localhost]:443", "both.example:443", "[both.example]:443", "v6.example:domain",
		"none.example:443",
		"a b:443", "[::1:443", "127.0.0.1:443:443",
	} {
		want, wantErr := net.ResolveUDPAddr("udp", addr)
		got, err := quiclife.ResolveUDPAddr(t.Context(), addr)
		require.Equal(t, wantErr, err, addr)
		require.Equal(t, want, got, addr)
	}
	got, err := quiclife.ResolveUDPAddr(t.Context(), "both.example:443")
	require.NoError(t, err)
	require.Equal(t, "192.0.2.1:443", got.String())
	got, err = quiclife.ResolveUDPAddr(t.Context(), "[both.example]:443")
	require.NoError(t, err)
	require.Equal(t, "[2001:db8::1]:443", got.String())
}

// If a resolver does not answer, the context ends the dial.
func TestDialAddrEndsWithContextWhileItResolves(t *testing.T) {
	_, clientTLS := quictest.TLS()
	asked := make(chan struct{}, 10)
	setResolver(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
		asked <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	before, tired := goleak.IgnoreCurrent(), errors.New("tired")
	for name, dial := range map[string]dialAddr{
		"DialAddr": quiclife.DialAddr, "DialAddrEarly": quiclife.DialAddrEarly,
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		dialed := make(chan error, 1)
		go func() {
			_, err := dial(ctx, name+".example:443", clientTLS, nil)
			dialed <- err
		}()
		<-asked
		cancel(tired)
		select {
		case err := <-dialed:
			require.Equal(t, tired, err, name)
		case <-time.After(20 * time.Second):
			t.Fatalf("%s goes on though its context is done", name)
		}
	}
	quictest.RequireNoGoroutines(t, before)
}
