package quiclife

import (
	"math"
	"time"
)

// Each connection has one timer, which is pending only while something waits
// for it. When it fires, all streams of the connection are swept: we find those
// that have timed out, the dropped ones that may be ended now, and those to
// drain.

// A sweep is one pass over the streams, and what it found to do.
type sweep struct {
	conn *Conn
	now  time.Duration
	next time.Duration // when to sweep again; 0: not until somebody asks for it

	short  [numKinds]bool          // slots of this kind are short
	grace  [numKinds]time.Duration // how long dropped streams with data in flight are left alone
	coming [numKinds]bool          // slots of dropped streams will be free soon
	idle   [numKinds]bool          // there are streams that no call uses now, which may have been dropped

	looked  bool // right after a garbage collection
	ends    []ending
	reports []*streamState // leaks to report now and end later
	drains  []*streamState
	stuck   []kind  // whose opens have waited in vain
	ask     float64 // the share of a CPU to ask for a collection with, or 0 for no collection
}

type ending struct {
	st     *streamState
	reason LeakReason
}

// at makes the next sweep happen at t or before.
func (s *sweep) at(t time.Duration) {
	if s.next == 0 || t < s.next {
		s.next = t
	}
}

// wakeLocked makes a sweep happen at a time or before.
func (c *Conn) wakeLocked(at time.Duration) {
	if c.ended || c.sweepAt > 0 && c.sweepAt <= at {
		return
	}
	c.sweepAt = max(at, 1) // 0 means never
	wait := max(at-c.now(), 0)
	if c.timer == nil {
		c.timer = time.AfterFunc(wait, c.timerFired)
	} else {
		c.timer.Reset(wait)
	}
}

func (c *Conn) timerFired() {
	c.mu.Lock()
	c.sweepAt = 0
	c.mu.Unlock()
	tell(c.sweepStreams(false))
}

// sweepStreams does a sweep, and ends the streams that it finds. It returns the
// leaks, which the caller must pass to tell.
func (c *Conn) sweepStreams(looked bool) (leaks []Leak) {
	s := &sweep{conn: c, now: c.now(), looked: looked}
	s.plan(c.graceInShortage())
	for _, st := range s.reports {
		leaks = st.leak(leaks, LeakDropped)
	}
	for _, e := range s.ends {
		leaks = e.st.leak(leaks, e.reason)
		if !c.guard.ReportOnly {
			e.st.reclaim(c.guard.Codes.of(e.reason))
		}
	}
	if s.ask > 0 {
		c.guard.totals.collections.Add(1)
		c.collector.ask(s.ask)
	}
	if len(s.drains) > 0 {
		c.discard(s.drains)
	}
	for _, k := range s.stuck {
		c.logStuck(k)
	}
	return leaks
}

func (c *Codes) of(reason LeakReason) StreamErrorCode {
	switch reason {
	case LeakIdle:
		return c.Idle
	case LeakUnread:
		return c.HalfClosed
	}
	return c.Abandoned
}

// minSpare is the shortest time between two sweeps that opens ask for. If there
// are so many streams that sweeps would cost more than half a percent of a CPU,
// the time is longer.
const minSpare = 2 * time.Millisecond

// plan looks at all streams, and notes in s what to do.
func (s *sweep) plan(inShortage time.Duration) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	s.shortagesLocked(inShortage)
	c.lookForStallLocked(s)
	all := c.stalled || c.draining.Err() != nil
	var draining []*streamState
	for k := range c.kinds {
		r := &c.kinds[k]
		for st := r.streams.first; st != nil; st = st.next {
			st.mu.Lock()
			s.timeoutsLocked(st)
			if st.isDropped() {
				s.droppedLocked(st, r)
				ended := st.finalSize.Load() != sizeUnknown // the peer has sent FIN or a reset
				if (all || ended) && st.kind == incomingUni && !c.guard.ReportOnly && !st.draining.Load() {
					st.drainLocked(c.guard.Codes.Abandoned)
					c.drainAt = 0
				}
			} else if st.readers.Load() == 0 && st.writing == notWriting {
				s.idle[k] = true
			}
			if st.draining.Load() && st.receiveHalf == HalfOpen {
				draining = append(draining, st)
			}
			st.mu.Unlock()
		}
	}
	switch {
	case len(draining) == 0 || c.discarding: // a drain in progress wakes us when it is done
	case s.now < c.drainAt:
		s.at(c.drainAt)
	case s.looked: // not here: the look at the other connections would wait for it
		s.at(s.now)
	default:
		s.drains, c.discarding = draining, true
	}
	s.askLocked()
	now := c.now()
	c.spare = now + max(minSpare, 200*(now-s.now))
	if s.next > 0 {
		c.wakeLocked(s.next)
	}
}

// timeoutsLocked notes whether st has timed out. st.mu is held.
func (s *sweep) timeoutsLocked(st *streamState) {
	g := s.conn.guard
	moved, reads := st.read.Load()+st.written.Load(), int64(st.reads.Load())
	if t := g.IdleTimeout; t > 0 && st.extraLocked().idle.passed(s, t, moved) {
		s.ends = append(s.ends, ending{st, LeakIdle})
	}
	if t := g.halfCloseTimeout(); t > 0 && !st.kind.uni() && st.sendHalf.ended() && st.receiveHalf == HalfOpen {
		w := &st.extraLocked().unread
		if st.readers.Load() > 0 && w.due != hasPassed { // a blocked Read counts as reading
			w.start(s.now, t, reads)
		}
		if w.passed(s, t, reads) {
			s.ends = append(s.ends, ending{st, LeakUnread})
		}
	}
}

// A watch is a timeout that restarts when a sweep sees that a count has
// changed. streamState.mu guards it.
type watch struct {
	due  time.Duration // 0: not started
	mark int64
}

const hasPassed = math.MaxInt64 // of watch.due

func (w *watch) start(now, timeout time.Duration, count int64) {
	w.due, w.mark = after(now, timeout), count
}

// after returns t + d. It does not overflow if d is so long that it means
// never.
func after(t, d time.Duration) time.Duration { return t + min(d, hasPassed-1-t) }

// passed starts the watch when it is first called. It returns true once, when
// the timeout has passed. Until then it makes sweeps frequent enough to see a
// change at most a quarter of timeout late.
func (w *watch) passed(s *sweep, timeout time.Duration, count int64) bool {
	switch {
	case w.due == hasPassed:
		return false
	case w.due == 0 || count != w.mark:
		w.start(s.now, timeout, count)
	case w.due <= s.now:
		w.due = hasPassed
		return true
	}
	s.at(min(w.due, s.now+max(timeout/4, 1)))
	return false
}

// watchSoon makes a sweep happen within a quarter of timeout, which starts the
// watch of a stream. It has no effect if timeout is not positive. For most
// timeouts the sweep that mayStall causes is soon enough, and costs nothing
// under load.
func (c *Conn) watchSoon(timeout time.Duration) {
	switch {
	case timeout <= 0:
	case timeout >= 4*stallInterval:
		c.mayStall()
	default:
		c.mu.Lock()
		c.wakeLocked(c.now() + timeout/4)
		c.mu.Unlock()
	}
}
