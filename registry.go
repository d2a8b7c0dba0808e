package quiclife

import (
	"time"

	"github.com/quiclife/quiclife/internal/slots"
)

// A kind is one of the four kinds of streams that QUIC counts and limits
// separately (RFC 9000, 2.1).
type kind uint8

const (
	outgoing kind = iota
	outgoingUni
	incoming
	incomingUni
	numKinds
)

func (k kind) incoming() bool { return k == incoming || k == incomingUni }
func (k kind) uni() bool      { return k == outgoingUni || k == incomingUni }
func (k kind) sends() bool    { return k != incomingUni }
func (k kind) receives() bool { return k != outgoingUni }

// A registry has the open streams of one kind. Conn.mu guards it.
type registry struct {
	streams streamList
	stats   StreamStats
	dropped int64 // open streams that were found dropped
	owing   int64 // streams that have ended but whose credit was not returned

	slots slots.Queue // of this side's own limit, taken by open streams and opens in progress

	// Whether slots are short, see shortage.go.
	blocked   int           // opens that wait for a slot, at this side's limit or the peer's
	failedAt  time.Duration // when an open last failed for lack of a slot, or 0 for never
	waitSince time.Duration // opens have waited or failed since then, and none has succeeded
	stuck     bool          // the wait was logged
	vain      int           // collections since waitSince that freed no slot
	relieved  bool          // a sweep was asked for because of the wait
}

// limit sets this side's own limit. It is called before the first stream.
func (r *registry) limit(n int64) {
	r.stats.Limit = max(n, 0)
	r.slots.Limit = r.stats.Limit
}

// A streamList is a list linked through its streams, oldest first. A stream is
// in at most one list.
type streamList struct{ first, last *streamState }

func (l *streamList) add(st *streamState) {
	st.prev = l.last
	if l.last != nil {
		l.last.next = st
	} else {
		l.first = st
	}
	l.last = st
}

func (l *streamList) remove(st *streamState) {
	if st.prev != nil {
		st.prev.next = st.next
	} else {
		l.first = st.next
	}
	if st.next != nil {
		st.next.prev = st.prev
	} else {
		l.last = st.prev
	}
	st.prev, st.next = nil, nil
}

// effectiveLimit returns the limit that quic-go derives from a
// MaxIncomingStreams or MaxIncomingUniStreams.
func effectiveLimit(configured int64) int64 {
	switch {
	case configured == 0:
		return 100
	case configured < 0:
		return 0
	}
	return min(configured, 1<<60)
}

// register adds st to the open streams of its kind.
func (c *Conn) register(st *streamState) {
	c.mu.Lock()
	r := &c.kinds[st.kind]
	r.streams.add(st)
	r.stats.Opened++
	r.stats.Open++
	r.stats.Peak = max(r.stats.Peak, r.stats.Open)
	ended := c.ended
	if st.kind.receives() {
		c.mayStallLocked()
	}
	c.asking.Hope()
	r.beginWait(st.opened)
	if st.kind.incoming() && r.crowded() {
		c.relieveLocked(r, st.opened)
	}
	c.mu.Unlock()

	if ended { // it ended after the open, and end has not seen st
		st.connectionEnded()
	}
}

// unregister takes st out of the registry, and frees its slot for the next
// open. It is called once for each stream.
func (c *Conn) unregister(st *streamState, as outcome) {
	c.mu.Lock()
	r := &c.kinds[st.kind]
	r.streams.remove(st)
	owes, dropped := c.creditRequired && st.kind.incoming() && !st.credited && !c.ended, st.isDropped()
	if dropped {
		r.dropped--
	}
	if owes && (!dropped || c.guard.ReportOnly) {
		st.dropped.Store(false) // if it is found dropped again, that is a leak of another kind
		st.owing = true
		r.owing++
		c.owing.add(st)
	}
	r.stats.Open--
	r.stats.count(as)
	late := c.folded
	st.unregistered = true
	if st.handled {
		defer c.handled()
	}
	if !st.kind.incoming() {
		r.slots.Release()
	}
	c.drainedLocked()
	ended := c.ended
	c.mu.Unlock()
	switch {
	case late:
		c.guard.totals.add(st.kind, as)
	case ended:
		c.foldIfEnded()
	}
	if owes && dropped && !c.guard.ReportOnly { // it was found dropped, and has ended since
		st.returnCredit()
	}
}

// openLocked returns how many streams Shutdown has to wait for. It leaves out
// dropped unidirectional streams, which nobody will end.
func (c *Conn) openLocked() int64 {
	open := c.given
	for k := range c.kinds {
		r := &c.kinds[k]
		open += r.stats.Open
		if kind(k).uni() {
			open -= r.dropped
		}
	}
	return open
}

// collect returns the open streams for which take returns true, oldest first
// within each kind. take is called with c.mu held.
func (c *Conn) collect(take func(*streamState) bool) []*streamState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.collectLocked(take)
}

// all returns the open streams.
func (c *Conn) all() []*streamState { return c.collect(func(*streamState) bool { return true }) }

func (c *Conn) collectLocked(take func(*streamState) bool) []*streamState {
	var sts []*streamState
	for k := range c.kinds {
		for st := c.kinds[k].streams.first; st != nil; st = st.next {
			if take(st) {
				sts = append(sts, st)
			}
		}
	}
	return sts
}
