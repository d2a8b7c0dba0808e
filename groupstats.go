package quiclife

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// GuardStats counts what the connections of a [Guard] have done, including
// those that have ended. The counts marked "in all" never fall, nor do those of
// [StreamStats] except Open, Peak and Limit. Each count is exact, but the
// connections are read one after the other.
type GuardStats struct {
	// Stats are the sums over all connections. Limit is summed over the open
	// connections only. Peak is the highest Peak of any one connection.
	Stats

	Conns       int64 // open now
	ConnsOpened int64 // in all

	// ConnsRefused counts the connections refused in all, by the limit that was
	// reached. Each first packet of a client counts, and Go's clients often send
	// two.
	ConnsRefused LimitCounts

	// About the open connections, by kind of stream.
	Full   PerKind[int64]         // connections with no slot left, as far as this side knows
	Most   PerKind[int64]         // open streams on the connection with the most
	Oldest PerKind[time.Duration] // age of the oldest stream, 0 if none is open

	LimitErrors  LimitCounts   // streams that could not be opened or handled, in all
	OpensWaiting int64         // calls now waiting for a slot to open a stream
	OpenWait     time.Duration // time that such calls have waited, in all, added when they return
	Leaks        LeakCounts    // reported, in all
	Collections  int64         // garbage collections asked for, in all

	HandlerErrors int64 // errors returned by handlers, and answers that were cut, in all
	HandlerPanics int64 // in all

	// Handled is how many streams take a slot of MaxStreams now. It is 0 without
	// MaxStreams. A handler that hangs keeps its slot even if its stream was reset,
	// so Handled may exceed the number of open streams.
	Handled int64
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

// LimitCounts has one count for each [LimitScope].
type LimitCounts struct {
	Peer, Outgoing, Streams, Conns, Heap int64
}

// LeakCounts has one count for each [LeakReason].
type LeakCounts struct {
	Dropped, Unread, Idle, Uncredited int64
}

// totals are the counts of a group that outlive its connections.
type totals struct {
	mu sync.Mutex // held to read all connections and to fold one; locked before Conn.mu and Guard.mu
	// guarded by mu
	ended       Stats // of connections that have left the group
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

// add counts a stream that was opened after its connection had been folded.
func (t *totals) add(k kind, as outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.ended.of(k)
	s.Opened++
	s.count(as)
}

// foldIfEnded folds c: it adds the counts of c to the totals of the group and
// takes c out of the group. This is one step, so that each count is seen
// exactly once. It happens once, when c and all of its streams have ended.
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

// sum adds the counts of one kind of stream on a connection.
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

// Stats returns counts of what the connections of g have done so far. It does
// not block. Its cost grows with the number of open connections, not with the
// number of streams.
func (g *Guard) Stats() GuardStats {
	for _, c := range g.members() {
		c.refresh()
	}
	g.mu.Lock()
	handled := g.handling.Taken()
	g.mu.Unlock()
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
		Handled:       handled,
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

// add adds the counts of a connection that is a member.
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

// full reports whether the kind has no slot left. For streams that this side
// opens, the peer's limit shows only while an open waits for a slot, or has
// failed lately.
func (r *registry) full(now time.Duration) bool {
	return r.wanting(now) || r.stats.Limit > 0 && r.stats.Open+r.owing >= r.stats.Limit
}
