package quiclife

import "time"

// Dropped streams with unread data can fill the connection's flow control
// window while no slot is short. The connection then stalls: no byte moves, a
// Read, a Write or an Accept is blocked, and there is a receive half that
// nobody reads. A connection at rest looks the same to us, so we end no stream
// because of a stall. We drain the receive halves of dropped streams and ask
// for collections, less and less often.

const stallInterval = time.Second

// mayStall makes us look for a stall within stallInterval. It is called when a
// call begins that may block, and when one more receive half has nobody reading
// it, since another call may already be blocked. If a look is due soon anyway,
// it costs one atomic load.
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

// lookForStallLocked notes whether the connection has stalled, as far as we can
// see, and what to do then.
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
		c.stalled, c.stallAt = false, 0 // until mayStall is called again
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

// trafficLocked returns moved, which changes when a byte is read or written or
// a stream is opened or ends. It also returns whether a call is blocked,
// whether there is a receive half that nobody reads, and whether there is one
// that we drain.
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
