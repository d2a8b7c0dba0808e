package lab

import (
	"context"
	"sync"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/rig"
)

// Conns holds the connections of a system that have not ended. The zero value is
// ready to use. All methods may be called from any goroutine.
type Conns struct {
	mu      sync.Mutex // guards the fields below
	plain   map[*quic.Conn]struct{}
	guarded map[*quiclife.Conn]struct{}
}

// Add adds a connection, which must be a *quic.Conn or a *quiclife.Conn. It is
// removed when it ends.
func (cs *Conns) Add(c interface{ Context() context.Context }) {
	cs.mu.Lock()
	if cs.plain == nil {
		cs.plain = make(map[*quic.Conn]struct{})
		cs.guarded = make(map[*quiclife.Conn]struct{})
	}
	var forget func()
	switch c := c.(type) {
	case *quic.Conn:
		cs.plain[c] = struct{}{}
		forget = func() { delete(cs.plain, c) }
	case *quiclife.Conn:
		cs.plain[c.Unwrap()] = struct{}{}
		cs.guarded[c] = struct{}{}
		forget = func() {
			delete(cs.plain, c.Unwrap())
			delete(cs.guarded, c)
		}
	}
	cs.mu.Unlock()
	context.AfterFunc(c.Context(), func() {
		cs.mu.Lock()
		defer cs.mu.Unlock()
		forget()
	})
}

// Len returns the number of connections. Each end counts as one.
func (cs *Conns) Len() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.plain)
}

// Held returns how many streams quic-go keeps on these connections.
func (cs *Conns) Held() (held int64) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.plain {
		held += int64(rig.Held(c))
	}
	return held
}

// Open returns how many streams are open on the connections of quiclife.
func (cs *Conns) Open() (open int64) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.guarded {
		open += c.Stats().Open()
	}
	return open
}
