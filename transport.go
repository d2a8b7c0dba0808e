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

// A Listener accepts connections whose handshake has completed. Its methods
// may be called from any goroutine.
type Listener struct {
	raw *quic.Listener
	l   *listener
}

// Accept returns the next connection. It blocks until there is one, ctx is
// done, or the listener is closed ([ErrServerClosed]). If a connection is queued
// and ctx is done, it returns either, as quic-go does.
func (l *Listener) Accept(ctx context.Context) (*Conn, error) { return l.l.accept(ctx) }

// Close ends handshakes that are under way and has Accept fail once the
// connections before them have been accepted. Connections stay as they are.
// If the listener was made by Listen or ListenAddr, its goroutines end, and
// the socket that ListenAddr made is closed, when the last of them has ended
// (3 PTO later if this side closed it, for the peer's sake).
// Closing again has no effect.
func (l *Listener) Close() error { return l.l.close() }

// Addr returns the address that the listener listens on.
func (l *Listener) Addr() net.Addr { return l.raw.Addr() }

// Unwrap returns quic-go's own listener. Connections accepted through it are
// not ours, until [Wrap], which counts them a second time against
// Guard.MaxConns. Close the listener with its own Close all the same. From now
// on Guard.MaxConns cannot tell connections that were accepted from others: new
// ones may fill it, and clients may be asked for their address more often.
func (l *Listener) Unwrap() *quic.Listener {
	if l == nil {
		return nil
	}
	l.l.gate.unwrapped.Store(true)
	return l.raw
}

// An EarlyListener accepts connections before their handshake has completed.
// See [quic.EarlyListener] for what that means; its methods are those of
// [Listener], without Serve.
type EarlyListener struct {
	raw *quic.EarlyListener
	l   *listener
}

// Accept is [Listener.Accept].
func (l *EarlyListener) Accept(ctx context.Context) (*Conn, error) { return l.l.accept(ctx) }

// Close is [Listener.Close].
func (l *EarlyListener) Close() error { return l.l.close() }

// Addr is [Listener.Addr].
func (l *EarlyListener) Addr() net.Addr { return l.raw.Addr() }

// Unwrap is [Listener.Unwrap].
func (l *EarlyListener) Unwrap() *quic.EarlyListener {
	if l == nil {
		return nil
	}
	l.l.gate.unwrapped.Store(true)
	return l.raw
}

// An ownedTransport belongs to a listener that was made without a Transport.
// quic-go's own is never closed if the last connection of a closed listener
// ends without a word (an idle timeout, say).
type ownedTransport struct {
	tr     *quic.Transport
	socket net.PacketConn // to be closed too, or nil
	gone   chan struct{}  // closed when nothing is left
	leave  func()         // called then, or nil

	mu             sync.Mutex // guards the fields below
	conns          int        // connections, and handshakes under way
	noMore, closed bool
	lastEnd        time.Time // of a connection
	lingerUntil    time.Time // see linger
}

// own makes a transport that counts its connections.
func own(conn net.PacketConn) *ownedTransport {
	o := &ownedTransport{gone: make(chan struct{})}
	o.tr = &quic.Transport{Conn: conn, Tracer: endWatcher{ended: func() { go o.listenerClosed() }}}
	return o
}

// connContext is called for each connection; its context ends with it.
func (o *ownedTransport) connContext(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	o.mu.Lock()
	o.conns++
	o.mu.Unlock()
	context.AfterFunc(ctx, func() {
		o.update(func() {
			o.conns--
			o.lastEnd = time.Now()
		})
	})
	return ctx, nil
}

// listenerClosed is called when no connection can be added any more: the
// listener was closed, or could not be made, or the socket failed.
func (o *ownedTransport) listenerClosed() { o.update(func() { o.noMore = true }) }

// minLinger is how long the transport outlives its last connection at least,
// so that linger, which is called at about the same time, has its say.
const minLinger = 20 * time.Millisecond

// linger keeps the transport for a time after a connection was closed by this
// side: should its CONNECTION_CLOSE be lost, quic-go repeats it when the peer
// sends again (RFC 9000, 10.2).
func (o *ownedTransport) linger(period time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if until := time.Now().Add(period); until.After(o.lingerUntil) {
		o.lingerUntil = until
	}
}

// update changes the state, and closes everything if that was the last of it.
func (o *ownedTransport) update(change func()) {
	o.mu.Lock()
	change()
	last := o.noMore && o.conns == 0 && !o.closed
	o.closed = o.closed || last
	recent := time.Since(o.lastEnd) < minLinger || time.Now().Before(o.lingerUntil)
	o.mu.Unlock()
	switch {
	case last && recent:
		time.AfterFunc(minLinger, o.closeAfterLinger)
	case last:
		o.close()
	}
}

func (o *ownedTransport) closeAfterLinger() {
	o.mu.Lock()
	wait := time.Until(o.lingerUntil)
	o.mu.Unlock()
	if wait > 0 {
		time.AfterFunc(wait, o.closeAfterLinger)
	} else {
		o.close()
	}
}

func (o *ownedTransport) close() {
	o.tr.Close()
	if o.socket != nil {
		o.socket.Close()
	}
	if o.leave != nil {
		o.leave()
	}
	close(o.gone)
}
