package quiclife

import (
	"runtime"
	"sync"
	"time"
)

// Streams that the program forgot: found, reported and ended.
//
// Dropped streams are told by the garbage collector: their handle, of which
// we hold a weak pointer alone, is gone. A sentinel object that dies in each
// collection has us look; while a connection lives, there is one per Guard.

// awaitCollection has afterCollection called after the next garbage
// collection. g.mu is held.
func (g *Guard) awaitCollection() {
	type sentinel struct{ _ *Guard } // has a pointer, or it might share its memory with others
	runtime.AddCleanup(new(sentinel), func(g *Guard) { go g.afterCollection() }, g)
}

func (g *Guard) afterCollection() {
	g.mu.Lock()
	conns := make([]*Conn, 0, len(g.conns))
	for c := range g.conns {
		if !c.inBubble { // those look for themselves, see refresh
			conns = append(conns, c)
		}
	}
	if g.watching = len(g.conns) > 0; g.watching {
		g.awaitCollection()
	}
	g.mu.Unlock()
	for _, c := range conns {
		c.reclaimDropped()
	}
}

// reclaimDropped deals with the streams that have lost their handle since the
// last time.
func (c *Conn) reclaimDropped() {
	dropped := c.collect(func(st *streamState) bool {
		if st.dropped || st.handle.Value() != nil {
			return false
		}
		st.dropped = true
		return true
	})
	for _, st := range dropped {
		st.reclaimDropped()
	}
	uncredited := c.droppedOwing()
	for _, st := range uncredited {
		st.leaked(Uncredited)
		if c.guard.abandonGrace() > 0 {
			st.returnCredit()
		}
	}
	if len(dropped)+len(uncredited) > 0 {
		collector.foundSome()
	}
}

// droppedOwing returns the streams that have ended and were then dropped
// without their credit being returned.
func (c *Conn) droppedOwing() (dropped []*streamState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for st := c.owing.first; st != nil && !c.ended; st = st.next {
		if !st.dropped && st.handle.Value() == nil {
			st.dropped = true
			dropped = append(dropped, st)
		}
	}
	return dropped
}

func (st *streamState) reclaimDropped() {
	grace := st.conn.guard.abandonGrace()
	st.mu.Lock()
	unsent := st.sendHalf == HalfOpen && st.written.Load() > 0
	size := st.finalSize.Load()
	ending := size == sizeUnknown || size == st.read.Load() // in the latter case consumeEOF is at it
	unended := st.sendHalf != HalfOpen && st.receiveHalf == HalfOpen && ending
	st.mu.Unlock()
	reclaim := func() {
		if grace > 0 {
			st.reclaim(st.conn.guard.Codes.Abandoned)
		}
	}
	switch {
	case unended && grace > 0:
		// Nothing more to do for the program: it has sent all, and may have
		// read all that will come. Only if the end does not come it is a leak.
		time.AfterFunc(grace, func() {
			if st.report(Dropped) {
				reclaim()
			}
		})
	case unsent:
		// What was written is left some time to arrive. Not for the FIN: the
		// program did not say that this was all.
		if st.report(Dropped) {
			time.AfterFunc(max(grace, 0), reclaim)
		}
	default:
		if st.report(Dropped) {
			reclaim()
		}
	}
}

// report tells of a leak, unless the stream has ended.
func (st *streamState) report(reason LeakReason) bool {
	st.mu.Lock()
	leaked := st.sendHalf == HalfOpen || st.receiveHalf == HalfOpen
	st.mu.Unlock()
	if leaked {
		st.leaked(reason)
	}
	return leaked
}

// leaked tells of a leak, once.
func (st *streamState) leaked(reason LeakReason) {
	st.mu.Lock()
	reported := st.reported
	st.reported = true
	st.mu.Unlock()
	if reported {
		return
	}
	info := st.info()
	g := st.conn.guard
	g.logger().Warn("quiclife: stream leaked",
		"remote", st.conn.RemoteAddr(), "reason", string(reason), "stream", info, "opener", info.Stack)
	if g.OnLeak != nil {
		g.OnLeak(Leak{Conn: st.conn, Stream: info, Reason: reason})
	}
}

// reclaim ends what is open of st, and counts it as reclaimed.
func (st *streamState) reclaim(code StreamErrorCode) {
	st.mu.Lock()
	st.reclaimed = st.sendHalf == HalfOpen || st.receiveHalf == HalfOpen
	st.mu.Unlock()
	st.release(code)
}

// Timeouts. One timer per connection, pending only while some stream has a
// timeout, looks at all of them.

// A watch is a timeout that starts anew when a count is seen to have changed.
// streamState.mu guards it.
type watch struct {
	due  time.Duration // 0: not started
	mark int64
}

func (w *watch) start(now, timeout time.Duration, count int64) { w.due, w.mark = now+timeout, count }

// passed also moves next to when to look again: soon enough to see a change
// at most a quarter of timeout late.
func (w *watch) passed(now, timeout time.Duration, count int64, next *time.Duration) bool {
	if count != w.mark {
		w.start(now, timeout, count)
	}
	if w.due <= now {
		return true
	}
	if at := min(w.due, now+timeout/4); *next == 0 || at < *next {
		*next = at
	}
	return false
}

// awaitReader starts the time that the receive half has left, now that the
// send half has ended.
func (st *streamState) awaitReader() {
	if timeout := st.conn.guard.halfCloseTimeout(); timeout > 0 {
		st.startWatch(&st.unread, timeout, st.reads.Load())
	}
}

// awaitBytes starts the time that the stream may stay idle.
func (st *streamState) awaitBytes() {
	if timeout := st.conn.guard.IdleTimeout; timeout > 0 {
		st.startWatch(&st.idle, timeout, 0)
	}
}

func (st *streamState) startWatch(w *watch, timeout time.Duration, count int64) {
	c := st.conn
	st.mu.Lock()
	w.start(c.now(), timeout, count)
	st.mu.Unlock()

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	if c.sweep == nil {
		c.sweep = time.AfterFunc(timeout/4, c.sweepStreams)
		c.sweepAt = c.now() + timeout/4
	} else if at := c.now() + timeout/4; at < c.sweepAt { // the other, longer timeout is pending
		c.sweep.Reset(timeout / 4)
		c.sweepAt = at
	}
}

// sweepStreams ends what has timed out.
func (c *Conn) sweepStreams() {
	now := c.now()
	var next time.Duration // 0: nobody waits
	var idle, unread []*streamState
	c.mu.Lock()
	c.collectLocked(func(st *streamState) bool {
		st.mu.Lock()
		defer st.mu.Unlock()
		moved, reads := st.read.Load()+st.written.Load(), st.reads.Load()
		if st.idle.due > 0 && st.idle.passed(now, c.guard.IdleTimeout, moved, &next) {
			idle = append(idle, st)
		}
		if st.unread.due > 0 && st.receiveHalf == HalfOpen {
			if st.readers.Load() > 0 { // as good as reading
				st.unread.start(now, c.guard.halfCloseTimeout(), reads)
			}
			if st.unread.passed(now, c.guard.halfCloseTimeout(), reads, &next) {
				unread = append(unread, st)
			}
		}
		return false
	})
	switch {
	case c.ended:
	case next > 0:
		c.sweep.Reset(next - now)
		c.sweepAt = next
	default:
		c.sweep = nil
	}
	c.mu.Unlock()
	for _, st := range idle {
		if st.report(Idle) {
			st.reclaim(c.guard.Codes.Idle)
		}
	}
	for _, st := range unread {
		if st.report(HalfClosed) {
			st.reclaim(c.guard.Codes.HalfClosed)
		}
	}
}

// Collections at the limit. Streams that were dropped hold slots until the
// garbage collector finds them, which in a program that waits for a slot may
// be long. So then a collection is asked for.

// collector limits this to one a second in the process, and to fewer when
// there is nothing to find; heapCollector does the same for those above MaxHeap.
var collector, heapCollector collectorState

type collectorState struct {
	mu       sync.Mutex // guards the fields below
	last     time.Time
	interval time.Duration // until the next, 0 means minCollectInterval
}

const (
	minCollectInterval = time.Second
	maxCollectInterval = 10 * time.Second
)

// take reports whether a collection may be asked for now.
func (cs *collectorState) take() bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	interval := max(cs.interval, minCollectInterval)
	if !elapsed(&cs.last, interval) {
		return false
	}
	cs.interval = min(2*interval, maxCollectInterval)
	return true
}

// foundSome makes the next collection worthwhile.
func (cs *collectorState) foundSome() {
	cs.mu.Lock()
	cs.interval = 0
	cs.mu.Unlock()
}

// collectAtLimit asks for a collection, now and every second while slots are
// short. It does not wait for it.
func (c *Conn) collectAtLimit() {
	c.mu.Lock()
	asked := c.retry != nil
	if !asked && !c.ended {
		c.retry = time.AfterFunc(minCollectInterval, c.collectAgain)
	}
	c.mu.Unlock()
	if !asked {
		c.requestCollection()
	}
}

func (c *Conn) collectAgain() {
	c.mu.Lock()
	short := false // somebody waits for a stream to end
	var stuck []kind
	for k := range c.kinds {
		r := &c.kinds[k]
		short = short || r.blocked > 0 || kind(k).incoming() && r.full()
		was := r.stuck
		waitedAt := int64(0)
		if r.blocked > 0 {
			waitedAt = r.stats.Opened + 1
		}
		r.stuck = r.blocked > 0 && r.waitedAt == waitedAt
		r.waitedAt = waitedAt
		if r.stuck && !was {
			stuck = append(stuck, kind(k))
		}
	}
	short = (short || c.drained != nil) && !c.ended
	if short {
		c.retry.Reset(minCollectInterval)
	} else {
		c.retry = nil
	}
	c.mu.Unlock()
	if !short {
		return
	}
	c.requestCollection()
	for _, k := range stuck {
		c.logStuck(k)
	}
}

// requestCollection has the garbage collector run if there are streams that
// are idle, and so may have been dropped.
func (c *Conn) requestCollection() {
	idle := c.collect(func(st *streamState) bool { return !st.dropped && st.readers.Load() == 0 })
	if len(idle) > 0 && collector.take() {
		go func() {
			runtime.GC()
			c.reclaimDropped()
		}()
	}
}
