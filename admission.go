package quiclife

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// Incoming connections before they are accepted: whether the group has room for
// them, and what we have to know about them.

// terms are what we need to know of a connection's Config. quic-go's
// ConnectionState is no alternative, since it waits for the program's TLS
// callbacks.
type terms struct {
	maxIncoming, maxIncomingUni int64
	creditRequired              bool
}

func termsOf(conf *quic.Config) terms {
	if conf == nil {
		conf = &quic.Config{}
	}
	return terms{
		maxIncoming:    effectiveLimit(conf.MaxIncomingStreams),
		maxIncomingUni: effectiveLimit(conf.MaxIncomingUniStreams),
		creditRequired: conf.RequireStreamCreditRelease,
	}
}

// An admission is an incoming connection's place in its group, from its first
// packet on. The connection's context holds it.
type admission struct {
	guard *Guard
	// lifetime is the context that quic-go gave to ConnContext. It is done when
	// the connection has ended or the handshake has failed. The context that
	// the program's ConnContext returned may be done earlier.
	lifetime context.Context
	began    time.Time // a time before its first packet was handled
	terms    terms
	verified bool // the client's address was validated
	unseen   bool // the listener was unwrapped, so we do not see what it accepts

	stage stage // guard.mu guards it
}

type stage uint8

const (
	shakingHands stage = iota // or waiting to be accepted
	accepted
	forgotten // quic-go has probably dropped it without telling us, see connIDs
	gone
)

// admissionKey is the key of the admission in the connection's context.
type admissionKey struct{}

// enter moves a to the next stage, and updates the counts of the group.
func (a *admission) enter(next stage) {
	a.guard.mu.Lock()
	defer a.guard.mu.Unlock()
	if a.stage == gone || a.stage == accepted && next == forgotten {
		return
	}
	a.countLocked(-1)
	a.stage = next
	a.countLocked(1)
}

func (a *admission) countLocked(n int64) {
	g := a.guard
	switch a.stage {
	case shakingHands:
		if !a.verified {
			g.unverified += n
		}
		if !a.unseen {
			g.handshakes += n
		}
		g.counted += n
	case accepted:
		g.counted += n
	}
}

// errUnaccepted is the Err of a LimitError for LimitConns when fewer than
// MaxConns connections exist.
var errUnaccepted = errors.New("too many of them are not accepted yet")

// Anyone can forge the source address of a packet, and each such packet starts
// a handshake that fails only seconds later. So handshakes may use only a part
// of MaxConns, and those with a client whose address is not validated an even
// smaller part. When the smaller part is used up, we make quic-go send a Retry.
// That needs no state, and quic-go then admits only clients that answer it.

// maxUnverified is how many handshakes may be in progress with clients whose
// address is not validated. It is 0 if MaxConns is below 8: then one forged
// packet would take too large a part of MaxConns.
func (g *Guard) maxUnverified() int64 { return g.MaxConns / 8 }

// maxHandshakes is how many connections may be in their handshake or wait to be
// accepted. It leaves room for accepted connections. It is at least 1.
func (g *Guard) maxHandshakes() int64 { return g.MaxConns - g.MaxConns/2 }

// pressedFor is how long we go on with Retries. A ClientHello often takes two
// packets, and a client sends them again while it waits. If one of them brought
// a Retry and a later one was let in, that one would take a place until its
// handshake times out: its client has gone on with another connection ID.
const pressedFor = 3 * time.Second

// pressed reports whether the next client has to validate its address. It does
// not block.
func (g *Guard) pressed() bool {
	if g.MaxConns <= 0 {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.unverified >= g.maxUnverified() {
		g.pressedAt = time.Now()
		return true
	}
	return time.Since(g.pressedAt) < pressedFor
}

// A gate has the callbacks of a listener. For each new connection quic-go calls
// verify, if the client sent no token, then GetConfigForClient, then admit. It
// calls them on the one goroutine that handles the first packets of all
// connections. A gate does not refer to quic-go's listener, because quic-go's
// transport refers to the gate and outlives the listener.
type gate struct {
	guard *Guard
	// The program's callbacks, or nil.
	userVerify  func(net.Addr) bool
	userContext func(context.Context, *quic.ClientInfo) (context.Context, error)
	ids         *connIDs
	unwrapped   atomic.Bool // connections may be accepted without our seeing it
	terms       terms       // of the connection that is being admitted, see watch
}

// verify is quic-go's VerifySourceAddress. It always calls the program's, which
// may rely on that.
func (g *gate) verify(addr net.Addr) bool {
	verify := g.userVerify != nil && g.userVerify(addr)
	return verify || g.guard.pressed()
}

// attach sets the callbacks of raw, for its next listener.
func (g *gate) attach(raw *quic.Transport) {
	raw.VerifySourceAddress = g.verify
	raw.ConnContext = g.admit
}

// watch sets g.terms from conf. If conf has a GetConfigForClient, it returns a
// copy of conf whose GetConfigForClient sets g.terms for each connection.
func (g *gate) watch(conf *quic.Config) *quic.Config {
	g.terms = termsOf(conf)
	if conf == nil || conf.GetConfigForClient == nil {
		return conf
	}
	user := conf.GetConfigForClient
	conf = conf.Clone()
	conf.GetConfigForClient = func(info *quic.ClientInfo) (*quic.Config, error) {
		chosen, err := user(info)
		g.terms = termsOf(chosen)
		return chosen, err
	}
	return conf
}

// admit is quic-go's ConnContext. It refuses connections above the limits
// before quic-go does any work for the handshake, and then calls the program's
// ConnContext.
func (g *gate) admit(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	a := &admission{guard: g.guard, lifetime: ctx, began: time.Now(), terms: g.terms, verified: info.AddrVerified, unseen: g.unwrapped.Load()}
	if err := g.guard.admit(a); err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { a.enter(gone) })
	if g.userContext != nil {
		var err error
		ctx, err = g.userContext(ctx, info)
		if err != nil || ctx == nil { // if ctx is nil, quic-go panics
			return ctx, err
		}
	}
	if g.ids != nil {
		g.ids.last.Store(a)
	}
	return context.WithValue(ctx, admissionKey{}, a), nil
}

// connIDs wraps the program's ConnectionIDGenerator. quic-go calls it right
// after gate.admit. If it fails, quic-go drops the connection, but the
// connection's context is never done.
type connIDs struct {
	quic.ConnectionIDGenerator
	last atomic.Pointer[admission] // the last that was admitted
}

// GenerateConnectionID cannot tell whether quic-go calls it for the last
// admission or for another connection at the same time. If the wrong admission
// is marked as forgotten, it counts again once its connection is accepted.
func (c *connIDs) GenerateConnectionID() (quic.ConnectionID, error) {
	id, err := c.ConnectionIDGenerator.GenerateConnectionID()
	if err != nil {
		if a := c.last.Swap(nil); a != nil {
			a.enter(forgotten)
		}
	}
	return id, err
}
