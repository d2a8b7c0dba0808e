package quiclife

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"
)

// A Transport is quic-go's [quic.Transport] with one more field, Guard. For the
// other fields see the documentation of quic.Transport. A Transport must not be
// copied after first use. Its methods may be called from any goroutine.
type Transport struct {
	Conn                             net.PacketConn
	ConnectionIDLength               int
	ConnectionIDGenerator            ConnectionIDGenerator
	StatelessResetKey                *StatelessResetKey
	TokenGeneratorKey                *TokenGeneratorKey
	MaxTokenAge                      time.Duration
	DisableVersionNegotiationPackets bool
	VerifySourceAddress              func(net.Addr) bool
	ConnContext                      func(context.Context, *ClientInfo) (context.Context, error)
	Tracer                           qlogwriter.Recorder

	// Guard is the policy for the connections of this transport. nil means
	// [DefaultGuard].
	Guard *Guard

	mu       sync.Mutex // guards the fields below
	raw      *quic.Transport
	ids      *connIDs           // the ConnectionIDGenerator of raw, or nil
	tokenKey *TokenGeneratorKey // what raw was given
	listener *listener          // until it has left the group
}

// Unwrap returns quic-go's own transport. quiclife does not track connections
// that are made through it, unless [Wrap] takes them over.
func (t *Transport) Unwrap() *quic.Transport {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rawLocked()
}

// rawLocked makes quic-go's transport on first use. We copy t because quic-go
// writes to fields of its Transport, and t belongs to the program.
func (t *Transport) rawLocked() *quic.Transport {
	if t.raw == nil {
		t.raw = &quic.Transport{
			Conn:                             t.Conn,
			ConnectionIDLength:               t.ConnectionIDLength,
			StatelessResetKey:                t.StatelessResetKey,
			TokenGeneratorKey:                t.TokenGeneratorKey,
			MaxTokenAge:                      t.MaxTokenAge,
			DisableVersionNegotiationPackets: t.DisableVersionNegotiationPackets,
			Tracer:                           endWatcher{t.Tracer, t.ended},
		}
		t.tokenKey = t.TokenGeneratorKey
		if t.ConnectionIDGenerator != nil {
			t.ids = &connIDs{ConnectionIDGenerator: t.ConnectionIDGenerator}
			t.raw.ConnectionIDGenerator = t.ids
		}
		g := t.newGateLocked() // for listeners that the program makes with t.raw itself
		g.unwrapped.Store(true)
		g.attach(t.raw)
	}
	return t.raw
}

func (t *Transport) newGateLocked() *gate {
	return &gate{guard: t.guard(), userVerify: t.VerifySourceAddress, userContext: t.ConnContext, ids: t.ids}
}

func (t *Transport) guard() *Guard {
	if t.Guard != nil {
		return t.Guard
	}
	return DefaultGuard
}

// Dial dials a connection, without 0-RTT. It blocks until the handshake has
// completed or failed, or ctx is done.
func (t *Transport) Dial(ctx context.Context, addr net.Addr, tlsConf *tls.Config, conf *Config) (*Conn, error) {
	return t.guard().dial(conf, func() (*quic.Conn, error) { return t.Unwrap().Dial(ctx, addr, tlsConf, conf) })
}

// DialEarly is Dial with 0-RTT, if the server allows it.
func (t *Transport) DialEarly(ctx context.Context, addr net.Addr, tlsConf *tls.Config, conf *Config) (*Conn, error) {
	return t.guard().dial(conf, func() (*quic.Conn, error) { return t.Unwrap().DialEarly(ctx, addr, tlsConf, conf) })
}

// Listen starts listening for connections. There can be one listener at a time.
// It does not block.
func (t *Transport) Listen(tlsConf *tls.Config, conf *Config) (*Listener, error) {
	raw, l, err := listen(t, func(raw *quic.Transport, g *gate) (*quic.Listener, error) {
		return raw.Listen(tlsConf, g.watch(conf))
	})
	if err != nil {
		return nil, err
	}
	return &Listener{raw, l}, nil
}

// ListenEarly is Listen for connections whose handshake has not completed.
func (t *Transport) ListenEarly(tlsConf *tls.Config, conf *Config) (*EarlyListener, error) {
	raw, l, err := listen(t, func(raw *quic.Transport, g *gate) (*quic.EarlyListener, error) {
		return raw.ListenEarly(tlsConf, g.watch(conf))
	})
	if err != nil {
		return nil, err
	}
	return &EarlyListener{raw, l}, nil
}

// listen makes quic-go listen. It first updates the fields that quic-go reads
// when it starts to listen. quic-go reads them nowhere else, so a concurrent
// Dial is not disturbed. The lock is held meanwhile, so that no other call
// writes to these fields; start does not block.
func listen[L rawListener](t *Transport, start func(*quic.Transport, *gate) (L, error)) (none L, l *listener, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	raw := t.rawLocked()
	raw.MaxTokenAge = t.MaxTokenAge
	raw.DisableVersionNegotiationPackets = t.DisableVersionNegotiationPackets
	g := t.newGateLocked()
	g.attach(raw)
	if t.TokenGeneratorKey != nil && t.TokenGeneratorKey != t.tokenKey {
		initialize(raw) // its first call reads TokenGeneratorKey, and may write it
		raw.TokenGeneratorKey, t.tokenKey = t.TokenGeneratorKey, t.TokenGeneratorKey
	}
	rawL, err := start(raw, g)
	if err != nil {
		return none, nil, err
	}
	t.listener = g.guard.listening(&listener{raw: rawL, guard: g.guard, gate: g, transport: t})
	return rawL, t.listener, nil
}

// initialize makes raw do what it does once, on first use. A Dial with an
// invalid Config does that and nothing else.
func initialize(raw *quic.Transport) {
	raw.Dial(context.Background(), nil, nil, &quic.Config{Versions: []quic.Version{0}})
}

// ReadNonQUICPacket is quic-go's [quic.Transport.ReadNonQUICPacket].
func (t *Transport) ReadNonQUICPacket(ctx context.Context, b []byte) (int, net.Addr, error) {
	return t.Unwrap().ReadNonQUICPacket(ctx, b)
}

// WriteTo is quic-go's [quic.Transport.WriteTo].
func (t *Transport) WriteTo(b []byte, addr net.Addr) (int, error) { return t.Unwrap().WriteTo(b, addr) }

// Close ends the listener and all connections of the transport at once, without
// telling the peers. It does not close Conn. It may be called again.
func (t *Transport) Close() error {
	return t.Unwrap().Close()
}

// ended is called when raw has been closed.
func (t *Transport) ended() {
	t.mu.Lock()
	l := t.listener
	t.mu.Unlock()
	if l != nil {
		l.leave()
	}
}

func (t *Transport) forget(l *listener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listener == l {
		t.listener = nil
	}
}

// An endWatcher is a Tracer that notices the end of a transport. quic-go also
// ends a transport when its socket fails, and tells only the Tracer.
type endWatcher struct {
	user  qlogwriter.Recorder // or nil
	ended func()              // must not wait for the transport
}

func (w endWatcher) RecordEvent(event qlogwriter.Event) {
	if w.user != nil {
		w.user.RecordEvent(event)
	}
}

func (w endWatcher) Close() (err error) {
	if w.user != nil {
		err = w.user.Close()
	}
	w.ended()
	return err
}
