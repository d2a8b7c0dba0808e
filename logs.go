package quiclife

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Log records, and how they are thinned. A peer can cause most records, so not
// all are written. The first of a kind is written at once. After that, one is
// written in each logInterval, which says how many it stands for.

const logInterval = 10 * time.Second

// A recordKind identifies records of one kind, which are counted together.
type recordKind struct {
	msg           string
	of            string // a reason, a scope
	opener        string // who opened the stream, if known
	send, receive HalfState
}

// A thinner counts records that are held back.
type thinner struct {
	mu    sync.Mutex // guards the field below
	kinds map[recordKind]*heldBack
}

type heldBack struct {
	written time.Time
	count   int // records held back since written
	level   slog.Level
	attrs   []any // of the last record held back
}

// log writes a record, or holds it back and counts it. No lock is held while
// the Logger runs.
func (g *Guard) log(level slog.Level, kind recordKind, attrs ...any) {
	if count := g.count(level, kind, attrs); count > 0 {
		g.write(level, kind, count, attrs)
	}
}

// count returns how many records the one to be written stands for, or 0 if it
// is held back.
func (g *Guard) count(level slog.Level, kind recordKind, attrs []any) int {
	t := &g.records
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.kinds[kind]
	// A time out of range comes from another clock: that of a synctest bubble.
	if since := h.since(now); since >= 0 && since < logInterval {
		h.count++
		h.level, h.attrs = level, attrs
		return 0
	}
	count := 1
	if h != nil { // its timer belongs to a synctest bubble that has ended
		count += h.count
	}
	h = &heldBack{written: now}
	if t.kinds == nil {
		t.kinds = make(map[recordKind]*heldBack)
	}
	t.kinds[kind] = h
	time.AfterFunc(logInterval, func() { g.flush(kind, h) })
	return count
}

// since returns how long ago the last record was written, or a negative value
// if there is none.
func (h *heldBack) since(now time.Time) time.Duration {
	if h == nil {
		return -1
	}
	return now.Sub(h.written)
}

// flush writes one record for those that were held back, if there are any.
func (g *Guard) flush(kind recordKind, h *heldBack) {
	t := &g.records
	t.mu.Lock()
	if t.kinds[kind] != h {
		t.mu.Unlock()
		return
	}
	level, count, attrs := h.level, h.count, h.attrs
	if count == 0 {
		delete(t.kinds, kind)
		t.mu.Unlock()
		return
	}
	h.written, h.count, h.attrs = time.Now(), 0, nil
	t.mu.Unlock()
	time.AfterFunc(logInterval, func() { g.flush(kind, h) })
	g.write(level, kind, count, attrs)
}

// flushAll writes what is held back now, since the program may be about to end.
// Only the program can cause that, not a peer.
func (g *Guard) flushAll() {
	t := &g.records
	t.mu.Lock()
	held := t.kinds
	t.kinds = nil // the timers find that their kind is gone
	t.mu.Unlock()
	for kind, h := range held {
		if h.count > 0 {
			g.write(h.level, kind, h.count, h.attrs)
		}
	}
}

func (g *Guard) write(level slog.Level, kind recordKind, count int, attrs []any) {
	defer func() {
		// A Logger that panics must not end the process, since the peer could
		// choose the time. There is nowhere left to report the panic.
		_ = recover()
	}()
	logger := g.Logger
	if logger == nil {
		logger = slog.Default()
	}
	logger.Log(context.Background(), level, kind.msg, append(attrs[:len(attrs):len(attrs)], "count", count)...)
}

// tell logs leaks, and calls OnLeak for each.
func tell(leaks []Leak) {
	for _, leak := range leaks {
		g, info := leak.Conn.guard, leak.Stream
		g.totals.leaks[leak.Reason].Add(1)
		g.samples.leaked(time.Now())
		g.log(slog.LevelWarn, recordKind{"quiclife: stream leaked", leak.Reason.String(), info.Stack, info.Send, info.Receive},
			append([]any{"remote", leak.Conn.RemoteAddr().String(), "reason", leak.Reason.String()}, info.attrs()...)...)
		if g.OnLeak != nil {
			g.callOnLeak(leak)
		}
	}
}

func (g *Guard) callOnLeak(leak Leak) {
	defer func() {
		if v := recover(); v != nil {
			g.log(slog.LevelError, recordKind{msg: "quiclife: OnLeak panicked"}, "panic", fmt.Sprint(v))
		}
	}()
	g.OnLeak(leak)
}
