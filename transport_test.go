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

// Values of fields that are interfaces; they are never called for anything.
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
