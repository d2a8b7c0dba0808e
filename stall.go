package quiclife

import "time"

// Dropped streams with unread data can fill the connection's window while no
// slot is short. Then nothing moves on the connection, a Read, a Write or an
// Accept is blocked, and there is an incoming half that nobody reads. A
// connection at rest looks the same from outside, so a stall ends nothing: it
// has dropped halves drained, and asks for a collection, ever more rarely.

const stallInterval = time.Second

// mayStall is called before a call that may block. It costs an atomic load
// while a look is due soon anyway.
func (c *Conn) mayStall() {
	if c.stallWatched.Load() {
		return
	}
	c.stallWatched.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.now() + stallInterval
	if c.stallAt == 0 || at < c.stallAt {
		c.stallAt = at
	}
	c.wakeLocked(at)
}

// lookForStallLocked finds out whether the connection may have stalled.
func (c *Conn) lookForStallLocked(s *sweep) {
	switch {
	case c.stallAt == 0:
		return
	case s.now < c.stallAt:
		s.at(c.stallAt)
		return
	}
	c.stallWatched.Store(false)
	moved, blocked, unread := c.traffic()
	switch {
	case !blocked || !unread:
		c.stalled, c.stallAt = false, 0 // until the next call that may block
		return
	case moved != c.moved:
		c.moved, c.stalled = moved, false
		c.stallAsking.Reset(s.now)
		c.stallWatched.Store(true)
		c.stallAt = s.now + stallInterval
	default:
		c.stalled = true
		if s.now >= c.stallAsking.Next() {
			s.ask = forStalls
			c.stallAsking.Failed(s.now)
		}
		c.stallAt = c.stallAsking.Next()
	}
	c.stallAt = max(c.stallAt, c.spare)
	s.at(c.stallAt)
}

// traffic returns a number that changes when a byte or a stream moves, and
// whether a call is blocked, and an incoming half not read.
func (c *Conn) traffic() (moved int64, blocked, unread bool) {
	blocked = c.accepting.Load() > 0
	for k := range c.kinds {
		r := &c.kinds[k]
		moved += 2*r.stats.Opened - r.stats.Open
		for st := r.streams.first; st != nil; st = st.next {
			reading := st.readers.Load() > 0
			moved += st.written.Load() + st.read.Load()
			st.mu.Lock()
			blocked = blocked || reading || st.writing == blocking
			unread = unread || !reading && st.receiveHalf == HalfOpen && st.draining.Load() == nil
			st.mu.Unlock()
		}
	}
	return moved, blocked, unread
}
