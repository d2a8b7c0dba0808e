package quiclife_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"
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
						c = quiclife.Wrap(rc)
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
				return quiclife.Wrap(raw), nil
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
	recorder struct{}
)

func (connIDs) GenerateConnectionID() (id quiclife.ConnectionID, _ error) { return id, nil }
func (connIDs) ConnectionIDLen() int                                      { return 6 }
func (recorder) RecordEvent(qlogwriter.Event)                             {}
func (recorder) Close() error                                             { return nil }

// Every field of a Transport reaches quic-go, and stays the caller's.
func TestTransportFields(t *testing.T) {
	serverTLS, _ := quictest.TLS()
	done, cancel := context.WithCancel(t.Context())
	cancel()
	asked := 0
	tr := &quiclife.Transport{
		Conn:                             udpSocket(t),
		ConnectionIDLength:               6,
		ConnectionIDGenerator:            connIDs{},
		StatelessResetKey:                &quiclife.StatelessResetKey{1},
		TokenGeneratorKey:                &quiclife.TokenGeneratorKey{2},
		MaxTokenAge:                      time.Hour,
		DisableVersionNegotiationPackets: true,
		VerifySourceAddress:              func(net.Addr) bool { return false },
		ConnContext:                      func(ctx context.Context, _ *quiclife.ClientInfo) (context.Context, error) { asked++; return ctx, nil },
		Tracer:                           recorder{},
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
					_, err := tr.Unwrap().ConnContext(done, nil)
					require.NoError(t, err)
				case f.Type.Kind() == reflect.Func:
					m[f.Name] = mine.Pointer()
					require.Equal(t, m[f.Name], its.Pointer(), f.Name)
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
		c, s := quiclife.Wrap(rc), quiclife.Wrap(rs)
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
