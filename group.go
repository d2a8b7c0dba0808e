package quiclife

import (
	"iter"
	"log/slog"
	"time"

	"github.com/quiclife/quiclife/internal/heap"
	"github.com/quiclife/quiclife/internal/pace"
)

// What the connections of a Guard share: who belongs to the group, and its
// limits.

// add makes c, which is counted already, a member.
func (g *Guard) add(c *Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conns == nil {
		g.conns = make(map[*Conn]struct{})
	}
	g.conns[c] = struct{}{}
}

// uncount makes room for another connection in place of c, which has ended.
func (g *Guard) uncount(c *Conn) {
	if c.admission != nil {
		c.admission.enter(gone)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counted--
}

// remove takes c out, when it has ended, and all of its streams.
func (g *Guard) remove(c *Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
}

// Conns returns the connections of the group, in no order: those made by its
// methods and its Transports that have been dialed, or accepted by the program,
// and have not ended. Connections that come while it is used may be left out.
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

// admit counts a connection that is about to be made, or says why not. a is nil
// if it is this side that makes it.
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

// connGone uncounts a connection that was not made after all.
func (g *Guard) connGone() {
	g.mu.Lock()
	g.counted--
	g.mu.Unlock()
}

// admitStream says why no stream may be opened, if none may.
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

// refuse notes that a limit was reached, of which dropped streams may be the
// cause. It may be called on quic-go's own goroutines, which it must not hold up.
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

// short says whether a limit of the group was reached lately.
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
	// It may be garbage by now, which a program that is refusing its work may
	// not find out by itself for minutes.
	if heapTries.Take(time.Now()) {
		go func() {
			cost := collectGarbage()
			heapTries.Spent(time.Now(), cost, heap.Live() <= g.MaxHeap)
		}()
	}
	return live
}

// liveHeap is read for the whole process.
var liveHeap = &heap.Gauge{Read: heap.Live}

// heapTries are the collections for MaxHeap.
var heapTries = &pace.Tries{First: time.Second, Most: 10 * time.Second, Share: forSlots}
