package quiclife

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/quiclife/quiclife/internal/peek"
)

// What the packages leaktest and debugpage ask, see internal/peek. A program that
// does not use them pays for a nil check when a stream is reported, and when one
// ends with its connection or is ended twice, and for an atomic load in Accept.

func init() {
	peek.Leaks = func(guard any) []peek.Leak { return guard.(*Guard).watch().leaks(guard.(*Guard)) }
	peek.KeepLeaks = func(guard any) { guard.(*Guard).recent.CompareAndSwap(nil, new(recentLeaks)) }
	peek.RecentLeaks = func(guard any) []peek.RecentLeak { return guard.(*Guard).recent.Load().list() }
	peek.TakeUnaccepted = func(conn any) []any { return conn.(*Conn).takeUnaccepted() }
}

// recentLeaks has the latest leaks of a group.
type recentLeaks struct {
	mu    sync.Mutex // guards leaks; it comes after every other
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

// A leakWatch remembers the leaks of a group.
type leakWatch struct {
	mu       sync.Mutex // guards the fields below; it comes after every other
	reported []Leak
	unended  []*unended
	owing    []*streamState // when their connection ended
}

// An unended is a stream that was open when its connection ended, or when
// Shutdown cut it. That is a leak only if the program does not end it after all:
// a handler that is still running may.
type unended struct {
	st    *streamState
	info  StreamInfo        // right before
	bound []context.Context // which would have ended it, too; does not change

	// streamState.mu guards these.
	told          bool // a call has returned that the connection has ended, or Shutdown has cut the stream
	send, receive bool // the program has not ended these halves
}

// watch returns what remembers the leaks of g from now on.
func (g *Guard) watch() *leakWatch {
	g.watched.CompareAndSwap(nil, new(leakWatch))
	return g.watched.Load()
}

func (w *leakWatch) report(l Leak) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reported = append(w.reported, l)
}

// claimUnendedLocked is claimLocked for a stream that the program has not ended
// before its connection ended, or Shutdown cut it.
func (st *streamState) claimUnendedLocked(send, receive bool) (gotSend, gotReceive bool) {
	c := st.conn
	w := c.guard.watched.Load()
	if w == nil || c.lifetime.Err() == nil && c.draining.Err() == nil { // in the latter case 0-RTT was rejected
		return st.claimLocked(send, receive)
	}
	x, info := st.extraLocked(), st.infoLocked((*stack).String)
	var before unended
	if x.unended != nil { // the program knows, or Shutdown has left a half to the connection's end
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

// mayEndByItself says whether the receive half would end without the program
// if the peer's FIN, which may be under way, is all that is to come.
func (st *streamState) mayEndByItself() bool {
	read, size := st.read.Load(), st.finalSize.Load()
	return read > 0 && (size == sizeUnknown || size == read)
}

// toldOfEnd notes that a call has told the program that there is nothing left to
// end. It need not end the stream then.
func (x *extra) toldOfEnd() {
	if x.unended == nil {
		x.unended = &unended{}
	}
	x.unended.told = true
}

// ended notes that the program ends halves, if it had not before its connection ended.
func (x *extra) ended(send, receive bool) {
	if x != nil && x.unended != nil {
		x.unended.send = x.unended.send && !send
		x.unended.receive = x.unended.receive && !receive
	}
}

// leak says whether the program has let the stream be.
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

// gone says whether the program has dropped the stream, as the collections
// since the first call have found.
func (st *streamState) gone() bool {
	st.conn.mu.Lock()
	defer st.conn.mu.Unlock()
	st.conn.weakenLocked() // all, or the young ones of its kind would not be the newest
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

// watchOwingLocked remembers the streams whose credit was not returned, now that
// the connection has ended. conn.mu is held.
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

// accepts notes that somebody accepts streams of a kind.
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
		cancel() // quic-go returns what is queued, and does not wait
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
