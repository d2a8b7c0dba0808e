package quiclife

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/quic-go/quic-go"
)

// A Listener accepts connections whose handshake has completed. Its methods
// may be called from any goroutine.
type Listener struct {
	raw *quic.Listener
	l   *listener
}

// Accept returns the next connection. It blocks until there is one, ctx is
// done, or the listener is closed ([ErrServerClosed]). If ctx is done and a
// connection is queued, it may return either the connection or the error, as in
// quic-go.
//
// While [Listener.Serve] or a [Listener.NetListener] uses the listener, Accept
// returns an error at once. Calls of Accept may be concurrent.
func (l *Listener) Accept(ctx context.Context) (*Conn, error) {
	if err := l.l.begin(byAccept); err != nil {
		return nil, err
	}
	defer l.l.finish()
	return l.l.accept(ctx)
}

// Close stops listening. Handshakes in progress fail. Connections that are
// already queued can still be accepted. After that Accept fails. Close does not
// close connections. If the listener was made by Listen or ListenAddr, its
// goroutines end when the last connection has ended, and the socket that
// ListenAddr made is closed. If this side closed that connection, this happens
// 3 PTO later, so that a lost CONNECTION_CLOSE can be repeated. Closing again
// has no effect.
func (l *Listener) Close() error { return l.l.close() }

// Addr returns the address that the listener listens on.
func (l *Listener) Addr() net.Addr { return l.raw.Addr() }

// Unwrap returns quic-go's own listener. quiclife does not track connections
// accepted through it, unless [Wrap] takes them over. Wrap counts them against
// Guard.MaxConns a second time. Close the listener with the Close of l, not
// with quic-go's. After Unwrap, quiclife no longer knows which connections were
// accepted: connections that wait to be accepted may fill all of
// Guard.MaxConns, and clients may have to validate their address more often.
// Unwrap of a nil Listener returns nil.
func (l *Listener) Unwrap() *quic.Listener {
	if l == nil {
		return nil
	}
	l.l.gate.unwrapped.Store(true)
	return l.raw
}

// An EarlyListener accepts connections before their handshake has completed.
// For what that means see [quic.EarlyListener]. The methods work like those of
// [Listener].
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

type rawListener interface {
	Accept(context.Context) (*quic.Conn, error)
	Close() error
	Addr() net.Addr
}

// A listener is what Listener and EarlyListener have in common.
type listener struct {
	raw   rawListener
	guard *Guard
	gate  *gate
	// The transport that raw belongs to. One of the two is nil.
	owned     *ownedTransport
	transport *Transport

	// guarded by guard.mu
	user    user          // who uses it, or did last
	uses    int           // how many times that user uses it now
	closed  bool          // close was called
	onClose func()        // or nil
	accepts int           // calls of accept in progress
	idle    chan struct{} // closed when the last of them returns; nil if nobody waits for that
	left    bool          // it has ended, but calls of accept may still be in progress
}

// listening makes l a member of the group until it has ended.
func (g *Guard) listening(l *listener) *listener {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.left {
		return l
	}
	if g.listeners == nil {
		g.listeners = make(map[*listener]struct{})
	}
	g.listeners[l] = struct{}{}
	return l
}

func (l *listener) leave() {
	l.guard.mu.Lock()
	if l.left = true; l.accepts == 0 {
		delete(l.guard.listeners, l)
	}
	l.guard.mu.Unlock()
	l.gate.unwrapped.Store(true) // raw's callbacks stay for a Listen of quic-go's transport
	if l.transport != nil {
		l.transport.forget(l)
	}
}

func (l *listener) accept(ctx context.Context) (*Conn, error) {
	l.accepting(1)
	defer l.accepting(-1)
	raw, err := l.raw.Accept(ctx)
	if err != nil {
		return nil, err
	}
	a := raw.Context().Value(admissionKey{}).(*admission)
	a.enter(accepted)
	return l.guard.wrap(raw, a.terms, a, l.owned), nil
}

// accepting counts calls of accept in progress. Such a call may hold a
// connection that is not a member of the group yet.
func (l *listener) accepting(n int) {
	l.guard.mu.Lock()
	defer l.guard.mu.Unlock()
	if l.accepts += n; l.accepts > 0 {
		return
	}
	if l.idle != nil {
		close(l.idle)
		l.idle = nil
	}
	if l.left {
		delete(l.guard.listeners, l)
	}
}

// awaitAccepts waits until no call of accept is in progress. That does not take
// long once the listener is closed.
func (l *listener) awaitAccepts() {
	l.guard.mu.Lock()
	if l.accepts > 0 && l.idle == nil {
		l.idle = make(chan struct{})
	}
	idle := l.idle
	l.guard.mu.Unlock()
	if idle != nil {
		<-idle
	}
}

// A user is the method that accepts the connections of a Listener.
type user string

const (
	byAccept      user = "Accept"
	byServe       user = "Serve"
	byNetListener user = "NetListener"
)

// begin makes u the user of l until finish is called. It fails if l has another
// user. Only calls of Accept may use l at the same time.
func (l *listener) begin(u user) error {
	l.guard.mu.Lock()
	defer l.guard.mu.Unlock()
	switch {
	case l.uses == 0 || u == byAccept && l.user == byAccept:
		l.user = u
		l.uses++
		return nil
	case l.closed:
		return ErrServerClosed
	}
	return fmt.Errorf("quiclife: %s: the listener is in use by %s", u, l.user)
}

func (l *listener) finish() {
	l.guard.mu.Lock()
	defer l.guard.mu.Unlock()
	l.uses--
}

// whenClosed makes close call f.
func (l *listener) whenClosed(f func()) {
	l.guard.mu.Lock()
	l.onClose = f
	l.guard.mu.Unlock()
}

func (l *listener) close() error {
	l.guard.mu.Lock()
	l.closed = true
	onClose := l.onClose
	l.guard.mu.Unlock()
	err := l.raw.Close()
	if onClose != nil {
		onClose()
	}
	if l.owned != nil {
		l.owned.listenerClosed() // also calls leave, once its connections have ended
	} else {
		l.leave()
	}
	return err
}

func (g *Guard) newListener(o *ownedTransport) *listener {
	l := &listener{guard: g, gate: &gate{guard: g, userContext: o.connContext}, owned: o}
	o.leave = l.leave
	l.gate.attach(o.tr)
	return l
}

func (g *Guard) listen(o *ownedTransport, tlsConf *tls.Config, conf *quic.Config) (*Listener, error) {
	l := g.newListener(o)
	raw, err := o.tr.Listen(tlsConf, l.gate.watch(conf))
	if err != nil {
		o.listenerClosed()
		return nil, err
	}
	l.raw = raw
	return &Listener{raw, g.listening(l)}, nil
}

func (g *Guard) listenEarly(o *ownedTransport, tlsConf *tls.Config, conf *quic.Config) (*EarlyListener, error) {
	l := g.newListener(o)
	raw, err := o.tr.ListenEarly(tlsConf, l.gate.watch(conf))
	if err != nil {
		o.listenerClosed()
		return nil, err
	}
	l.raw = raw
	return &EarlyListener{raw, g.listening(l)}, nil
}
