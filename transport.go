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

// A Transport is quic-go's [quic.Transport], with the same fields, of which the
// documentation there holds, and Guard. It must not be copied after first use.
// Its methods may be called from any goroutine.
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
	ids      *connIDs           // raw's, or nil
	tokenKey *TokenGeneratorKey // what raw was given
	listener *listener          // until it has left the group
}

// Unwrap returns quic-go's own transport. Connections made through it are not
// ours, until [Wrap].
func (t *Transport) Unwrap() *quic.Transport {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rawLocked()
}

// rawLocked makes quic-go's transport on first use: it fills in fields of its
// own, and this one is the user's.
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
		g := t.newGateLocked() // for a Listen of t.raw's own
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

// Listen starts to listen for connections. There can be one listener at a time.
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

// listen has quic-go listen, with the fields brought up to date that it reads
// when it starts to listen. It reads these nowhere else, so a Dial at the same
// time does not mind. That does not block, so the lock is held: other calls
// must not write to them meanwhile.
func listen[L rawListener](t *Transport, start func(*quic.Transport, *gate) (L, error)) (none L, l *listener, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	raw := t.rawLocked()
	raw.MaxTokenAge = t.MaxTokenAge
	raw.DisableVersionNegotiationPackets = t.DisableVersionNegotiationPackets
	g := t.newGateLocked()
	g.attach(raw)
	if t.TokenGeneratorKey != nil && t.TokenGeneratorKey != t.tokenKey {
		initialize(raw) // which reads and may write it, in whatever call comes first
		raw.TokenGeneratorKey, t.tokenKey = t.TokenGeneratorKey, t.TokenGeneratorKey
	}
	rawL, err := start(raw, g)
	if err != nil {
		return none, nil, err
	}
	t.listener = g.guard.listening(&listener{raw: rawL, guard: g.guard, gate: g, transport: t})
	return rawL, t.listener, nil
}

// initialize has raw do what it does once, on first use. A Dial with a Config
// that is not valid does no more than that.
func initialize(raw *quic.Transport) {
	raw.Dial(context.Background(), nil, nil, &quic.Config{Versions: []quic.Version{0}})
}

// ReadNonQUICPacket is quic-go's [quic.Transport.ReadNonQUICPacket].
func (t *Transport) ReadNonQUICPacket(ctx context.Context, b []byte) (int, net.Addr, error) {
	return t.Unwrap().ReadNonQUICPacket(ctx, b)
}

// WriteTo is quic-go's [quic.Transport.WriteTo].
func (t *Transport) WriteTo(b []byte, addr net.Addr) (int, error) { return t.Unwrap().WriteTo(b, addr) }

// Close ends all connections of the transport at once, without telling the
// peers, and its listener. It does not close Conn. It may be called again.
func (t *Transport) Close() error {
	return t.Unwrap().Close()
}

// ended is called when nothing is left of raw.
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

// An endWatcher is a Tracer that learns of a transport's end. quic-go ends it
// also by itself, when the socket fails, and tells nobody else.
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
