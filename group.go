package quiclife

import (
	"context"
	"iter"
	"net"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
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
	if !g.watching {
		g.watching = true
		g.awaitCollection()
	}
}

func (g *Guard) remove(c *Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.conns[c]; ok && c.counts {
		g.counted--
	}
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
			if !yield(c) {
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

// admitConn counts a connection that is about to be made, or says why not.
func (g *Guard) admitConn() error {
	var err *LimitError
	heap, streams := g.heapAbove(), g.streams.Load()
	g.mu.Lock()
	switch {
	case g.MaxConns > 0 && g.counted >= g.MaxConns:
		err = &LimitError{Scope: ConnLimit, Open: g.counted, Limit: g.MaxConns}
	case g.MaxStreams > 0 && streams >= g.MaxStreams:
		err = &LimitError{Scope: GroupLimit, Open: streams, Limit: g.MaxStreams}
	case heap > 0:
		err = &LimitError{Scope: HeapLimit, Open: heap, Limit: g.MaxHeap}
	default:
		g.counted++
	}
	g.mu.Unlock()
	if err != nil {
		return g.refuse(err)
	}
	return nil
}

// countConn counts a connection that was made elsewhere.
func (g *Guard) countConn() {
	g.mu.Lock()
	g.counted++
	g.mu.Unlock()
}

// connGone uncounts what admitConn counted.
func (g *Guard) connGone() {
	g.mu.Lock()
	g.counted--
	g.mu.Unlock()
}

// connContext makes a ConnContext that refuses connections above the limits,
// which quic-go asks before it does any work for a handshake, and then asks
// the next, if there is one.
func (g *Guard) connContext(next func(context.Context, *quic.ClientInfo) (context.Context, error)) func(context.Context, *quic.ClientInfo) (context.Context, error) {
	return func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
		if err := g.admitConn(); err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, g.connGone) // done when the connection ends, or the handshake fails
		if next != nil {
			var err error
			if ctx, err = next(ctx, info); err != nil {
				return nil, err
			}
		}
		return withBeginning(ctx), nil
	}
}

// admitStream counts a stream that is about to be opened, or says why not.
func (g *Guard) admitStream() error {
	var err *LimitError
	streams := g.streams.Add(1)
	if g.MaxStreams > 0 && streams > g.MaxStreams {
		err = &LimitError{Scope: GroupLimit, Open: streams - 1, Limit: g.MaxStreams}
	} else if heap := g.heapAbove(); heap > 0 {
		err = &LimitError{Scope: HeapLimit, Open: heap, Limit: g.MaxHeap}
	}
	if err != nil {
		g.streams.Add(-1)
		return g.refuse(err)
	}
	return nil
}

// refuse logs a refusal, at most one a second. It may be called on quic-go's
// own goroutines, which a slow Logger must not hold up.
func (g *Guard) refuse(err *LimitError) error {
	g.mu.Lock()
	log := elapsed(&g.limitLogged, time.Second)
	g.mu.Unlock()
	if log {
		go g.logger().Warn("quiclife: limit reached", "error", err)
	}
	return err
}

// elapsed reports whether at least period has passed since *last, and then
// sets it to now.
func elapsed(last *time.Time, period time.Duration) bool {
	now := time.Now()
	// A time before the last is that of another clock, of a synctest bubble.
	if since := now.Sub(*last); since >= 0 && since < period {
		return false
	}
	*last = now
	return true
}

// heapAbove returns the live heap if it is above MaxHeap, else 0.
func (g *Guard) heapAbove() int64 {
	if g.MaxHeap <= 0 {
		return 0
	}
	live := heap.live()
	if live <= g.MaxHeap {
		return 0
	}
	// It may be garbage by now, which a program that is refusing its work may
	// not find out by itself for minutes.
	if heapCollector.take() {
		go func() {
			runtime.GC()
			if readLiveHeap() <= g.MaxHeap {
				heapCollector.foundSome()
			}
		}()
	}
	return live
}

// heap is read for the whole process.
var heap heapGauge

// A heapGauge reads the live heap, at most every 100 ms.
type heapGauge struct {
	mu    sync.Mutex // guards the fields below
	at    time.Time
	bytes int64
}

func (h *heapGauge) live() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if elapsed(&h.at, 100*time.Millisecond) {
		h.bytes = readLiveHeap()
	}
	return h.bytes
}

func readLiveHeap() int64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

type rawListener interface {
	Accept(context.Context) (*quic.Conn, error)
	Close() error
	Addr() net.Addr
}

// A listener is what Listener and EarlyListener have in common.
type listener struct {
	raw    rawListener
	guard  *Guard
	limits incomingLimits
	owned  *ownedTransport // nil if the listener is a Transport's

	// guarded by guard.mu
	accepts int           // calls of accept under way
	idle    chan struct{} // not nil if somebody waits for the last of them
	left    bool          // leave was called
}

// listening makes l a member of the group until nothing is left of it.
func (g *Guard) listening(l *listener) *listener {
	l.guard = g
	if l.owned != nil {
		l.owned.leave = l.leave
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listeners == nil {
		g.listeners = make(map[*listener]struct{})
	}
	g.listeners[l] = struct{}{}
	return l
}

func (l *listener) leave() {
	l.guard.mu.Lock()
	defer l.guard.mu.Unlock()
	if l.left = true; l.accepts == 0 {
		delete(l.guard.listeners, l)
	}
}

func (l *listener) accept(ctx context.Context) (*Conn, error) {
	l.accepting(1)
	defer l.accepting(-1)
	raw, err := l.raw.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return l.guard.wrap(raw, l.limits, l), nil
}

// accepting counts calls of accept: they may have a connection that is no
// member of the group yet.
func (l *listener) accepting(n int) {
	l.guard.mu.Lock()
	defer l.guard.mu.Unlock()
	if l.accepts += n; l.accepts > 0 {
		return
	}
	if l.idle != nil {
		close(l.idle)
		l.idle = nil
	}
	if l.left {
		delete(l.guard.listeners, l)
	}
}

// awaitAccepts waits until no call of accept is under way. It does not take
// long once the listener is closed.
func (l *listener) awaitAccepts() {
	l.guard.mu.Lock()
	if l.accepts > 0 && l.idle == nil {
		l.idle = make(chan struct{})
	}
	idle := l.idle
	l.guard.mu.Unlock()
	if idle != nil {
		<-idle
	}
}

func (l *listener) close() error {
	err := l.raw.Close()
	if l.owned != nil {
		l.owned.listenerClosed() // and leave, when its connections have ended
	} else {
		l.leave()
	}
	return err
}
