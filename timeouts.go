package quiclife

import (
	"math"
	"time"
)

// One timer for each connection, pending only while something waits for it,
// has all its streams looked at: what has timed out, which dropped ones may be
// ended now, what is to be drained.

// A sweep is one such look, and what it found to do.
type sweep struct {
	conn *Conn
	now  time.Duration
	next time.Duration // when to look again, 0: when somebody asks for it

	short  [numKinds]bool          // somebody is in want of streams of this kind
	grace  [numKinds]time.Duration // of dropped streams with something under way
	coming [numKinds]bool          // slots of dropped streams are coming back
	idle   [numKinds]bool          // there are streams in nobody's use, which may have been dropped

	looked  bool // right after a garbage collection
	ends    []ending
	reports []*streamState // leaks that are ended later
	drains  []*streamState
	stuck   []kind  // whose opens wait in vain
	ask     float64 // the share of a processor to ask for a collection with, 0: none
}

type ending struct {
	st     *streamState
	reason LeakReason
}

// at has the streams looked at again at a time, or before.
func (s *sweep) at(t time.Duration) {
	if s.next == 0 || t < s.next {
		s.next = t
	}
}

// wakeLocked has the streams looked at at a time, or before.
func (c *Conn) wakeLocked(at time.Duration) {
	if c.ended || c.sweepAt > 0 && c.sweepAt <= at {
		return
	}
	c.sweepAt = max(at, 1) // 0 is never
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

// sweepStreams ends what is to be ended. It returns the leaks, for the caller
// to tell.
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

// minSpare is how long the streams are not looked at again for those who open
// streams. Where that costs more than half a percent of a processor, because
// there are many, it is longer.
const minSpare = 2 * time.Millisecond

// plan looks at the streams.
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
				ended := st.finalSize.Load() != sizeUnknown // by the peer
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
	case len(draining) == 0 || c.discarding: // which wakes us when it is done
	case s.now < c.drainAt:
		s.at(c.drainAt)
	case s.looked: // not here, where the other connections would wait for it
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

// timeoutsLocked finds out whether st has timed out. st.mu is held.
func (s *sweep) timeoutsLocked(st *streamState) {
	g := s.conn.guard
	moved, reads := st.read.Load()+st.written.Load(), int64(st.reads.Load())
	if t := g.IdleTimeout; t > 0 && st.extraLocked().idle.passed(s, t, moved) {
		s.ends = append(s.ends, ending{st, LeakIdle})
	}
	if t := g.halfCloseTimeout(); t > 0 && !st.kind.uni() && st.sendHalf.ended() && st.receiveHalf == HalfOpen {
		w := &st.extraLocked().unread
		if st.readers.Load() > 0 && w.due != hasPassed { // as good as reading
			w.start(s.now, t, reads)
		}
		if w.passed(s, t, reads) {
			s.ends = append(s.ends, ending{st, LeakUnread})
		}
	}
}

// A watch is a timeout that starts anew when a count is seen to have changed.
// streamState.mu guards it.
type watch struct {
	due  time.Duration // 0: not started
	mark int64
}

const hasPassed = math.MaxInt64 // of watch.due

func (w *watch) start(now, timeout time.Duration, count int64) {
	w.due, w.mark = after(now, timeout), count
}

// after is d after t. A d that is meant to be never does not overflow.
func after(t, d time.Duration) time.Duration { return t + min(d, hasPassed-1-t) }

// passed starts the watch when it is first called, and reports once that the
// time has passed. Until then it has s look again soon enough to see a change at
// most a quarter of timeout late.
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

// watchSoon has the streams looked at within a quarter of timeout, if there is
// one: something has to be watched from now on. mayStall is soon enough for most,
// and costs nothing under load.
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
