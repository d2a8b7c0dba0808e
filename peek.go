package quiclife

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/quiclife/quiclife/internal/peek"
)

// What packages leaktest and debugpage need to know, see internal/peek. A
// program that does not use them pays for little: a nil check when a leak is
// reported, when a stream ends with its connection, and when a half is ended
// twice, and an atomic load in AcceptStream.

func init() {
	peek.Leaks = func(guard any) []peek.Leak { return guard.(*Guard).watch().leaks(guard.(*Guard)) }
	peek.KeepLeaks = func(guard any) { guard.(*Guard).recent.CompareAndSwap(nil, new(recentLeaks)) }
	peek.RecentLeaks = func(guard any) []peek.RecentLeak { return guard.(*Guard).recent.Load().list() }
	peek.TakeUnaccepted = func(conn any) []any { return conn.(*Conn).takeUnaccepted() }
}

// recentLeaks holds the latest leaks of a group.
type recentLeaks struct {
	mu    sync.Mutex // guards leaks; locked after every other mutex
	leaks []peek.RecentLeak
}

const mostRecentLeaks = 100

func (r *recentLeaks) add(l Leak) {
	leak := peek.RecentLeak{At: time.Now(), Remote: l.Conn.RemoteAddr().String(), Stream: l.Stream, Reason: l.Reason.String()}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.leaks) == mostRecentLeaks {
		r.leaks = slices.Delete(r.leaks, 0, 1)
	}
	r.leaks = append(r.leaks, leak)
}

func (r *recentLeaks) list() []peek.RecentLeak {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.leaks)
}

// A leakWatch records the leaks of a group.
type leakWatch struct {
	mu       sync.Mutex // guards the fields below; locked after every other mutex
	reported []Leak
	unended  []*unended
	owing    []*streamState // streams whose credit was not returned when their connection ended
}

// An unended is a stream that was open when its connection ended, or when
// Shutdown cut it. It is a leak only if the program does not end it later: a
// handler that is still running may do so.
type unended struct {
	st    *streamState
	info  StreamInfo        // just before the connection ended or the cut
	bound []context.Context // the contexts that it was bound to; does not change

	// streamState.mu guards the fields below.
	told          bool // a call has told the program of the connection's end or the cut
	send, receive bool // the program has not ended these halves
}

// watch starts recording the leaks of g, if that was not done before.
func (g *Guard) watch() *leakWatch {
	g.watched.CompareAndSwap(nil, new(leakWatch))
	return g.watched.Load()
}

func (w *leakWatch) report(l Leak) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reported = append(w.reported, l)
}

// claimUnendedLocked is claimLocked for a stream that the program had not ended
// when its connection ended or Shutdown cut it. It records the stream for
// leaktest.
func (st *streamState) claimUnendedLocked(send, receive bool) (gotSend, gotReceive bool) {
	c := st.conn
	w := c.guard.watched.Load()
	if w == nil || c.lifetime.Err() == nil && c.draining.Err() == nil { // in the latter case 0-RTT was rejected
		return st.claimLocked(send, receive)
	}
	x, info := st.extraLocked(), st.infoLocked((*stack).String)
	var before unended
	if x.unended != nil { // toldOfEnd was called, or Shutdown has left a half to the connection's end
		before = *x.unended
	}
	gotSend, gotReceive = st.claimLocked(send, receive)
	if x.unended == nil {
		if !gotSend && (!gotReceive || st.mayEndByItself()) {
			return gotSend, gotReceive
		}
		x.unended = &unended{st: st, info: info}
		for _, b := range x.bindings {
			x.unended.bound = append(x.unended.bound, b.ctx)
		}
		w.mu.Lock()
		w.unended = append(w.unended, x.unended)
		w.mu.Unlock()
	}
	x.unended.send, x.unended.receive = before.send || gotSend, before.receive || gotReceive
	return gotSend, gotReceive
}

// mayEndByItself reports whether the receive half would have ended without the
// program if only the peer's FIN was still to come.
func (st *streamState) mayEndByItself() bool {
	read, size := st.read.Load(), st.finalSize.Load()
	return read > 0 && (size == sizeUnknown || size == read)
}

// toldOfEnd notes that a call has told the program that there is nothing left
// to end. Then the program need not end the stream.
func (x *extra) toldOfEnd() {
	if x.unended == nil {
		x.unended = &unended{}
	}
	x.unended.told = true
}

// ended notes that the program has ended halves after the end of the
// connection.
func (x *extra) ended(send, receive bool) {
	if x != nil && x.unended != nil {
		x.unended.send = x.unended.send && !send
		x.unended.receive = x.unended.receive && !receive
	}
}

// leak returns the leak if the program has still not ended the stream.
func (u *unended) leak() (l peek.Leak, leaked bool) {
	st := u.st
	gone := st.gone()
	canceled := slices.ContainsFunc(u.bound, func(ctx context.Context) bool { return ctx.Err() != nil })
	st.mu.Lock()
	defer st.mu.Unlock()
	if u.told || st.given || canceled || !u.send && !u.receive {
		return l, false
	}
	info := u.info
	if info.Send == HalfOpen && !u.send {
		info.Send = HalfAborted
	}
	if info.Receive == HalfOpen && !u.receive {
		info.Receive = HalfAborted
	}
	return peek.Leak{Conn: st.conn, Stream: info, Why: peek.CutOff, Final: gone && u.bound == nil}, true
}

// gone reports whether a garbage collection since the first call has found that
// the program has dropped the stream.
func (st *streamState) gone() bool {
	st.conn.mu.Lock()
	defer st.conn.mu.Unlock()
	st.conn.weakenLocked() // all streams, since weakenLocked relies on the young ones being the newest
	if st.young != nil {
		st.weakenLocked()
	}
	return st.old.Value() == nil
}

func (w *leakWatch) leaks(g *Guard) (leaks []peek.Leak) {
	var owing []*streamState
	for _, c := range g.members() {
		c.endIfClosed()
		c.mu.Lock()
		for st := c.owing.first; st != nil && !c.ended; st = st.next {
			owing = append(owing, st)
		}
		c.mu.Unlock()
	}
	w.mu.Lock()
	reported, unended := slices.Clone(w.reported), slices.Clone(w.unended)
	owing = append(owing, w.owing...)
	w.mu.Unlock()

	for _, l := range reported {
		leaks = append(leaks, peek.Leak{Conn: l.Conn, Stream: l.Stream, Why: peek.Why(l.Reason), Final: true})
	}
	for _, u := range unended {
		if l, leaked := u.leak(); leaked {
			leaks = append(leaks, l)
		}
	}
	for _, st := range owing {
		if !st.creditReturned() {
			leaks = append(leaks, peek.Leak{Conn: st.conn, Stream: st.info(), Why: peek.Uncredited})
		}
	}
	return leaks
}

func (st *streamState) creditReturned() bool {
	st.conn.mu.Lock()
	defer st.conn.mu.Unlock()
	return st.credited
}

// watchOwingLocked records the streams whose credit was not returned when the
// connection ended.
func (c *Conn) watchOwingLocked() {
	w := c.guard.watched.Load()
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for st := c.owing.first; st != nil; st = st.next {
		w.owing = append(w.owing, st)
	}
}

// accepts notes that the program, or a refusal, accepts streams of a kind.
func (c *Conn) accepts(k kind) {
	if !c.accepted[k].Load() {
		c.accepted[k].Store(true)
	}
}

func (c *Conn) takeUnaccepted() (infos []any) {
	if c.unwrapped.Load() || c.lifetime.Err() != nil {
		return nil
	}
	take := func(k kind, next func(context.Context) (receiver, error)) {
		now, cancel := context.WithCancel(context.Background())
		cancel() // quic-go then returns what is queued, and does not wait
		for !c.accepted[k].Load() {
			raw, err := next(now)
			if err != nil {
				return
			}
			info := StreamInfo{ID: raw.StreamID(), Incoming: true, Unidirectional: k.uni(), Receive: HalfOpen}
			if !k.uni() {
				info.Send = HalfOpen
			}
			infos = append(infos, info)
			refuse(raw, c.guard.Codes.Refused)
		}
	}
	take(incoming, func(ctx context.Context) (receiver, error) { return c.raw.AcceptStream(ctx) })
	take(incomingUni, func(ctx context.Context) (receiver, error) { return c.raw.AcceptUniStream(ctx) })
	return infos
}
