package quiclife_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// A listener is a Listener or an EarlyListener.
type listener interface {
	Accept(context.Context) (*quiclife.Conn, error)
	Addr() net.Addr
	Close() error
}

// A listenWay is one of the ways to listen, on addr or on socket.
type listenWay struct {
	name   string
	socket bool // it listens on socket, which the caller closes
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

// listenWays are the ways of the package itself, or of g if it is not nil.
func listenWays(g *quiclife.Guard) []listenWay {
	if g == nil {
		return []listenWay{
			onAddr("ListenAddr", quiclife.ListenAddr), onAddr("ListenAddrEarly", quiclife.ListenAddrEarly),
			onSocket("Listen", quiclife.Listen), onSocket("ListenEarly", quiclife.ListenEarly),
		}
	}
	return []listenWay{
		onAddr("Guard.ListenAddr", g.ListenAddr), onAddr("Guard.ListenAddrEarly", g.ListenAddrEarly),
	}
}

// A readSocket counts the calls that read from it.
type readSocket struct {
	net.PacketConn
	readers atomic.Int32
}

func (s *readSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	s.readers.Add(1)
	defer s.readers.Add(-1)
	return s.PacketConn.ReadFrom(b)
}

// This test fails once quic-go has fixed the defect: a connection outlives
// quic-go's listener and ends by a timeout. Then nobody is left to close the
// transport, which goes on reading from the socket.
func TestPlainListenerLeavesTransport(t *testing.T) {
	bubble(t, func(t *testing.T) {
		serverTLS, clientTLS := quictest.TLS()
		clientSocket, serverSocket, addr := quictest.Net{}.Endpoints(t)
		socket := &readSocket{PacketConn: serverSocket}
		ln, err := quic.Listen(socket, serverTLS, &quic.Config{MaxIdleTimeout: time.Second})
		require.NoError(t, err)
		tr := &quic.Transport{Conn: clientSocket}
		_, err = tr.Dial(t.Context(), addr, clientTLS, nil)
		require.NoError(t, err)
		s, err := ln.Accept(t.Context())
		require.NoError(t, err)
		require.NoError(t, clientSocket.Close()) // the client vanishes without a CONNECTION_CLOSE
		require.NoError(t, tr.Close())
		require.NoError(t, ln.Close())
		<-s.Context().Done()
		require.ErrorIs(t, context.Cause(s.Context()), &quic.IdleTimeoutError{})
		time.Sleep(time.Minute)
		require.Equal(t, int32(1), socket.readers.Load(), "quic-go has mended the transport that is left: nobody reads from its socket")
	})
}

// The ways in which the one connection of a listener ends.
const (
	timesOut = "times out"
	closed   = "closed"
	byPeer   = "closed by the peer"
	ignored  = "never accepted"
	fails    = "handshake fails"
)

// endBoth ends a listener and its one connection. The listener ends first or
// last.
func endBoth(t *testing.T, l listenWay, socket, clientSocket net.PacketConn, end string, listenerFirst bool) (addr net.Addr) {
	serverTLS, clientTLS := quictest.TLS()
	conf := &quiclife.Config{}
	if end == timesOut {
		conf.MaxIdleTimeout = time.Second
	}
	ln, err := l.listen("127.0.0.1:0", socket, serverTLS, conf)
	require.NoError(t, err)
	tr := &quic.Transport{Conn: clientSocket}
	defer tr.Close()
	if end == fails {
		clientTLS = clientTLS.Clone()
		clientTLS.NextProtos = []string{"another"}
	}
	c, err := tr.Dial(t.Context(), ln.Addr(), clientTLS, nil)
	closeListener := func() {
		require.NoError(t, ln.Close())
		require.NoError(t, ln.Close(), "again")
	}
	if end == fails {
		require.Error(t, err)
		closeListener()
		return ln.Addr()
	}
	require.NoError(t, err)
	defer c.CloseWithError(0, "")
	var s *quiclife.Conn
	if end != ignored {
		s, err = ln.Accept(t.Context())
		require.NoError(t, err)
	}

	if listenerFirst {
		closeListener()
	}
	if s != nil {
		roundTrip(t, quiclife.Wrap(c, nil), s) // the listener's end does not affect the connection
	}
	switch end {
	case timesOut:
		require.NoError(t, clientSocket.Close()) // the client vanishes without a CONNECTION_CLOSE
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
		time.Sleep(50 * time.Millisecond) // then the transport need not linger
		closeListener()
	}
	return ln.Addr()
}

// Nothing is left of a listener that was made without a Transport when it was
// closed and its last connection has ended, however this happened and in
// whatever order. Its socket stays open for the caller.
func TestListenerLeavesNothingButItsSocket(t *testing.T) {
	// With MaxConns a connection must no longer count before the next is made.
	for _, l := range listenWays(&quiclife.Guard{MaxConns: 1}) {
		if !l.socket {
			continue
		}
		for _, end := range []string{timesOut, closed, byPeer, ignored, fails} {
			for _, listenerFirst := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s %s, listener first %t", l.name, end, listenerFirst), func(t *testing.T) {
					bubble(t, func(t *testing.T) {
						clientSockets, serverSocket, _ := quictest.Net{}.Star(t, 2)
						socket := &readSocket{PacketConn: serverSocket}
						endBoth(t, l, socket, clientSockets[0], end, listenerFirst)
						time.Sleep(10 * time.Second) // it lingers for 3 PTO
						require.Zero(t, socket.readers.Load(), "the transport still reads from the socket")
						requireUsable(t, socket, clientSockets[1])
					})
				})
			}
		}
	}
}

// If the listener made its socket, the socket is closed too.
func TestListenerLeavesNothingOfItsAddress(t *testing.T) {
	for _, l := range listenWays(&quiclife.Guard{MaxConns: 1}) {
		if l.socket {
			continue
		}
		for _, end := range []string{timesOut, closed, byPeer, ignored, fails} {
			for _, listenerFirst := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s %s, listener first %t", l.name, end, listenerFirst), func(t *testing.T) {
					if end == timesOut && (testing.Short() || !listenerFirst) {
						t.Skip("this takes a second")
					}
					before := goleak.IgnoreCurrent()
					addr := endBoth(t, l, nil, udpSocket(t), end, listenerFirst)
					quictest.RequireNoGoroutines(t, before)
					requireFree(t, addr.(*net.UDPAddr))
				})
			}
		}
	}
}

// requireUsable requires that socket is open, and that nobody else reads what
// another socket sends to it.
func requireUsable(t *testing.T, socket, from net.PacketConn) {
	t.Helper()
	_, err := from.WriteTo([]byte("hello"), socket.LocalAddr())
	require.NoError(t, err)
	b := make([]byte, 2000)
	require.NoError(t, socket.SetReadDeadline(time.Now().Add(20*time.Second)))
	for { // skips what QUIC has left there
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

func TestFailedListenLeavesNothing(t *testing.T) {
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

				quictest.RequireNoGoroutines(t, before)
				requireFree(t, addr)
				requireUsable(t, socket, udpSocket(t))
			})
		}
		if !l.socket {
			for _, addr := range []string{"127.0.0.1", udpSocket(t).LocalAddr().String()} { // an address without a port, and one in use
				_, err := l.listen(addr, nil, serverTLS, nil)
				require.Error(t, err, "%s %s", l.name, addr)
			}
		}
	}
}

// If GetConfigForClient returns a Config for a connection, its limits and
// RequireStreamCreditRelease come from that Config.
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
		connect := func(chosen *quiclife.Config, err error) error {
			f := func() (*quiclife.Config, error) { return chosen, err }
			answer.Store(&f)
			c, dialErr := quiclife.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
			if dialErr == nil {
				t.Cleanup(func() { c.CloseWithError(0, "") })
			}
			return dialErr
		}
		for _, tt := range []struct {
			chosen    *quiclife.Config
			bidi, uni int64
		}{
			{&quiclife.Config{MaxIncomingStreams: 3, MaxIncomingUniStreams: -1}, 3, 0},
			{nil, 100, 100},
			{&quiclife.Config{MaxIncomingStreams: 1, RequireStreamCreditRelease: true}, 1, 100},
		} {
			err := connect(&quiclife.Config{MaxIncomingStreams: 7}, errors.New("refused"))
			require.ErrorIs(t, err, &quiclife.TransportError{ErrorCode: quiclife.ConnectionRefused, Remote: true}, l.name)
			require.NoError(t, connect(tt.chosen, nil), l.name)
			s, err := ln.Accept(t.Context())
			require.NoError(t, err, l.name)
			requireLimits(t, s, tt.bidi, tt.uni, 0, l.name)
			require.Equal(t, tt.chosen != nil && tt.chosen.RequireStreamCreditRelease, quiclife.CreditRequired(s), "whether credit is required, %s", l.name)
			require.NoError(t, s.CloseWithError(0, ""))
		}
		require.NoError(t, ln.Close())
	}
	require.Equal(t, before, reflect.ValueOf(conf.GetConfigForClient).Pointer(), "the caller's Config is not written to")
}

// If a TLS callback of the program holds up a handshake, nobody else waits:
// Accept and Wrap return while it runs.
func TestAcceptDoesNotWaitForTLSCallback(t *testing.T) {
	for name, take := range map[string]func(t *testing.T, g *quiclife.Guard, ln *quiclife.EarlyListener) error{
		"Accept": func(t *testing.T, g *quiclife.Guard, ln *quiclife.EarlyListener) error {
			_, err := ln.Accept(t.Context())
			return err
		},
		"Wrap": func(t *testing.T, g *quiclife.Guard, ln *quiclife.EarlyListener) error {
			raw, err := ln.Unwrap().Accept(t.Context())
			if err == nil {
				g.Wrap(raw, nil)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				serverTLS, clientTLS := quictest.TLS()
				serverTLS, clientTLS = serverTLS.Clone(), clientTLS.Clone()
				proceed := make(chan struct{})
				serverTLS.ClientAuth = tls.RequireAnyClientCert
				serverTLS.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error {
					<-proceed
					return nil
				}
				clientTLS.Certificates = serverTLS.Certificates
				guard := &quiclife.Guard{Logger: slog.New(slog.DiscardHandler)}
				cc, sc, addr := quictest.Net{}.Endpoints(t)
				server := &quiclife.Transport{Conn: sc, Guard: guard}
				defer server.Close()
				ln, err := server.ListenEarly(serverTLS, nil)
				require.NoError(t, err)
				defer ln.Close()
				// The handshake is complete for the client before the server looks at
				// its certificate.
				c, err := quiclife.Dial(t.Context(), cc, addr, clientTLS, nil)
				require.NoError(t, err)
				defer c.CloseWithError(0, "")
				took := make(chan error, 1)
				go func() { took <- take(t, guard, ln) }()
				settled()
				require.NotEmpty(t, took, "it waits for the callback of another connection")
				require.NoError(t, <-took)
				close(proceed)
			})
		})
	}
}

// A listener whose socket fails leaves nothing behind, even if nobody closes
// it: no tls.Config, no connections and no goroutines.
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
			quictest.RequireNoGoroutines(t, before)
		}
	}
	require.NoError(t, guard.Shutdown(t.Context()))
}

// A lost CONNECTION_CLOSE is repeated, even after the listener was closed and
// its last connection has ended.
func TestLostCloseIsRepeatedAfterListenerIsClosed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		serverTLS, clientTLS := quictest.TLS()
		var lose atomic.Bool
		drop := func(p simnet.Packet) bool {
			return p.From.String() == "1.0.0.2:443" && lose.CompareAndSwap(true, false)
		}
		pc, ps, addr := quictest.Net{Drop: drop}.Endpoints(t)
		ln, err := quiclife.Listen(ps, serverTLS, nil)
		require.NoError(t, err)
		c, err := quiclife.Dial(t.Context(), pc, addr, clientTLS, nil)
		require.NoError(t, err)
		sc, err := ln.Accept(t.Context())
		require.NoError(t, err)
		settled()
		ln.Close()
		lose.Store(true)
		sc.CloseWithError(5, "")
		time.Sleep(40 * time.Millisecond) // less than the 3 PTO
		s, err := c.OpenStream()
		require.NoError(t, err)
		write(t, s, "x")
		start := time.Now()
		<-c.Context().Done()
		require.Less(t, time.Since(start), time.Second)
		require.ErrorIs(t, context.Cause(c.Context()), &quiclife.ApplicationError{ErrorCode: 5, Remote: true})
		settled()
	})
}
