package quiclife

import (
	"context"
	"errors"
	"time"

	"github.com/quic-go/quic-go"
)

// Streams of a kind are short while somebody is in want of one: an open waits
// or failed within the last second, three quarters of the incoming slots are
// taken, or a limit of the group was reached within the last second. Then
// dropped unidirectional streams of that kind are ended too, the grace of
// dropped streams is cut to what their data needs to arrive, and a garbage
// collection is asked for, to find more of them.

// shortFor is how long one failure to open a stream counts as a shortage.
const shortFor = time.Second

// busyInterval is how soon to look again while slots are taken by streams that
// are all in use, and nobody here is in want of one.
const busyInterval = 30 * time.Second

// crowded says whether three quarters of the slots are taken. The peer may
// have more streams open than were accepted here.
func (r *registry) crowded() bool {
	return r.stats.Limit > 0 && 4*(r.stats.Open+r.owing) >= 3*r.stats.Limit
}

// wanting says whether opens of streams wait, or have failed lately.
func (r *registry) wanting(now time.Duration) bool {
	return r.blocked > 0 || r.failedAt > 0 && now-r.failedAt < shortFor
}

// openFailed notes that no stream could be opened.
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

// block counts an open that waits for a slot, until unblock is called.
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

// beginWait starts a time in which opens wait and none succeeds.
func (r *registry) beginWait(now time.Duration) {
	r.waitSince, r.vain, r.stuck, r.relieved = now, 0, false, false
}

// relieveLocked has the streams looked at, if that may bring a stream of r's
// kind back and was not done for the same want already.
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

// relieve has the streams looked at because a limit of the group was reached.
func (c *Conn) relieve() {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wakeLocked(max(now, c.spare))
}

// graceInShortage is how long the data of a dropped stream may need to arrive,
// if one packet is lost and sent again: a probe timeout and a round trip. It is
// 0 while there are no dropped streams.
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

const stuckAfter = time.Second // when an open that waits is logged

// shortagesLocked finds out what is short.
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
		case s.looked: // not here, where the other connections would wait for the Logger
			s.at(s.now)
		default:
			r.stuck = true
			s.stuck = append(s.stuck, kind(k))
		}
	}
}

// The first unidirectional streams of each side are taken for control streams:
// HTTP/3 has three in each direction, which must not be closed.
const controlStreams = 3

// controlWait is for how long opens have to be in want before control streams
// of this side are ended: the others may just be slow to end.
const controlWait = 5 * time.Second

// inTheWayLocked says whether a dropped unidirectional stream may be ended. One that
// the peer has told us to stop sending on is of no use to anybody. Control
// streams of this side go only if the program holds no other stream of the kind
// whose end would help, and opens are still in want after controlWait, and two
// collections that brought nothing else back.
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
	if !r.wanting(s.now) || r.dropped < r.stats.Open { // opens of the peer are not seen to be in want
		return false
	}
	due := r.waitSince + controlWait
	if s.now < due {
		s.at(due)
	}
	if r.vain < 2 {
		s.idle[st.kind] = true // so that there is another collection
	}
	return s.now >= due && r.vain >= 2
}

// askLocked asks for a collection, if there may be dropped streams that are in
// the way, and no slot is coming back already.
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
		case s.coming[k]: // was it enough?
			s.at(max(s.now+c.asking.First, c.spare))
		case !s.idle[k] && r.wanting(s.now):
			s.at(max(s.now+shortFor, c.spare))
		case !s.idle[k]: // a call that returns has us look again (mayStall)
			s.at(max(s.now+busyInterval, c.spare))
		case s.now < c.asking.Next():
			s.at(c.asking.Next())
		default:
			c.asked = true
			s.ask = forSlots
		}
	}
}
