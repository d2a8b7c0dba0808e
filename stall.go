package quiclife

import "time"

// Dropped streams with unread data can fill the connection's window while no
// slot is short. Then nothing moves on the connection, a Read, a Write or an
// Accept is blocked, and there is an incoming half that nobody reads. A
// connection at rest looks the same from outside, so a stall ends nothing: it
// has dropped halves drained, and asks for a collection, ever more rarely.

const stallInterval = time.Second

// mayStall has the streams looked at soon. It is called when a call begins that
// may block, and when there is a half more that nobody reads: what is blocked
// may have been so for long. It costs an atomic load while a look is due soon
// anyway.
func (c *Conn) mayStall() {
	if c.stallWatched.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mayStallLocked()
}

func (c *Conn) mayStallLocked() {
	if c.stallWatched.Swap(true) {
		return
	}
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
	moved, blocked, unread, drained := c.trafficLocked()
	switch {
	case !blocked || !unread && !drained:
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
			if unread {
				s.ask = forStalls
			}
			c.drainAt = 0
			c.stallAsking.Failed(s.now)
		}
		c.stallAt = c.stallAsking.Next()
	}
	c.stallAt = max(c.stallAt, c.spare)
	s.at(c.stallAt)
}

// trafficLocked returns a number that changes when a byte or a stream moves, and
// whether a call is blocked, an incoming half not read, and one drained.
func (c *Conn) trafficLocked() (moved int64, blocked, unread, drained bool) {
	blocked = c.accepting.Load() > 0
	for k := range c.kinds {
		r := &c.kinds[k]
		moved += 2*r.stats.Opened - r.stats.Open
		for st := r.streams.first; st != nil; st = st.next {
			reading := st.readers.Load() > 0
			moved += st.written.Load() + st.read.Load()
			st.mu.Lock()
			blocked = blocked || reading || st.writing == blocking
			if st.receiveHalf == HalfOpen && !reading {
				draining := st.draining.Load()
				unread, drained = unread || !draining, drained || draining
			}
			st.mu.Unlock()
		}
	}
	return moved, blocked, unread, drained
}
