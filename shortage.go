package quiclife

import (
	"context"
	"errors"
	"time"

	"github.com/quic-go/quic-go"
)

// Slots of a kind of stream are short in three cases: an open waits for one or
// has failed within the last second, three quarters of the incoming slots are
// taken, or MaxStreams or MaxHeap of the group was reached within the last
// second. This is a shortage. It has three effects: dropped unidirectional
// streams of the kind are ended too, dropped streams get only as much time as
// their data needs to arrive, and we ask for a garbage collection to find more
// of them.

// shortFor is how long a failure at a limit counts as a shortage.
const shortFor = time.Second

// busyInterval is the time until the next sweep if three quarters of the
// incoming slots are taken, but by streams that are all in use.
const busyInterval = 30 * time.Second

// crowded reports whether three quarters of the incoming slots are taken. We do
// not wait until all are, because the peer may have opened streams that were
// not accepted yet.
func (r *registry) crowded() bool {
	return r.stats.Limit > 0 && 4*(r.stats.Open+r.owing) >= 3*r.stats.Limit
}

// wanting reports whether an open waits for a slot, or has failed lately.
func (r *registry) wanting(now time.Duration) bool {
	return r.blocked > 0 || r.failedAt > 0 && now-r.failedAt < shortFor
}

// openFailed notes that an open has failed for lack of a slot.
func (c *Conn) openFailed(k kind) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &c.kinds[k]
	if !r.wanting(now) {
		r.beginWait(now)
	}
	r.failedAt = max(now, 1)
	c.relieveLocked(r, now)
}

// block notes that an open waits for a slot, until unblock is called.
func (c *Conn) block(k kind) (unblock func()) {
	start := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &c.kinds[k]
	if !r.wanting(start) {
		r.beginWait(start)
	}
	r.blocked++
	c.relieveLocked(r, start)
	if !r.stuck {
		c.wakeLocked(r.waitSince + stuckAfter)
	}
	return func() {
		c.guard.totals.openWait.Add(int64(c.now() - start))
		c.mu.Lock()
		defer c.mu.Unlock()
		r.blocked--
	}
}

// beginWait starts a period in which opens wait or fail and none succeeds.
func (r *registry) beginWait(now time.Duration) {
	r.waitSince, r.vain, r.stuck, r.relieved = now, 0, false, false
}

// relieveLocked asks for a sweep, which may free a slot of r. It does so once
// for each wait (see beginWait).
func (c *Conn) relieveLocked(r *registry, now time.Duration) {
	if r.relieved {
		return
	}
	r.relieved = true
	at := max(now, c.spare)
	if r.dropped == 0 {
		at = max(at, c.asking.Next())
	}
	c.wakeLocked(at)
}

// relieve asks for a sweep because a limit of the group was reached.
func (c *Conn) relieve() {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wakeLocked(max(now, c.spare))
}

// graceInShortage returns how long dropped streams are left alone in a
// shortage: a probe timeout and a round trip. In this time data arrives even if
// one packet is lost and sent again. It returns 0 if there are no dropped
// streams.
func (c *Conn) graceInShortage() time.Duration {
	c.mu.Lock()
	dropped := int64(0)
	for k := range c.kinds {
		dropped += c.kinds[k].dropped
	}
	c.mu.Unlock()
	if dropped == 0 {
		return 0
	}
	stats := c.raw.ConnectionStats()
	return rttOf(stats).PTO() + stats.MinRTT
}

const stuckAfter = time.Second // how long an open waits until that is logged

// shortagesLocked notes for which kinds slots are short.
func (s *sweep) shortagesLocked(grace time.Duration) {
	c := s.conn
	group := c.guard.short()
	for k := range c.kinds {
		r := &c.kinds[k]
		s.short[k] = r.wanting(s.now) || group || kind(k).incoming() && r.crowded()
		s.grace[k] = c.guard.abandonGrace()
		if s.short[k] {
			s.grace[k] = min(s.grace[k], grace)
		}
		switch due := r.waitSince + stuckAfter; {
		case r.blocked == 0 || r.stuck:
		case s.now < due:
			s.at(due)
		case s.looked: // not here: the look at the other connections would wait for the Logger
			s.at(s.now)
		default:
			r.stuck = true
			s.stuck = append(s.stuck, kind(k))
		}
	}
}

// The first unidirectional streams of each side may be control streams. HTTP/3
// has three in each direction, which must not be closed.
const controlStreams = 3

// controlWait is how long opens must wait or fail before we end control streams
// of this side. The other streams may just be slow to end.
const controlWait = 5 * time.Second

// inTheWayLocked reports whether a dropped unidirectional stream may be ended.
// It may be if the peer has sent STOP_SENDING: then it is of no use to anybody.
// Else it may be ended in a shortage, but the first controlStreams of this side
// are ended last. Three conditions must hold for these: all open streams of the
// kind were dropped, opens have waited or failed for controlWait, and two
// collections have freed no slot since.
func (s *sweep) inTheWayLocked(st *streamState, r *registry) bool {
	if st.kind.sends() {
		if _, stopped := errors.AsType[*quic.StreamError](context.Cause(st.send().Context())); stopped {
			return true
		}
	}
	if !s.short[st.kind] {
		return false
	}
	if st.id()>>2 >= controlStreams {
		return true
	}
	if !r.wanting(s.now) || r.dropped < r.stats.Open { // wanting is false for incoming streams
		return false
	}
	due := r.waitSince + controlWait
	if s.now < due {
		s.at(due)
	}
	if r.vain < 2 {
		s.idle[st.kind] = true // so that we ask for another collection
	}
	return s.now >= due && r.vain >= 2
}

// askLocked asks for a collection if dropped streams may hold slots that are
// short, and no slot will be free soon anyway.
func (s *sweep) askLocked() {
	c := s.conn
	for st := c.owing.first; st != nil; st = st.next {
		if !st.isDropped() {
			s.idle[st.kind] = true
		}
	}
	for k := range c.kinds {
		r := &c.kinds[k]
		if s.looked && !s.coming[k] && r.wanting(s.now) {
			if r.vain++; r.vain == 2 {
				s.at(s.now)
			}
		}
		switch {
		case !s.short[k] && c.drained == nil || c.asked:
		case s.coming[k]: // sweep again to see whether that was enough
			s.at(max(s.now+c.asking.First, c.spare))
		case !s.idle[k] && r.wanting(s.now):
			s.at(max(s.now+shortFor, c.spare))
		case !s.idle[k]: // a call that returns makes us sweep again (mayStall)
			s.at(max(s.now+busyInterval, c.spare))
		case s.now < c.asking.Next():
			s.at(c.asking.Next())
		default:
			c.asked = true
			s.ask = forSlots
		}
	}
}
