package quiclife

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// Incoming connections before they are accepted: whether the group has room
// for them, and what we have to know of them.

// terms are what we need to know of a connection's Config. Asking quic-go for
// its ConnectionState would wait for the user's TLS callbacks.
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
// packet on. It is found again in the connection's context.
type admission struct {
	guard *Guard
	// lifetime is the context that quic-go gave to ConnContext. It ends with
	// the connection, or when the handshake fails. The one that the user's
	// ConnContext returned may end before.
	lifetime context.Context
	began    time.Time // before its first packet
	terms    terms
	verified bool // the client has shown that it receives at its address
	unseen   bool // the listener was unwrapped: we do not see what it accepts

	stage stage // guard.mu guards it
}

type stage uint8

const (
	shakingHands stage = iota // or waiting to be accepted
	accepted
	forgotten // probably given up by quic-go without a word, see connIDs
	gone
)

// An admissionKey finds the admission among the values of a context.
type admissionKey struct{}

// enter moves a to the next stage, and the counts of the group with it.
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

// errUnaccepted is the reason for a LimitConns below MaxConns.
var errUnaccepted = errors.New("too many of them are not accepted yet")

// A stranger can forge the address of a packet, and each such packet begins a
// handshake that fails only seconds later. So there are shares of MaxConns.
// When the first is used up, quic-go is told to send a Retry, which costs
// neither side anything to remember, and admits only who answers that.

// maxUnverified is how many may shake hands without having shown that they
// receive at their address. Below a MaxConns of 8 it is 0: one forged packet
// would take too large a part of it.
func (g *Guard) maxUnverified() int64 { return g.MaxConns / 8 }

// maxHandshakes is how many may wait to be accepted, so that they leave room
// for those that are; at least one.
func (g *Guard) maxHandshakes() int64 { return g.MaxConns - g.MaxConns/2 }

// pressed reports whether whoever comes next has to show that it receives at
// its address. It does not block.
func (g *Guard) pressed() bool {
	if g.MaxConns <= 0 {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.unverified >= g.maxUnverified()
}

// A gate is what a listener has quic-go call, on the goroutine that handles the
// first packets of all its connections, one after the other: verify, if the
// client brings no token, then GetConfigForClient, then admit. It does not refer
// to quic-go's listener: quic-go's transport outlives that.
type gate struct {
	guard *Guard
	// The user's callbacks, and generator, or nil.
	userVerify  func(net.Addr) bool
	userContext func(context.Context, *quic.ClientInfo) (context.Context, error)
	ids         *connIDs
	unwrapped   atomic.Bool // connections may be accepted that we do not see
	terms       terms       // of the connection that is to be admitted, see watch
}

// verify is quic-go's callback. It asks the user's first, which may count on
// being called each time.
func (g *gate) verify(addr net.Addr) bool {
	verify := g.userVerify != nil && g.userVerify(addr)
	return verify || g.guard.pressed()
}

// attach has raw ask g, from its next listener on.
func (g *gate) attach(raw *quic.Transport) {
	raw.VerifySourceAddress = g.verify
	raw.ConnContext = g.admit
}

// watch returns conf with a GetConfigForClient, if it has one, that tells g of
// the Config that counts.
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

// admit is quic-go's callback. It refuses connections above the limits before
// quic-go does any work for the handshake, and then asks the user's.
func (g *gate) admit(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	a := &admission{guard: g.guard, lifetime: ctx, began: time.Now(), terms: g.terms, verified: info.AddrVerified, unseen: g.unwrapped.Load()}
	if err := g.guard.admit(a); err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { a.enter(gone) })
	if g.userContext != nil {
		var err error
		ctx, err = g.userContext(ctx, info)
		if err != nil || ctx == nil { // then quic-go panics
			return ctx, err
		}
	}
	if g.ids != nil {
		g.ids.last.Store(a)
	}
	return context.WithValue(ctx, admissionKey{}, a), nil
}

// connIDs is the user's ConnectionIDGenerator. quic-go calls it right after
// gate.admit; when it fails, quic-go forgets the connection without ending its
// context.
type connIDs struct {
	quic.ConnectionIDGenerator
	last atomic.Pointer[admission] // to be let in
}

// GenerateConnectionID cannot tell whether quic-go calls it for the last
// admission or, at the same time, for something else. If the former was meant
// to fail and did not, it is counted again when it is accepted.
func (c *connIDs) GenerateConnectionID() (quic.ConnectionID, error) {
	id, err := c.ConnectionIDGenerator.GenerateConnectionID()
	if err != nil {
		if a := c.last.Swap(nil); a != nil {
			a.enter(forgotten)
		}
	}
	return id, err
}
