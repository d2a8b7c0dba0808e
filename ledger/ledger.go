package ledger

import (
	"context"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"
)

// keptEnded is how many connections that have ended a Ledger keeps.
const keptEnded = 64

// Options configure a [Ledger]. The zero value traces all connections.
type Options struct {
	// Sample n traces one connection in n. Tracing has a cost, and cannot begin
	// later. 0 and 1 trace all, a negative number none.
	Sample int

	// OnStarved, if not nil, is called when the peer sends STREAMS_BLOCKED: it
	// needs to open a stream, and has no slot. The call has a goroutine of its
	// own, and holds up nothing; it may use the Ledger, and close the connection.
	// Calls for one connection come one after the other. However many
	// STREAMS_BLOCKED come during a call, one more call follows.
	OnStarved func(*Conn, Report)
}

// A Ledger records what the frames of connections say about their streams. Make
// it with [New]. The zero value works too, and is a Ledger with the zero Options.
// It is safe for concurrent use.
type Ledger struct {
	options Options
	asked   atomic.Int64 // connections, traced or not

	mu    sync.Mutex // guards the fields below
	live  map[*Conn]struct{}
	ended []*Conn // the last ones, oldest first
}

// New returns a Ledger without connections.
func New(options Options) *Ledger { return &Ledger{options: options} }

// Tracer returns the func to set as [quic.Config].Tracer. If next is not nil,
// the connection is also traced by what next returns, unless that is nil.
//
// Labels have the paths of HTTP/3 requests. To keep them out, wrap the tracer in
// RedactHeaders of quic-go's http3/qlog.
func (l *Ledger) Tracer(next func(ctx context.Context, isClient bool, id quic.ConnectionID) qlogwriter.Trace) func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace {
	return func(ctx context.Context, isClient bool, id quic.ConnectionID) qlogwriter.Trace {
		var other qlogwriter.Trace
		if next != nil {
			other = next(ctx, isClient, id)
		}
		if !l.takes() {
			return other
		}
		c := newConn(isClient, true)
		c.ledger, c.id, c.state.live = l, id.String(), true
		return &trace{conn: c, next: other}
	}
}

// takes reports whether the next connection is to be traced.
func (l *Ledger) takes() bool {
	n := l.asked.Add(1) - 1
	return l.options.Sample >= 0 && n%int64(max(l.options.Sample, 1)) == 0
}

// Conns yields the connections that are traced: those that live, in no order,
// and the 64 that ended last. A connection is among them from its first packet
// on.
func (l *Ledger) Conns() iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		l.mu.Lock()
		all := slices.Clone(l.ended)
		for c := range l.live {
			all = append(all, c)
		}
		l.mu.Unlock()
		for _, c := range all {
			if !yield(c) {
				return
			}
		}
	}
}

// Of returns the ledger's view of c, or nil if c is not traced by a Ledger, or
// if its tracer is wrapped in another.
func Of(c *quic.Conn) *Conn {
	if t, ok := c.QlogTrace().(*trace); ok {
		return t.conn
	}
	return nil
}

// begin is called when c has its first packet, not when its tracer is asked
// for. quic-go tells of the end only if the connection has run: a dial that TLS
// refuses does not.
func (l *Ledger) begin(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.live == nil {
		l.live = make(map[*Conn]struct{})
	}
	l.live[c] = struct{}{}
}

func (l *Ledger) end(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.live[c]; !ok {
		return // it was before
	}
	delete(l.live, c)
	if len(l.ended) == keptEnded {
		l.ended = slices.Delete(l.ended, 0, 1)
	}
	l.ended = append(l.ended, c)
}
