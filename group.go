package quiclife

import (
	"iter"
	"log/slog"
	"time"

	"github.com/quiclife/quiclife/internal/heap"
	"github.com/quiclife/quiclife/internal/pace"
)

// What the connections of a Guard share: the list of its members, and the
// limits of the group.

// add makes c a member of the group. c is already counted.
func (g *Guard) add(c *Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conns == nil {
		g.conns = make(map[*Conn]struct{})
	}
	g.conns[c] = struct{}{}
}

// uncount no longer counts c, which has ended, so that there is room for
// another connection.
func (g *Guard) uncount(c *Conn) {
	if c.admission != nil {
		c.admission.enter(gone)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counted--
}

// remove takes c out of the group when c and all of its streams have ended.
func (g *Guard) remove(c *Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
}

// Conns returns the connections of the group, in no particular order. These are
// the connections made by the Guard's methods and its Transports that were
// dialed, or accepted by the program, and have not ended. Connections made
// during the iteration may be left out.
//
//	for conn := range quiclife.DefaultGuard.Conns() {
//		fmt.Println(conn.RemoteAddr(), conn.Stats().Open())
//	}
func (g *Guard) Conns() iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		for _, c := range g.members() {
			if c.lifetime.Err() == nil && !yield(c) {
				return
			}
		}
	}
}

func (g *Guard) members() (conns []*Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		conns = append(conns, c)
	}
	return conns
}

// admit counts a connection that is about to be made, or returns an error if a
// limit forbids it. a is nil if this side dials.
func (g *Guard) admit(a *admission) error {
	var err *LimitError
	heap := g.heapAbove()
	g.mu.Lock()
	switch {
	case g.MaxConns > 0 && g.counted >= g.MaxConns:
		err = &LimitError{Scope: LimitConns, Open: g.counted, Limit: g.MaxConns}
	case g.MaxConns > 0 && a != nil && !a.unseen && g.handshakes >= g.maxHandshakes():
		err = &LimitError{Scope: LimitConns, Open: g.counted, Limit: g.MaxConns, Err: errUnaccepted}
	case heap > 0:
		err = &LimitError{Scope: LimitHeap, Open: heap, Limit: g.MaxHeap}
	case a != nil:
		a.countLocked(1)
	default:
		g.counted++
	}
	g.mu.Unlock()
	if err != nil {
		g.totals.refused[err.Scope].Add(1)
		g.refuse(err)
		return err
	}
	return nil
}

// countConn counts a connection that was made elsewhere.
func (g *Guard) countConn() {
	g.mu.Lock()
	g.counted++
	g.mu.Unlock()
}

// connGone undoes the count of a connection that was not made after all.
func (g *Guard) connGone() {
	g.mu.Lock()
	g.counted--
	g.mu.Unlock()
}

// admitStream returns an error if the group allows no new streams now.
func (g *Guard) admitStream() error {
	heap := g.heapAbove()
	if heap == 0 {
		return nil
	}
	err := &LimitError{Scope: LimitHeap, Open: heap, Limit: g.MaxHeap}
	g.totals.limitErrors[LimitHeap].Add(1)
	g.refuse(err)
	return err
}

// refuse logs that a limit of the group was reached. Dropped streams may be the
// cause, so it also makes the connections look for them. It may run on
// quic-go's own goroutines, so it must not block.
func (g *Guard) refuse(err *LimitError, more ...any) {
	g.mu.Lock()
	first := err.Scope != LimitConns && pace.Elapsed(&g.refused, time.Now(), shortFor)
	conns := len(g.conns)
	g.mu.Unlock()
	kind := recordKind{msg: "quiclife: limit reached", of: err.Scope.String()}
	attrs := append([]any{"scope", err.Scope.String(), "open", err.Open, "limit", err.Limit, "error", err.Error()}, more...)
	if count := g.count(slog.LevelWarn, kind, attrs); count > 0 {
		go g.write(slog.LevelWarn, kind, count, attrs)
	}
	if first && conns > 0 {
		go func() {
			for _, c := range g.members() {
				c.relieve()
			}
		}()
	}
}

// short reports whether a limit of the group was reached within shortFor.
func (g *Guard) short() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	since := time.Since(g.refused)
	return since >= 0 && since < shortFor
}

// heapAbove returns the live heap if it is above MaxHeap, else 0.
func (g *Guard) heapAbove() int64 {
	if g.MaxHeap <= 0 {
		return 0
	}
	live := liveHeap.Value()
	if live <= g.MaxHeap {
		return 0
	}
	// Some of it may be garbage by now. A program that refuses its work
	// allocates little, so the next collection may be minutes away.
	if heapTries.Take(time.Now()) {
		go func() {
			cost := collectGarbage()
			heapTries.Spent(time.Now(), cost, heap.Live() <= g.MaxHeap)
		}()
	}
	return live
}

// liveHeap is the live heap of the whole process.
var liveHeap = &heap.Gauge{Read: heap.Live}

// heapTries paces the collections for MaxHeap.
var heapTries = &pace.Tries{First: time.Second, Most: 10 * time.Second, Share: forSlots}
