package quiclife

import (
	"time"
	"weak"

	"github.com/quic-go/quic-go"
)

// Streams that the program forgot: found, reported, and ended once they stand
// in somebody's way.
//
// A dropped bidirectional stream always does: nobody can finish its exchange.
// A dropped unidirectional one may be a control stream, which is written or
// read once and has to stay open. It is left alone until streams of its kind
// are short (shortage.go), or its unread data fills the connection's window
// (stall.go).

// isDropped says whether the program no longer holds the stream.
func (st *streamState) isDropped() bool { return st.dropped.Load() }

// A weak pointer is the largest single cost of a stream, and most streams end
// before the next garbage collection. So a young stream holds its handle. Once
// it has lived through a collection, or before one that is asked for, it is
// weakened: from then on its handle goes when the program drops it.

// weaken weakens the young streams.
func (c *Conn) weaken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.weakenLocked()
}

func (c *Conn) weakenLocked() {
	for k := range c.kinds { // the young ones are the newest
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

// lostHandleLocked says whether the program has dropped the stream since the
// last look.
func (st *streamState) lostHandleLocked() bool {
	return st.young == nil && !st.isDropped() && st.old.Value() == nil
}

// look finds the streams that have lost their handle since the last time, and
// ends what may be ended. It returns the leaks, for the caller to tell.
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
// without their credit being returned.
func (c *Conn) droppedOwingLocked() (dropped []*streamState) {
	for st := c.owing.first; st != nil && !c.ended; st = st.next {
		if st.lostHandleLocked() {
			st.dropped.Store(true)
			dropped = append(dropped, st)
		}
	}
	return dropped
}

// droppedLocked plans what becomes of a dropped stream. conn.mu and st.mu are
// held.
func (s *sweep) droppedLocked(st *streamState, r *registry) {
	if st.kind.uni() && !s.inTheWayLocked(st, r) {
		return
	}
	due := after(st.extra.droppedAt, s.grace[st.kind])
	unsent := st.sendHalf == HalfOpen && st.written.Load() > 0
	size := st.finalSize.Load()
	allRead := size == sizeUnknown || size == st.read.Load() // in the latter case consumeEOF is at it
	unended := st.sendHalf != HalfOpen && st.receiveHalf == HalfOpen && allRead
	waits := due > s.now && (unsent || unended)
	switch {
	case s.conn.guard.NoStopSending && st.draining.Load(): // ended as far as it can be
		return
	case waits && unended:
		// Nothing more to do for the program: it has sent all, and may have
		// read all that will come. Only if the end does not come is it a leak.
	case waits:
		// What was written is left some time to arrive. Not for the FIN: the
		// program did not say that this was all.
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

// leak adds a leak to leaks, if st is one and was not reported before.
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

// reclaim ends what is open of st, and counts it as reclaimed. It may be called
// again while it is at it.
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

// Draining. The receive half of a stream that must not be cancelled is read
// for the program, and what is there discarded. That returns the window that
// it took, and ends the half with the peer's FIN or reset. It is done once a
// second, ever more rarely while nothing comes, and again when a half's end is
// there or the connection has stalled.

const (
	drainInterval    = time.Second
	maxDrainInterval = 30 * time.Second
)

// startDraining has Reads fail from now on, as if the half had been cancelled.
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

// drained is what Reads fail with while the stream is drained, else nil.
func (st *streamState) drained() error {
	if !st.draining.Load() {
		return nil
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.extra.drainErr
}

// drainSoon has streams drained as if something had come for them.
func (c *Conn) drainSoon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	c.drainPace.Reset(now)
	c.drainAt = 0
	c.wakeLocked(now)
}

// discard drains streams. It takes a millisecond for each, so it must not hold
// up others, and one is under way at a time.
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

// drain reads what there is, and reports whether there was anything. A
// deadline that has passed would hide it, so it is set a little ahead.
func (st *streamState) drain(buf []byte) (found bool) {
	const longest = 20 * time.Millisecond // should the peer send all the time
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
