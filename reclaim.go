package quiclife

import (
	"time"
	"weak"

	"github.com/quic-go/quic-go"
)

// Dropped streams: how they are found, reported, and ended once they block
// somebody.
//
// A dropped bidirectional stream always blocks somebody: nobody can finish its
// exchange. A dropped unidirectional stream may be a control stream, which is
// written or read once and has to stay open. It is left alone until slots of
// its kind are short (shortage.go), or its unread data fills the connection's
// window (stall.go).

// isDropped reports whether the stream was found dropped.
func (st *streamState) isDropped() bool { return st.dropped.Load() }

// A weak pointer is the largest single cost of a stream, and most streams end
// before the next garbage collection. So a young stream holds its handle with a
// normal pointer. It is weakened when it has lived through a collection, or
// just before one that we ask for. From then on only the program keeps the
// handle alive.

// weaken weakens the young streams.
func (c *Conn) weaken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.weakenLocked()
}

func (c *Conn) weakenLocked() {
	for k := range c.kinds { // young streams are the newest
		for st := c.kinds[k].streams.last; st != nil && st.young != nil; st = st.prev {
			st.weakenLocked()
		}
	}
	for st := c.owing.first; st != nil; st = st.next {
		if st.young != nil {
			st.weakenLocked()
		}
	}
}

func (st *streamState) weakenLocked() { st.old, st.young = weak.Make(st.young), nil }

// lostHandleLocked reports whether the stream's handle has gone since the last
// look.
func (st *streamState) lostHandleLocked() bool {
	return st.young == nil && !st.isDropped() && st.old.Value() == nil
}

// look finds the streams whose handle has gone since the last look, and sweeps.
// It returns the leaks, which the caller must pass to tell.
func (c *Conn) look() []Leak {
	now := c.now()
	found := 0
	c.mu.Lock()
	for k := range c.kinds {
		r := &c.kinds[k]
		for st := r.streams.first; st != nil; st = st.next {
			if st.lostHandleLocked() {
				st.mu.Lock()
				st.extraLocked().droppedAt = now
				st.mu.Unlock()
				st.dropped.Store(true)
				r.dropped++
				found++
			}
		}
	}
	uncredited := c.droppedOwingLocked()
	found += len(uncredited)
	if found > 0 {
		c.asking.Reset(now)
	} else if c.asked {
		c.asking.Failed(now)
	}
	c.asked = false
	c.drainedLocked()
	c.weakenLocked()
	c.mu.Unlock()

	var leaks []Leak
	for _, st := range uncredited {
		leaks = st.leak(leaks, LeakUncredited)
		if !c.guard.ReportOnly {
			st.returnCredit()
		}
	}
	return append(leaks, c.sweepStreams(true)...)
}

// droppedOwingLocked returns the streams that have ended and were then dropped
// before their credit was returned.
func (c *Conn) droppedOwingLocked() (dropped []*streamState) {
	for st := c.owing.first; st != nil && !c.ended; st = st.next {
		if st.lostHandleLocked() {
			st.dropped.Store(true)
			dropped = append(dropped, st)
		}
	}
	return dropped
}

// droppedLocked notes what to do with a dropped stream. conn.mu and st.mu are
// held.
func (s *sweep) droppedLocked(st *streamState, r *registry) {
	if st.kind.uni() && !s.inTheWayLocked(st, r) {
		return
	}
	due := after(st.extra.droppedAt, s.grace[st.kind])
	unsent := st.sendHalf == HalfOpen && st.written.Load() > 0
	size := st.finalSize.Load()
	allRead := size == sizeUnknown || size == st.read.Load() // if equal, consumeEOF is at work
	unended := st.sendHalf != HalfOpen && st.receiveHalf == HalfOpen && allRead
	waits := due > s.now && (unsent || unended)
	switch {
	case s.conn.guard.NoStopSending && st.draining.Load(): // nothing more can be ended here
		return
	case waits && unended:
		// The program has nothing more to do: it has sent everything, and may
		// have read everything that will come. It is a leak only if the peer's
		// FIN does not come.
	case waits:
		// What was written gets some time to arrive. We send no FIN, because
		// the program did not say that this was all.
		if !st.reported {
			s.reports = append(s.reports, st)
		}
	default:
		s.ends = append(s.ends, ending{st, LeakDropped})
	}
	if waits {
		s.at(due)
	}
	s.coming[st.kind] = s.coming[st.kind] || !s.conn.guard.ReportOnly
}

// leak adds a leak to leaks, unless st was reported before or has ended in the
// meantime. If the reason is LeakUncredited, st has always ended.
func (st *streamState) leak(leaks []Leak, reason LeakReason) []Leak {
	st.mu.Lock()
	open := st.sendHalf == HalfOpen || st.receiveHalf == HalfOpen
	leaked := !st.reported && (open || reason == LeakUncredited)
	st.reported = st.reported || leaked
	st.mu.Unlock()
	if !leaked {
		return leaks
	}
	l := Leak{Conn: st.conn, Stream: st.info(), Reason: reason}
	if w := st.conn.guard.watched.Load(); w != nil {
		w.report(l)
	}
	if r := st.conn.guard.recent.Load(); r != nil {
		r.add(l)
	}
	return append(leaks, l)
}

// reclaim ends the open halves of st, and counts it as reclaimed. It may be
// called again before it has returned.
func (st *streamState) reclaim(code StreamErrorCode) {
	st.mu.Lock()
	st.reclaimed = st.reclaimed || st.sendHalf == HalfOpen || st.receiveHalf == HalfOpen
	drain := st.conn.guard.NoStopSending && st.receiveHalf == HalfOpen
	send := false
	if drain {
		send, _ = st.claimLocked(true, false)
	}
	st.mu.Unlock()
	if !drain {
		st.release(code)
		return
	}
	if send {
		st.abortSend(code, true)
		st.settle(HalfAborted, HalfAbsent)
	}
	st.returnCredit()
	st.startDraining(code)
}

// Draining. If we must not send STOP_SENDING for a receive half, we read its
// data and discard it. That returns flow control credit to the peer, and the
// half ends with the peer's FIN or reset. We drain once a second, and less and
// less often while nothing arrives. We also drain when the final size of a half
// becomes known, and when the connection has stalled.

const (
	drainInterval    = time.Second
	maxDrainInterval = 30 * time.Second
)

// startDraining makes us drain the receive half. Reads by the program fail from
// now on, as after CancelRead.
func (st *streamState) startDraining(code StreamErrorCode) {
	st.mu.Lock()
	st.drainLocked(code)
	st.mu.Unlock()
	st.conn.drainSoon()
}

func (st *streamState) drainLocked(code StreamErrorCode) {
	st.extraLocked().drainErr = &quic.StreamError{StreamID: st.id(), ErrorCode: code}
	st.draining.Store(true)
}

// drained returns the error of Reads while the stream is being drained, else
// nil.
func (st *streamState) drained() error {
	if !st.draining.Load() {
		return nil
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.extra.drainErr
}

// drainSoon makes us drain now, and again a second later.
func (c *Conn) drainSoon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	c.drainPace.Reset(now)
	c.drainAt = 0
	c.wakeLocked(now)
}

// discard drains streams. It takes a millisecond for each, so it must not hold
// up the look at other connections. One call runs at a time.
func (c *Conn) discard(sts []*streamState) {
	buf := make([]byte, 16<<10)
	found := false
	for _, st := range sts {
		found = st.drain(buf) || found
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if found {
		c.drainPace.Reset(now)
	} else {
		c.drainPace.Failed(now)
	}
	c.discarding = false
	c.drainAt = max(now+drainInterval, c.drainPace.Next())
	c.wakeLocked(c.drainAt)
}

// drain reads the data that has arrived, and reports whether there was any, or
// an end. The deadline is a little in the future, because a deadline in the
// past would hide the data.
func (st *streamState) drain(buf []byte) (found bool) {
	const longest = 20 * time.Millisecond // in case the peer sends all the time
	for start := time.Now(); time.Since(start) < longest; {
		st.receive().SetReadDeadline(time.Now().Add(time.Millisecond))
		n, err := st.receive().Read(buf)
		found = found || n > 0
		if err != nil {
			st.readFailed(n, err)
			return found || !isDeadline(err)
		}
	}
	return found
}
