package quiclife_test

import (
	"context"
	"crypto/tls"
	"net"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// transportWays are the ways to dial with a Transport under g.
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

// Values for fields that are interfaces. Their methods are never needed.
type (
	connIDs  struct{}
	recorder struct{ recorded *atomic.Bool } // or nil
)

func (connIDs) GenerateConnectionID() (id quiclife.ConnectionID, _ error) { return id, nil }

func (connIDs) ConnectionIDLen() int { return 6 }

func (r recorder) RecordEvent(qlogwriter.Event) {
	if r.recorded != nil {
		r.recorded.Store(true)
	}
}

func (recorder) Close() error { return nil }

// Each field of a Transport reaches quic-go, and nobody writes to the caller's.
func TestTransportFieldsReachQUICGo(t *testing.T) {
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
				case f.Name == "ConnContext": // the Guard's callback, which calls ours
					m[f.Name] = mine.Pointer()
					_, err := tr.Unwrap().ConnContext(done, &quiclife.ClientInfo{})
					require.NoError(t, err)
				case f.Name == "VerifySourceAddress":
					m[f.Name] = mine.Pointer()
					require.True(t, tr.Unwrap().VerifySourceAddress(nil), "VerifySourceAddress was not asked")
				case f.Name == "Tracer": // our Tracer, which calls the program's
					m[f.Name] = mine.Interface()
					its.Interface().(qlogwriter.Recorder).RecordEvent(nil)
					require.True(t, recorded.Swap(false), "the Tracer was not told")
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
	require.Equal(t, before, fields(), "Listen has written to the fields")
	require.Equal(t, 2, asked, "calls of ConnContext")
}

// Fields that are not set stay unset, although quic-go makes a key and keeps
// it.
func TestListenWritesToNoFieldOfTransport(t *testing.T) {
	serverTLS, _ := quictest.TLS()
	tr := &quiclife.Transport{Conn: udpSocket(t)}
	ln, err := tr.Listen(serverTLS, nil)
	require.NoError(t, err)
	require.NotNil(t, tr.Unwrap().TokenGeneratorKey)
	require.NoError(t, ln.Close())
	require.NoError(t, tr.Close())
	v := reflect.ValueOf(tr).Elem()
	for f := range v.Type().Fields() {
		if f.IsExported() && f.Name != "Conn" {
			require.Zero(t, v.FieldByName(f.Name).Interface(), f.Name)
		}
	}
}

// Fields that quic-go reads when it starts to listen may be set until then,
// even if the transport has dialed before.
func TestTransportFieldsMayBeSetUntilListen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		serverTLS, clientTLS := quictest.TLS()
		site := newSite(t, &quiclife.Transport{}, nil)
		tr := site.client
		_, err := site.dial(t.Context())
		require.NoError(t, err)

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
		_, err = site.server.Dial(t.Context(), ln.Addr(), clientTLS, nil)
		require.NoError(t, err)
		s, err := ln.Accept(t.Context())
		require.NoError(t, err)

		require.NotEmpty(t, verified, "VerifySourceAddress was not asked")
		require.Equal(t, site.listener.Addr().String(), (<-verified).String())
		require.Equal(t, true, s.Context().Value(key{}), "what ConnContext has put into the context")
		require.Equal(t, time.Minute, tr.Unwrap().MaxTokenAge)
		require.True(t, tr.Unwrap().DisableVersionNegotiationPackets)
	})
}

// bothListens are the two ways to listen on tr.
func bothListens(tr *quiclife.Transport) map[string]func() (listener, error) {
	serverTLS, _ := quictest.TLS()
	return map[string]func() (listener, error){
		"Listen":      func() (listener, error) { return tr.Listen(serverTLS, nil) },
		"ListenEarly": func() (listener, error) { return tr.ListenEarly(serverTLS, nil) },
	}
}

// A Transport has one listener at a time, and may have another when that one is
// closed.
func TestTransportHasOneListenerAtATime(t *testing.T) {
	serverTLS, _ := quictest.TLS()
	bubble(t, func(t *testing.T) {
		_, socket, _ := quictest.Net{}.Endpoints(t)
		tr := &quiclife.Transport{Conn: socket}
		defer tr.Close()
		for name, listen := range bothListens(tr) {
			ln, err := listen()
			require.NoError(t, err, name)
			_, err = tr.Listen(serverTLS, nil)
			require.ErrorContains(t, err, "listener already set", name)
			_, err = tr.ListenEarly(serverTLS, nil)
			require.ErrorContains(t, err, "listener already set", name)
			require.NoError(t, ln.Close())
		}
	})
}

func TestAcceptFailsWhenListenerIsClosed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, socket, _ := quictest.Net{}.Endpoints(t)
		tr := &quiclife.Transport{Conn: socket}
		defer tr.Close()
		for name, listen := range bothListens(tr) {
			ln, err := listen()
			require.NoError(t, err, name)
			accepted := make(chan error, 1)
			go func() {
				_, err := ln.Accept(t.Context())
				accepted <- err
			}()
			settled()
			require.Empty(t, accepted, name)
			require.NoError(t, ln.Close())
			require.Equal(t, quiclife.ErrServerClosed, <-accepted, name)
			_, err = ln.Accept(t.Context())
			require.Equal(t, quiclife.ErrServerClosed, err, name)
			require.ErrorIs(t, err, net.ErrClosed, name)
			require.NoError(t, ln.Close(), "again")
		}
	})
}

// After Close every call fails, and Conn stays open.
func TestTransportCloseLeavesItsSocket(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	bubble(t, func(t *testing.T) {
		other, socket, _ := quictest.Net{}.Endpoints(t)
		tr := &quiclife.Transport{Conn: socket}
		ln, err := tr.Listen(serverTLS, nil)
		require.NoError(t, err)
		done, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = ln.Accept(done)
		require.ErrorIs(t, err, context.Canceled)

		require.NoError(t, tr.Close())
		require.NoError(t, tr.Close(), "again")
		_, err = ln.Accept(t.Context())
		require.ErrorIs(t, err, quiclife.ErrTransportClosed)
		require.NoError(t, ln.Close())
		_, err = tr.Listen(serverTLS, nil)
		require.ErrorIs(t, err, quiclife.ErrTransportClosed)
		_, err = tr.Dial(t.Context(), other.LocalAddr(), clientTLS, nil)
		require.ErrorIs(t, err, quiclife.ErrTransportClosed)
		requireUsable(t, socket, other)

		unused := &quiclife.Transport{Conn: other}
		require.NoError(t, unused.Close())
	})
}

func TestTransportCloseEndsConnectionsAndStreams(t *testing.T) {
	bubble(t, func(t *testing.T) {
		site := newSite(t, &quiclife.Transport{}, nil)
		e := site.connect(t)
		str, _ := e.stream(t)
		require.NoError(t, site.client.Close())
		require.ErrorIs(t, context.Cause(e.client.Context()), quiclife.ErrTransportClosed)
		_, err := str.Read(make([]byte, 1))
		require.ErrorIs(t, err, quiclife.ErrTransportClosed)
		require.Zero(t, e.client.Stats().Open())
		requireBalance(t, e.client.Stats())
	})
}

func TestNonQUICPacketsPassThroughTransport(t *testing.T) {
	bubble(t, func(t *testing.T) {
		clientSocket, serverSocket, addr := quictest.Net{}.Endpoints(t)
		a, b := &quiclife.Transport{Conn: clientSocket}, &quiclife.Transport{Conn: serverSocket}
		defer a.Close()
		defer b.Close()
		done, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err := b.ReadNonQUICPacket(done, nil) // from now on quic-go keeps non-QUIC packets
		require.ErrorIs(t, err, context.Canceled)

		packet := []byte("\x00not QUIC")
		n, err := a.WriteTo(packet, addr)
		require.NoError(t, err)
		require.Equal(t, len(packet), n)
		buf := make([]byte, 100)
		n, from, err := b.ReadNonQUICPacket(t.Context(), buf)
		require.NoError(t, err)
		require.Equal(t, packet, buf[:n])
		require.Equal(t, clientSocket.LocalAddr().String(), from.String())
	})
}

// If a Dial or Listen fails, calling Unwrap on its nil result must not panic.
func TestUnwrapOfNilIsNil(t *testing.T) {
	require.Nil(t, (*quiclife.Conn)(nil).Unwrap())
	require.Nil(t, (*quiclife.Transport)(nil).Unwrap())
	require.Nil(t, (*quiclife.Listener)(nil).Unwrap())
	require.Nil(t, (*quiclife.EarlyListener)(nil).Unwrap())
}

// Unwrap returns what the wrapper uses. What is made through it is not counted,
// unless Wrap takes it over.
func TestUnwrapGivesWhatTheWrapperUses(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	bubble(t, func(t *testing.T) {
		clientSocket, serverSocket, addr := quictest.Net{}.Endpoints(t)
		server, client := &quiclife.Transport{Conn: serverSocket}, &quiclife.Transport{Conn: clientSocket}
		defer server.Close()
		defer client.Close()
		raw := server.Unwrap()
		require.Same(t, raw, server.Unwrap())

		listens := []func() (accept func(context.Context) (*quic.Conn, error), listens net.Addr, end func() error){
			func() (func(context.Context) (*quic.Conn, error), net.Addr, func() error) {
				ln, err := server.Listen(serverTLS, nil)
				require.NoError(t, err)
				_, err = server.Unwrap().Listen(serverTLS, nil)
				require.ErrorContains(t, err, "listener already set", "it is another transport")
				require.Equal(t, addr, ln.Addr())
				return ln.Unwrap().Accept, ln.Unwrap().Addr(), ln.Close
			},
			func() (func(context.Context) (*quic.Conn, error), net.Addr, func() error) {
				ln, err := server.ListenEarly(serverTLS, nil)
				require.NoError(t, err)
				require.Equal(t, addr, ln.Addr())
				return ln.Unwrap().Accept, ln.Unwrap().Addr(), ln.Close
			},
		}
		for _, listen := range listens {
			accept, at, end := listen()
			require.Equal(t, addr, at)
			rc, err := client.Unwrap().Dial(t.Context(), addr, clientTLS, nil)
			require.NoError(t, err)
			rs, err := accept(t.Context())
			require.NoError(t, err)
			c, s := quiclife.Wrap(rc, nil), quiclife.Wrap(rs, nil)
			require.Same(t, rc, c.Unwrap())
			_, err = rc.OpenStream()
			require.NoError(t, err)
			require.Zero(t, c.Stats().Outgoing.Opened, "streams of the wrapper")
			require.NoError(t, c.CloseWithError(0, ""))
			<-s.Context().Done()
			require.NoError(t, end())
		}
		require.NoError(t, server.Unwrap().Close())
		_, err := server.Listen(serverTLS, nil)
		require.ErrorIs(t, err, quiclife.ErrTransportClosed)
	})
}

// Listen may run at the same time as Dial, WriteTo and AddPath, which
// initialize quic-go's transport with the key that Listen needs. That is tested
// only with -race. A key that is set late is used too.
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
				if assert.NoError(t, err, name) {
					ln.Close()
				}
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
