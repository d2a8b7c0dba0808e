package quiclife

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// GuardStats counts what the connections of a [Guard] have done, those that
// have ended included. The counts that say "in all", and those of [StreamStats]
// but for Open, Peak and Limit, never fall. Each is exact; the connections are
// read one after the other.
type GuardStats struct {
	// Stats are the sums over all connections. Limit is that of the connections
	// that are open. Peak is the highest of any one connection.
	Stats

	Conns       int64 // open now
	ConnsOpened int64 // in all

	// ConnsRefused counts what was refused in all, by the limit that was
	// reached. Each first packet of a client counts, and Go's clients often
	// send two.
	ConnsRefused LimitCounts

	// Of the connections that are open, by kind of stream.
	Full   PerKind[int64]         // how many have no slot left, as far as this side knows
	Most   PerKind[int64]         // open streams on the one that has most
	Oldest PerKind[time.Duration] // age of the oldest stream, 0 if none is open

	LimitErrors  LimitCounts   // streams that could not be opened, or not handled, in all
	OpensWaiting int64         // calls that wait for a slot now
	OpenWait     time.Duration // what such calls have waited, in all, once they have returned
	Leaks        LeakCounts    // reported, in all
	Collections  int64         // garbage collections asked for, in all

	HandlerErrors int64 // errors that handlers returned, and answers that were cut, in all
	HandlerPanics int64 // in all
}

// PerKind has one value for each kind of stream.
type PerKind[T any] struct {
	Outgoing    T // bidirectional, opened here
	OutgoingUni T // unidirectional, opened here
	Incoming    T // bidirectional, accepted here
	IncomingUni T // unidirectional, accepted here
}

func (p *PerKind[T]) of(k kind) *T {
	return [...]*T{&p.Outgoing, &p.OutgoingUni, &p.Incoming, &p.IncomingUni}[k]
}

func (s *Stats) of(k kind) *StreamStats {
	return [...]*StreamStats{&s.Outgoing, &s.OutgoingUni, &s.Incoming, &s.IncomingUni}[k]
}

// LimitCounts counts by [LimitScope].
type LimitCounts struct {
	Peer, Outgoing, Streams, Conns, Heap int64
}

// LeakCounts counts by [LeakReason].
type LeakCounts struct {
	Dropped, Unread, Idle, Uncredited int64
}

// totals are what a group has counted. The counters are for rare events.
type totals struct {
	mu sync.Mutex // held to read all connections, and to take one out; Conn.mu and Guard.mu come after it
	// guarded by mu
	ended       Stats // of connections that are no members any more
	connsOpened int64

	refused, limitErrors [numScopes]atomic.Int64
	leaks                [numReasons]atomic.Int64
	openWait             atomic.Int64 // nanoseconds
	collections          atomic.Int64
	handlerErrors        atomic.Int64
	handlerPanics        atomic.Int64
}

func (t *totals) connMade() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.connsOpened++
}

// add counts a stream that came when its connection had been folded.
func (t *totals) add(k kind, as outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.ended.of(k)
	s.Opened++
	s.count(as)
}

// foldIfEnded adds the counts of c to the totals of the group and takes it out
// of it, in one step, so that no count is seen twice or not at all. It does so
// once, when c has ended, and all of its streams.
func (c *Conn) foldIfEnded() {
	t := &c.guard.totals
	t.mu.Lock()
	defer t.mu.Unlock()
	c.mu.Lock()
	open := int64(0)
	for k := range c.kinds {
		open += c.kinds[k].stats.Open
	}
	fold := c.ended && open == 0 && !c.folded
	if fold {
		c.folded = true
		for k := range c.kinds {
			t.ended.of(kind(k)).sum(c.kinds[k].stats)
		}
	}
	c.mu.Unlock()
	if fold {
		c.guard.remove(c)
	}
}

// sum adds the counts of a connection.
func (s *StreamStats) sum(of StreamStats) {
	s.Open += of.Open
	s.Peak = max(s.Peak, of.Peak)
	s.Opened += of.Opened
	s.Finished += of.Finished
	s.Released += of.Released
	s.Reset += of.Reset
	s.Reclaimed += of.Reclaimed
	s.Detached += of.Detached
	s.EOFs += of.EOFs
}

// Stats returns what the connections of g have done so far. It does not block.
// It looks at each connection that is open, but not at its streams.
func (g *Guard) Stats() GuardStats {
	for _, c := range g.members() {
		c.refresh()
	}
	t := &g.totals
	t.mu.Lock()
	defer t.mu.Unlock()
	s := GuardStats{
		Stats:         t.ended,
		ConnsOpened:   t.connsOpened,
		ConnsRefused:  limitCounts(&t.refused),
		LimitErrors:   limitCounts(&t.limitErrors),
		OpenWait:      time.Duration(t.openWait.Load()),
		Collections:   t.collections.Load(),
		HandlerErrors: t.handlerErrors.Load(),
		HandlerPanics: t.handlerPanics.Load(),
		Leaks: LeakCounts{
			Dropped:    t.leaks[LeakDropped].Load(),
			Unread:     t.leaks[LeakUnread].Load(),
			Idle:       t.leaks[LeakIdle].Load(),
			Uncredited: t.leaks[LeakUncredited].Load(),
		},
	}
	for _, c := range g.members() {
		s.add(c)
	}
	return s
}

func limitCounts(n *[numScopes]atomic.Int64) LimitCounts {
	return LimitCounts{
		Peer:     n[LimitPeer].Load(),
		Outgoing: n[LimitOutgoing].Load(),
		Streams:  n[LimitStreams].Load(),
		Conns:    n[LimitConns].Load(),
		Heap:     n[LimitHeap].Load(),
	}
}

// add adds a connection that is a member.
func (s *GuardStats) add(c *Conn) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		s.Conns++
	}
	for k := range c.kinds {
		k, r := kind(k), &c.kinds[k]
		s.Stats.of(k).sum(r.stats)
		s.OpensWaiting += int64(r.blocked)
		if c.ended {
			continue
		}
		limit := &s.Stats.of(k).Limit
		*limit += min(r.stats.Limit, math.MaxInt64-*limit)
		if most := s.Most.of(k); r.stats.Open > *most {
			*most = r.stats.Open
		}
		if r.full(now) {
			*s.Full.of(k)++
		}
		if oldest := s.Oldest.of(k); r.streams.first != nil {
			*oldest = max(*oldest, now-r.streams.first.opened)
		}
	}
}

// full says whether the kind has no slot left. Of what we open at the peer's
// limit that is known only while somebody waits for one, or has tried lately.
func (r *registry) full(now time.Duration) bool {
	return r.wanting(now) || r.stats.Limit > 0 && r.stats.Open+r.owing >= r.stats.Limit
}
