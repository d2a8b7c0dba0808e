package quiclife_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// udpSocket is closed at the end of the test, if the test has not done it.
func udpSocket(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// A listener is a Listener or an EarlyListener.
type listener interface {
	Accept(context.Context) (*quiclife.Conn, error)
	Addr() net.Addr
	Close() error
}

// A listenWay is one of the ways to listen, on addr or on socket.
type listenWay struct {
	name   string
	socket bool // on socket, which stays the caller's
	listen func(addr string, socket net.PacketConn, tlsConf *tls.Config, conf *quiclife.Config) (listener, error)
}

func onAddr[L listener](name string, f func(string, *tls.Config, *quiclife.Config) (L, error)) listenWay {
	return listenWay{name, false, func(addr string, _ net.PacketConn, tlsConf *tls.Config, conf *quiclife.Config) (listener, error) {
		return f(addr, tlsConf, conf)
	}}
}

func onSocket[L listener](name string, f func(net.PacketConn, *tls.Config, *quiclife.Config) (L, error)) listenWay {
	return listenWay{name, true, func(_ string, socket net.PacketConn, tlsConf *tls.Config, conf *quiclife.Config) (listener, error) {
		return f(socket, tlsConf, conf)
	}}
}

// listenWays are those of the package itself, or of g.
func listenWays(g *quiclife.Guard) []listenWay {
	if g == nil {
		return []listenWay{
			onAddr("ListenAddr", quiclife.ListenAddr), onAddr("ListenAddrEarly", quiclife.ListenAddrEarly),
			onSocket("Listen", quiclife.Listen), onSocket("ListenEarly", quiclife.ListenEarly),
		}
	}
	return []listenWay{
		onAddr("Guard.ListenAddr", g.ListenAddr), onAddr("Guard.ListenAddrEarly", g.ListenAddrEarly),
		onSocket("Guard.Listen", g.Listen), onSocket("Guard.ListenEarly", g.ListenEarly),
	}
}

// A dialWay is one of the ways to dial.
type dialWay struct {
	name string
	dial func(t *testing.T, addr net.Addr, tlsConf *tls.Config, conf *quiclife.Config) (*quiclife.Conn, error)
}

func byAddr(name string, f func(context.Context, string, *tls.Config, *quiclife.Config) (*quiclife.Conn, error)) dialWay {
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
		bySocket("Guard.Dial", g.Dial), bySocket("Guard.DialEarly", g.DialEarly),
	}
}

// transportWays are those of a Transport with g.
func transportWays(t *testing.T, g *quiclife.Guard) ([]listenWay, []dialWay) {
	transport := func(t *testing.T, socket net.PacketConn) *quiclife.Transport {
		tr := &quiclife.Transport{Conn: socket, Guard: g}
		t.Cleanup(func() { tr.Close() })
		return tr
	}
	return []listenWay{
			onSocket("Transport.Listen", func(socket net.PacketConn, tlsConf *tls.Config, conf *quiclife.Config) (*quiclife.Listener, error) {
				return transport(t, socket).Listen(tlsConf, conf)
			}),
			onSocket("Transport.ListenEarly", func(socket net.PacketConn, tlsConf *tls.Config, conf *quiclife.Config) (*quiclife.EarlyListener, error) {
				return transport(t, socket).ListenEarly(tlsConf, conf)
			}),
		}, []dialWay{
			{"Transport.Dial", func(t *testing.T, addr net.Addr, tlsConf *tls.Config, conf *quiclife.Config) (*quiclife.Conn, error) {
				return transport(t, udpSocket(t)).Dial(t.Context(), addr, tlsConf, conf)
			}},
			{"Transport.DialEarly", func(t *testing.T, addr net.Addr, tlsConf *tls.Config, conf *quiclife.Config) (*quiclife.Conn, error) {
				return transport(t, udpSocket(t)).DialEarly(t.Context(), addr, tlsConf, conf)
			}},
		}
}

// roundTrip requires that a stream of c arrives at s, and comes back.
func roundTrip(t *testing.T, c, s *quiclife.Conn) {
	t.Helper()
	e := ends{client: c, server: s}
	here, there := e.stream(t)
	write(t, there, "y")
	require.NoError(t, there.Close())
	require.NoError(t, here.Close())
	b, err := io.ReadAll(here)
	require.NoError(t, err)
	require.Equal(t, "y", string(b))
	_, err = there.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
}

// All functions that make connections do so, under the right Guard, with the
// counts limited as the Config says.
func TestDialListen(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	// Nothing else reads the variable meanwhile.
	defer func(g *quiclife.Guard) { quiclife.DefaultGuard = g }(quiclife.DefaultGuard)
	quiclife.DefaultGuard = &quiclife.Guard{MaxOutgoingStreams: 11}
	own := &quiclife.Guard{MaxOutgoingStreams: 12}

	for _, g := range []*quiclife.Guard{nil, own} {
		listens, dials := transportWays(t, g)
		listens, dials = append(listens, listenWays(g)...), append(dials, dialWays(g)...)
		limit := int64(11)
		if g != nil {
			limit = 12
		}
		for _, l := range listens {
			for _, d := range dials {
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

					stats := c.Stats()
					require.Equal(t, []int64{5, 6, limit}, []int64{stats.Incoming.Limit, stats.IncomingUni.Limit, stats.Outgoing.Limit})
					stats = s.Stats()
					require.Equal(t, []int64{3, 0, limit}, []int64{stats.Incoming.Limit, stats.IncomingUni.Limit, stats.Outgoing.Limit})
				})
			}
		}
	}
	require.Equal(t, int64(12), own.MaxOutgoingStreams)
}

// A ticketCache tells when it has a session ticket.
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

// The functions named Early use 0-RTT, the others do not.
func TestDialEarly(t *testing.T) {
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
				require.Equal(t, want, c.ConnectionState().Used0RTT, d.name)
				<-cache.put
				require.NoError(t, c.CloseWithError(0, ""))
			}
		}
	}
}

// This test tells us when upstream mends the defect: a connection
// outlives quic-go's listener and ends by a timeout, and nobody is left to
// close the transport.
func TestPlainListenerLeavesTransport(t *testing.T) {
	before := goleak.IgnoreCurrent()
	serverTLS, clientTLS := quictest.TLS()
	socket, clientSocket := udpSocket(t), udpSocket(t)
	ln, err := quic.Listen(socket, serverTLS, &quic.Config{MaxIdleTimeout: 100 * time.Millisecond})
	require.NoError(t, err)
	tr := &quic.Transport{Conn: clientSocket}
	_, err = tr.Dial(t.Context(), ln.Addr(), clientTLS, nil)
	require.NoError(t, err)
	s, err := ln.Accept(t.Context())
	require.NoError(t, err)
	require.NoError(t, clientSocket.Close()) // the client vanishes without a word
	require.NoError(t, tr.Close())
	require.NoError(t, ln.Close())
	<-s.Context().Done()
	require.ErrorIs(t, context.Cause(s.Context()), &quic.IdleTimeoutError{})

	err = goleak.Find(before) // waits, if need be
	require.ErrorContains(t, err, "quic-go.(*Transport).listen")
	require.ErrorContains(t, err, "quic-go.(*Transport).runSendQueue")
	require.NoError(t, socket.Close()) // in place of what ListenAddr would leave open
	require.NoError(t, goleak.Find(before))
}

// Of a listener that was made without a Transport nothing is left when it has
// been closed and its last connection has ended, however and in whatever order.
func TestNothingLeftOfListener(t *testing.T) {
	const (
		timesOut = "times out"
		closed   = "closed"
		byPeer   = "closed by the peer"
		ignored  = "never accepted"
		fails    = "handshake fails"
	)
	// With MaxConns each connection has to be uncounted before the next is made.
	for _, l := range listenWays(&quiclife.Guard{MaxConns: 1}) {
		for _, end := range []string{timesOut, closed, byPeer, ignored, fails} {
			for _, listenerFirst := range []bool{true, false} {
				name := l.name + " " + end
				if listenerFirst {
					name += ", listener first"
				}
				t.Run(name, func(t *testing.T) {
					before := goleak.IgnoreCurrent()
					serverTLS, clientTLS := quictest.TLS()
					socket, clientSocket := udpSocket(t), udpSocket(t)
					ln, err := l.listen("127.0.0.1:0", socket, serverTLS, &quiclife.Config{MaxIdleTimeout: 100 * time.Millisecond})
					require.NoError(t, err)
					addr := ln.Addr().(*net.UDPAddr)
					tr := &quic.Transport{Conn: clientSocket}
					defer tr.Close()
					if end == fails {
						clientTLS = clientTLS.Clone()
						clientTLS.NextProtos = []string{"another"}
					}
					rc, err := tr.Dial(t.Context(), addr, clientTLS, nil)
					require.Equal(t, end == fails, err != nil)
					var c, s *quiclife.Conn
					if end != fails {
						c = quiclife.Wrap(rc, nil)
					}
					if end != fails && end != ignored {
						s, err = ln.Accept(t.Context())
						require.NoError(t, err)
					}
					closeListener := func() {
						require.NoError(t, ln.Close())
						require.NoError(t, ln.Close())
					}

					if listenerFirst {
						closeListener()
					}
					if s != nil {
						roundTrip(t, c, s) // the listener's end harms no connection
					}
					switch end {
					case timesOut:
						require.NoError(t, clientSocket.Close()) // the client vanishes without a word
						<-s.Context().Done()
						require.ErrorIs(t, context.Cause(s.Context()), &quiclife.IdleTimeoutError{})
					case closed:
						require.NoError(t, s.CloseWithError(1, ""))
					case byPeer:
						require.NoError(t, c.CloseWithError(1, ""))
						<-s.Context().Done()
					case ignored:
						require.NoError(t, c.CloseWithError(1, ""))
					}
					if !listenerFirst {
						closeListener()
					}

					if c != nil {
						c.CloseWithError(0, "")
					}
					require.NoError(t, tr.Close())
					require.NoError(t, goleak.Find(before))
					if l.socket {
						requireUsable(t, socket)
					} else {
						requireFree(t, addr)
					}
				})
			}
		}
	}
}

// requireUsable requires that socket is open, and that nobody else reads from it.
func requireUsable(t *testing.T, socket *net.UDPConn) {
	t.Helper()
	_, err := udpSocket(t).WriteTo([]byte("hello"), socket.LocalAddr())
	require.NoError(t, err)
	b := make([]byte, 2000)
	require.NoError(t, socket.SetReadDeadline(time.Now().Add(20*time.Second)))
	for { // past what QUIC has left there
		n, _, err := socket.ReadFrom(b)
		require.NoError(t, err)
		if string(b[:n]) == "hello" {
			return
		}
	}
}

// requireFree requires that addr can be bound.
func requireFree(t *testing.T, addr *net.UDPAddr) {
	t.Helper()
	c, err := net.ListenUDP("udp", addr)
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

// A Listen that fails leaves nothing behind.
func TestListenFails(t *testing.T) {
	serverTLS, _ := quictest.TLS()
	for _, l := range listenWays(&quiclife.Guard{}) {
		for _, tt := range []struct {
			name    string
			tlsConf *tls.Config
			conf    *quiclife.Config
		}{
			{"without a tls.Config", nil, nil},
			{"bad version", serverTLS, &quiclife.Config{Versions: []quiclife.Version{1234}}},
		} {
			t.Run(l.name+" "+tt.name, func(t *testing.T) {
				before := goleak.IgnoreCurrent()
				socket, other := udpSocket(t), udpSocket(t)
				addr := other.LocalAddr().(*net.UDPAddr)
				require.NoError(t, other.Close())

				ln, err := l.listen(addr.String(), socket, tt.tlsConf, tt.conf)
				require.Error(t, err)
				require.Nil(t, ln)

				require.NoError(t, goleak.Find(before))
				requireFree(t, addr)
				requireUsable(t, socket)
			})
		}
		if !l.socket {
			for _, addr := range []string{"127.0.0.1", udpSocket(t).LocalAddr().String()} { // no port, taken
				_, err := l.listen(addr, nil, serverTLS, nil)
				require.Error(t, err, "%s %s", l.name, addr)
			}
		}
	}
}

// openSockets returns the sockets that the process has open.
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

// newSockets counts the sockets that are open and not in before.
func newSockets(t *testing.T, before map[string]bool) (n int) {
	t.Helper()
	for s := range openSockets(t) {
		if !before[s] {
			n++
		}
	}
	return n
}

// A dial that fails leaves no socket open, other than quic-go's, where it is
// up to the garbage collector: the plain part tells when upstream mends that.
func TestDialFails(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which would close forgotten sockets
	_, clientTLS := quictest.TLS()
	silent := udpSocket(t).LocalAddr().String() // nobody answers there
	for _, tt := range []struct {
		name      string
		addr      string
		tlsConf   *tls.Config
		conf      *quiclife.Config
		cancelled bool
		want      error // or any
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
			for _, dial := range []func(context.Context, string, *tls.Config, *quiclife.Config) (*quiclife.Conn, error){
				quiclife.DialAddr, quiclife.DialAddrEarly,
			} {
				c, err := dial(ctx, tt.addr, tt.tlsConf, tt.conf)
				require.Error(t, err)
				require.Nil(t, c)
				if tt.want != nil {
					require.ErrorIs(t, err, tt.want)
				}
			}
			require.NoError(t, goleak.Find(before))
			require.Zero(t, newSockets(t, sockets))

			_, err := quic.DialAddr(ctx, tt.addr, tt.tlsConf, tt.conf)
			require.Error(t, err)
			require.Equal(t, tt.plain, newSockets(t, sockets))
			eventually(t, func() bool {
				runtime.GC()
				return newSockets(t, sockets) == 0
			})
		})
	}
}

// DialAddr infers the name of the server from addr, as quic-go does, and closes
// its socket when the connection has ended. A nil Config will do.
func TestDialAddr(t *testing.T) {
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
		for name, dial := range map[string]func(string) (*quiclife.Conn, error){
			"DialAddr": func(addr string) (*quiclife.Conn, error) {
				return quiclife.DialAddr(t.Context(), addr, clientTLS, nil)
			},
			"DialAddrEarly": func(addr string) (*quiclife.Conn, error) {
				return quiclife.DialAddrEarly(t.Context(), addr, clientTLS, nil)
			},
			"quic-go": func(addr string) (*quiclife.Conn, error) {
				raw, err := quic.DialAddr(t.Context(), addr, clientTLS, nil)
				if err != nil {
					return nil, err
				}
				return quiclife.Wrap(raw, nil), nil
			},
		} {
			sockets := openSockets(t)
			c, err := dial(net.JoinHostPort(tt.host, port))
			require.NoError(t, err, name)
			s, err := ln.Accept(t.Context())
			require.NoError(t, err, name)
			require.Equal(t, tt.want, <-asked, name)
			require.Equal(t, tt.configured, clientTLS.ServerName, name) // the caller's is not written to

			require.Equal(t, 1, newSockets(t, sockets), name)
			require.NoError(t, c.CloseWithError(0, ""))
			<-s.Context().Done()
			eventually(t, func() bool { return newSockets(t, sockets) == 0 }, name)
		}
	}
}

// Values of fields that are interfaces; they are never called for anything.
type (
	connIDs  struct{}
	recorder struct{ recorded *atomic.Bool } // or nil
)

func (connIDs) GenerateConnectionID() (id quiclife.ConnectionID, _ error) { return id, nil }
func (connIDs) ConnectionIDLen() int                                      { return 6 }
func (r recorder) RecordEvent(qlogwriter.Event) {
	if r.recorded != nil {
		r.recorded.Store(true)
	}
}
func (recorder) Close() error { return nil }

// Every field of a Transport reaches quic-go, and stays the caller's.
func TestTransportFields(t *testing.T) {
	serverTLS, _ := quictest.TLS()
	done, cancel := context.WithCancel(t.Context())
	cancel()
	asked := 0
	var recorded atomic.Bool
	tr := &quiclife.Transport{
		Conn:                             udpSocket(t),
		ConnectionIDLength:               6,
		ConnectionIDGenerator:            connIDs{},
		StatelessResetKey:                &quiclife.StatelessResetKey{1},
		TokenGeneratorKey:                &quiclife.TokenGeneratorKey{2},
		MaxTokenAge:                      time.Hour,
		DisableVersionNegotiationPackets: true,
		VerifySourceAddress:              func(net.Addr) bool { return true },
		ConnContext:                      func(ctx context.Context, _ *quiclife.ClientInfo) (context.Context, error) { asked++; return ctx, nil },
		Tracer:                           recorder{recorded: &recorded},
	}
	defer tr.Close()
	fields := func() map[string]any {
		m := make(map[string]any)
		v, raw := reflect.ValueOf(tr).Elem(), reflect.ValueOf(tr.Unwrap()).Elem()
		for f := range raw.Type().Fields() {
			if f.IsExported() {
				mine, its := v.FieldByName(f.Name), raw.FieldByName(f.Name)
				require.False(t, mine.IsZero(), "set %s too", f.Name)
				switch {
				case f.Name == "ConnContext": // the Guard's, which asks ours
					m[f.Name] = mine.Pointer()
					_, err := tr.Unwrap().ConnContext(done, &quiclife.ClientInfo{})
					require.NoError(t, err)
				case f.Name == "VerifySourceAddress":
					m[f.Name] = mine.Pointer()
					require.True(t, tr.Unwrap().VerifySourceAddress(nil), f.Name)
				case f.Name == "Tracer": // which tells us of the end, too
					m[f.Name] = mine.Interface()
					its.Interface().(qlogwriter.Recorder).RecordEvent(nil)
					require.True(t, recorded.Swap(false), f.Name)
				case f.Name == "ConnectionIDGenerator":
					m[f.Name] = mine.Interface()
					require.Equal(t, 6, tr.Unwrap().ConnectionIDGenerator.ConnectionIDLen(), f.Name)
				default:
					m[f.Name] = mine.Interface()
					require.Equal(t, m[f.Name], its.Interface(), f.Name)
				}
			}
		}
		return m
	}
	before := fields()
	require.Len(t, before, 10)
	ln, err := tr.Listen(serverTLS, nil)
	require.NoError(t, err)
	defer ln.Close()
	require.Equal(t, before, fields())
	require.Equal(t, 2, asked)

	// What is not set stays so, where quic-go makes a key and keeps it.
	unset := &quiclife.Transport{Conn: udpSocket(t)}
	ln, err = unset.Listen(serverTLS, nil)
	require.NoError(t, err)
	require.NotNil(t, unset.Unwrap().TokenGeneratorKey)
	require.NoError(t, ln.Close())
	require.NoError(t, unset.Close())
	v := reflect.ValueOf(unset).Elem()
	for f := range v.Type().Fields() {
		if f.IsExported() && f.Name != "Conn" {
			require.Zero(t, v.FieldByName(f.Name).Interface(), f.Name)
		}
	}
}

// Fields that quic-go reads when it begins to listen may be set until then,
// also if the transport has dialed before.
func TestTransportFieldsSetLate(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	peer := &quiclife.Transport{Conn: udpSocket(t)}
	defer peer.Close()
	peerListener, err := peer.Listen(serverTLS, nil)
	require.NoError(t, err)
	defer peerListener.Close()

	tr := &quiclife.Transport{Conn: udpSocket(t)}
	defer tr.Close()
	c, err := tr.Dial(t.Context(), peerListener.Addr(), clientTLS, nil)
	require.NoError(t, err)
	defer c.CloseWithError(0, "")

	type key struct{}
	verified := make(chan net.Addr, 10)
	tr.VerifySourceAddress = func(a net.Addr) bool { verified <- a; return true }
	tr.ConnContext = func(ctx context.Context, info *quiclife.ClientInfo) (context.Context, error) {
		return context.WithValue(ctx, key{}, info.AddrVerified), nil
	}
	tr.MaxTokenAge = time.Minute
	tr.DisableVersionNegotiationPackets = true
	ln, err := tr.ListenEarly(serverTLS, nil)
	require.NoError(t, err)
	defer ln.Close()
	c, err = peer.Dial(t.Context(), ln.Addr(), clientTLS, nil)
	require.NoError(t, err)
	defer c.CloseWithError(0, "")
	s, err := ln.Accept(t.Context())
	require.NoError(t, err)
	defer s.CloseWithError(0, "")

	require.NotEmpty(t, verified)
	require.Equal(t, peer.Conn.LocalAddr().String(), (<-verified).String())
	require.Equal(t, true, s.Context().Value(key{}))
	require.Equal(t, time.Minute, tr.Unwrap().MaxTokenAge)
	require.True(t, tr.Unwrap().DisableVersionNegotiationPackets)
}

// One listener at a time; Close may be called again; Accept fails after it.
func TestTransportClose(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	tr := &quiclife.Transport{Conn: udpSocket(t)}
	for _, l := range []func() (listener, error){
		func() (listener, error) { return tr.Listen(serverTLS, nil) },
		func() (listener, error) { return tr.ListenEarly(serverTLS, nil) },
	} {
		ln, err := l()
		require.NoError(t, err)
		_, err = tr.Listen(serverTLS, nil)
		require.Error(t, err)
		_, err = tr.ListenEarly(serverTLS, nil)
		require.Error(t, err)

		accepted := make(chan error, 1)
		go func() {
			_, err := ln.Accept(t.Context())
			accepted <- err
		}()
		require.NoError(t, ln.Close())
		require.Equal(t, quiclife.ErrServerClosed, <-accepted)
		_, err = ln.Accept(t.Context())
		require.Equal(t, quiclife.ErrServerClosed, err)
		require.ErrorIs(t, err, net.ErrClosed)
		require.NoError(t, ln.Close())
	}
	ln, err := tr.Listen(serverTLS, nil) // the next one
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = ln.Accept(ctx)
	require.ErrorIs(t, err, context.Canceled)

	require.NoError(t, tr.Close())
	require.NoError(t, tr.Close())
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = ln.Accept(ctx)
	require.ErrorIs(t, err, quiclife.ErrTransportClosed)
	require.NoError(t, ln.Close())
	_, err = tr.Listen(serverTLS, nil)
	require.ErrorIs(t, err, quiclife.ErrTransportClosed)
	_, err = tr.Dial(t.Context(), tr.Conn.LocalAddr(), clientTLS, nil)
	require.ErrorIs(t, err, quiclife.ErrTransportClosed)
	requireUsable(t, tr.Conn.(*net.UDPConn)) // Conn stays the caller's

	unused := &quiclife.Transport{Conn: udpSocket(t)}
	require.NoError(t, unused.Close())
}

// Closing the transport ends its connections, and their streams.
func TestTransportCloseEndsConnections(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	server, client := &quiclife.Transport{Conn: udpSocket(t)}, &quiclife.Transport{Conn: udpSocket(t)}
	defer server.Close()
	ln, err := server.Listen(serverTLS, nil)
	require.NoError(t, err)
	c, err := client.Dial(t.Context(), ln.Addr(), clientTLS, nil)
	require.NoError(t, err)
	s, err := ln.Accept(t.Context())
	require.NoError(t, err)
	defer s.CloseWithError(0, "")
	str, _ := ends{client: c, server: s}.stream(t)

	require.NoError(t, client.Close())
	require.ErrorIs(t, context.Cause(c.Context()), quiclife.ErrTransportClosed)
	_, err = str.Read(make([]byte, 1))
	require.ErrorIs(t, err, quiclife.ErrTransportClosed)
	eventually(t, func() bool { return c.Stats().Open() == 0 })
	requireBalance(t, c.Stats())
}

func TestNonQUICPackets(t *testing.T) {
	a, b := &quiclife.Transport{Conn: udpSocket(t)}, &quiclife.Transport{Conn: udpSocket(t)}
	defer a.Close()
	defer b.Close()
	done, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := b.ReadNonQUICPacket(done, nil) // from now on quic-go keeps such packets
	require.ErrorIs(t, err, context.Canceled)

	packet := []byte("\x00not QUIC")
	n, err := a.WriteTo(packet, b.Conn.LocalAddr())
	require.NoError(t, err)
	require.Equal(t, len(packet), n)
	buf := make([]byte, 100)
	n, from, err := b.ReadNonQUICPacket(t.Context(), buf)
	require.NoError(t, err)
	require.Equal(t, packet, buf[:n])
	require.Equal(t, a.Conn.LocalAddr().String(), from.String())
}

// TestUnwrapOfNil: a program that hands on what a failed Dial or Listen returned,
// unwrapped, beside its error, must not panic.
func TestUnwrapOfNil(t *testing.T) {
	require.Nil(t, (*quiclife.Conn)(nil).Unwrap())
	require.Nil(t, (*quiclife.Transport)(nil).Unwrap())
	require.Nil(t, (*quiclife.Listener)(nil).Unwrap())
	require.Nil(t, (*quiclife.EarlyListener)(nil).Unwrap())
}

// What Unwrap returns is what the wrapper uses; what is made through it is not
// counted, until Wrap.
func TestUnwrap(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	server, client := &quiclife.Transport{Conn: udpSocket(t)}, &quiclife.Transport{Conn: udpSocket(t)}
	defer server.Close()
	defer client.Close()
	require.Same(t, server.Unwrap(), server.Unwrap())

	ln, err := server.Listen(serverTLS, nil)
	require.NoError(t, err)
	_, err = server.Unwrap().Listen(serverTLS, nil)
	require.Error(t, err) // the same transport: it has a listener
	accept := []func(context.Context) (*quic.Conn, error){ln.Unwrap().Accept}
	require.Equal(t, ln.Addr(), ln.Unwrap().Addr())
	for early := range 2 {
		if early == 1 {
			require.NoError(t, ln.Close())
			ln, err := server.ListenEarly(serverTLS, nil)
			require.NoError(t, err)
			defer ln.Close()
			require.Equal(t, ln.Addr(), ln.Unwrap().Addr())
			accept = append(accept, ln.Unwrap().Accept)
		}
		rc, err := client.Unwrap().Dial(t.Context(), server.Conn.LocalAddr(), clientTLS, nil)
		require.NoError(t, err)
		rs, err := accept[early](t.Context())
		require.NoError(t, err)
		c, s := quiclife.Wrap(rc, nil), quiclife.Wrap(rs, nil)
		require.Same(t, rc, c.Unwrap())
		_, err = rc.OpenStream()
		require.NoError(t, err)
		require.Zero(t, c.Stats().Outgoing.Opened)
		require.NoError(t, c.CloseWithError(0, ""))
		<-s.Context().Done()
	}
	require.NoError(t, server.Unwrap().Close())
	_, err = server.Listen(serverTLS, nil)
	require.ErrorIs(t, err, quiclife.ErrTransportClosed)
}

// The Config that GetConfigForClient returns for a connection is the one that
// counts, also for its limits and RequireStreamCreditRelease.
func TestGetConfigForClientSaysTheLimits(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	var answer atomic.Pointer[func() (*quiclife.Config, error)]
	conf := &quiclife.Config{
		MaxIncomingStreams: 9,
		GetConfigForClient: func(*quiclife.ClientInfo) (*quiclife.Config, error) { return (*answer.Load())() },
	}
	before := reflect.ValueOf(conf.GetConfigForClient).Pointer()
	transportListens, _ := transportWays(t, nil)
	for _, l := range append(transportListens, listenWays(nil)...) {
		ln, err := l.listen("127.0.0.1:0", udpSocket(t), serverTLS, conf)
		require.NoError(t, err)
		connect := func(chosen *quiclife.Config, err error) (*quiclife.Conn, error) {
			f := func() (*quiclife.Config, error) { return chosen, err }
			answer.Store(&f)
			c, dialErr := quiclife.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
			if dialErr == nil {
				t.Cleanup(func() { c.CloseWithError(0, "") })
			}
			return c, dialErr
		}
		for _, tt := range []struct {
			chosen    *quiclife.Config
			bidi, uni int64
		}{
			{&quiclife.Config{MaxIncomingStreams: 3, MaxIncomingUniStreams: -1}, 3, 0},
			{nil, 100, 100},
			{&quiclife.Config{MaxIncomingStreams: 1, RequireStreamCreditRelease: true}, 1, 100},
		} {
			_, err := connect(&quiclife.Config{MaxIncomingStreams: 7}, errors.New("refused"))
			require.ErrorIs(t, err, &quiclife.TransportError{ErrorCode: quiclife.ConnectionRefused, Remote: true}, l.name)
			_, err = connect(tt.chosen, nil)
			require.NoError(t, err, l.name)
			s, err := ln.Accept(t.Context())
			require.NoError(t, err, l.name)
			stats := s.Stats()
			require.Equal(t, []int64{tt.bidi, tt.uni}, []int64{stats.Incoming.Limit, stats.IncomingUni.Limit}, l.name)
			require.Equal(t, tt.chosen != nil && tt.chosen.RequireStreamCreditRelease, quiclife.CreditRequired(s), l.name)
			require.NoError(t, s.CloseWithError(0, ""))
		}
		require.NoError(t, ln.Close())
	}
	require.Equal(t, before, reflect.ValueOf(conf.GetConfigForClient).Pointer(), "the caller's Config is not written to")
}

// A handshake that a TLS callback of the program holds up makes nobody else
// wait: Accept and Wrap return while it runs.
func TestAcceptDoesNotWaitForTLSCallback(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	serverTLS, clientTLS = serverTLS.Clone(), clientTLS.Clone()
	entered, proceed := make(chan struct{}, 1), make(chan struct{})
	serverTLS.ClientAuth = tls.RequireAnyClientCert
	serverTLS.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error {
		entered <- struct{}{}
		<-proceed
		return nil
	}
	clientTLS.Certificates = serverTLS.Certificates
	guard := &quiclife.Guard{Logger: slog.New(slog.DiscardHandler)}
	for name, take := range map[string]func(ln *quiclife.EarlyListener) error{
		"Accept": func(ln *quiclife.EarlyListener) error {
			_, err := ln.Accept(t.Context())
			return err
		},
		"Wrap": func(ln *quiclife.EarlyListener) error {
			raw, err := ln.Unwrap().Accept(t.Context())
			if err == nil {
				guard.Wrap(raw, nil)
			}
			return err
		},
	} {
		ln, err := guard.ListenAddrEarly("127.0.0.1:0", serverTLS, nil)
		require.NoError(t, err)
		// The handshake is complete for the client before the server looks at
		// its certificate.
		c, err := quiclife.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
		require.NoError(t, err, name)
		<-entered
		took := make(chan error, 1)
		go func() { took <- take(ln) }()
		select {
		case err := <-took:
			require.NoError(t, err, name)
		case <-time.After(5 * time.Second):
			t.Errorf("%s waits for the callback of another connection", name)
		}
		proceed <- struct{}{}
		require.NoError(t, c.CloseWithError(0, ""))
		require.NoError(t, ln.Close())
	}
}

// Listen may run beside Dial, WriteTo and AddPath, which initialize quic-go's
// transport with the key that Listen needs. Without -race it tests nothing of
// that. A key that is set late counts all the same.
func TestListenBesideFirstUseIsNoRace(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for name, use := range map[string]func(tr *quiclife.Transport){
		"Dial":    func(tr *quiclife.Transport) { tr.Dial(done, tr.Conn.LocalAddr(), clientTLS, nil) },
		"WriteTo": func(tr *quiclife.Transport) { tr.WriteTo([]byte("\x00"), tr.Conn.LocalAddr()) },
	} {
		for _, late := range []bool{false, true} {
			first, second := &quiclife.TokenGeneratorKey{1}, &quiclife.TokenGeneratorKey{2}
			tr := &quiclife.Transport{Conn: udpSocket(t), TokenGeneratorKey: first}
			tr.Unwrap()
			if late {
				tr.TokenGeneratorKey = second
			}
			var both sync.WaitGroup
			both.Go(func() { use(tr) })
			both.Go(func() {
				ln, err := tr.Listen(serverTLS, nil)
				assert.NoError(t, err, name)
				ln.Close()
			})
			both.Wait()
			if late {
				require.Same(t, second, tr.Unwrap().TokenGeneratorKey, name)
			} else {
				require.Same(t, first, tr.Unwrap().TokenGeneratorKey, name)
			}
			require.NoError(t, tr.Close())
		}
	}
}

// A listener whose socket fails is forgotten, as quic-go forgets it, though
// nobody has closed it: with its tls.Config, connections and goroutines.
func TestListenerIsForgottenWhenItsSocketFails(t *testing.T) {
	guard := &quiclife.Guard{Logger: slog.New(slog.DiscardHandler)}
	transportListens, _ := transportWays(t, guard)
	for _, l := range append(transportListens, listenWays(guard)...) {
		if !l.socket {
			continue
		}
		for _, conns := range []int{0, 1} {
			name := fmt.Sprintf("%s with %d connections", l.name, conns)
			before := goleak.IgnoreCurrent()
			forgotten := make(chan struct{})
			func() {
				shared, clientTLS := quictest.TLS()
				serverTLS := shared.Clone()
				runtime.AddCleanup(serverTLS, func(c chan struct{}) { close(c) }, forgotten)
				socket := udpSocket(t)
				ln, err := l.listen("", socket, serverTLS, nil)
				require.NoError(t, err, name)
				for range conns {
					c, err := quiclife.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
					require.NoError(t, err, name)
					s, err := ln.Accept(t.Context())
					require.NoError(t, err, name)
					socket.Close()
					<-s.Context().Done()
					require.ErrorIs(t, context.Cause(s.Context()), net.ErrClosed)
					require.NoError(t, c.CloseWithError(0, ""))
				}
				socket.Close()
			}()
			eventually(t, func() bool {
				runtime.GC()
				select {
				case <-forgotten:
					return true
				default:
					return false
				}
			}, name)
			require.NoError(t, goleak.Find(before), name)
		}
	}
	require.NoError(t, guard.Shutdown(t.Context()))
}

// setResolver has names resolved by DNS servers that dial reaches, until the
// end of the test.
func setResolver(t *testing.T, dial func(context.Context, string, string) (net.Conn, error)) {
	old := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: dial}
	t.Cleanup(func() { net.DefaultResolver = old })
}

// answerDNS answers one question, as over TCP: both.example has addresses of
// both families, v6.example has one, others have none.
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
	end := header + bytes.IndexByte(query[header:], 0) + 5 // of the question: name, type, class
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

// DialAddr resolves to the same addresses as quic-go's, and fails as that does.
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

// A resolver that does not answer holds a dial up no longer than its context.
func TestDialAddrEndsWithContextWhileItResolves(t *testing.T) {
	_, clientTLS := quictest.TLS()
	asked := make(chan struct{}, 10)
	setResolver(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
		asked <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	before, tired := goleak.IgnoreCurrent(), errors.New("tired")
	for name, dial := range map[string]func(context.Context, string, *tls.Config, *quiclife.Config) (*quiclife.Conn, error){
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
		case <-time.After(5 * time.Second):
			t.Fatalf("%s goes on though its context is done", name)
		}
	}
	require.NoError(t, goleak.Find(before))
}
