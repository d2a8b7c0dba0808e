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

// keptEnded is how many ended connections a Ledger keeps.
const keptEnded = 64

// Options configure a [Ledger]. The zero value traces all connections.
type Options struct {
	// Sample is n to trace one connection in n. 0 and 1 trace all connections, a
	// negative number none. Tracing has a cost, and it cannot begin later.
	Sample int

	// OnStarved, if not nil, is called when the peer sends STREAMS_BLOCKED because
	// it needs to open a stream and has no slot. The call runs on a goroutine of
	// its own, and holds up nothing. It may use the Ledger, and close the
	// connection. Calls for one connection come one after the other. If the peer
	// sends STREAMS_BLOCKED during a call, even several times, one more call
	// follows.
	OnStarved func(*Conn, Report)
}

// A Ledger records what the frames of connections say about their streams. Make
// it with [New]. The zero value works too, and is a Ledger with the zero Options.
// It is safe for concurrent use.
type Ledger struct {
	options Options
	asked   atomic.Int64 // connections so far, traced or not

	mu    sync.Mutex // guards the fields below
	live  map[*Conn]struct{}
	ended []*Conn // the connections that ended last, oldest first
}

// New returns a Ledger without connections.
func New(options Options) *Ledger { return &Ledger{options: options} }

// Tracer returns the func to set as [quic.Config].Tracer. If next is not nil and
// returns a trace, that trace gets the same events.
//
// Labels contain the paths of HTTP/3 requests. To keep them out, wrap the tracer
// in RedactHeaders of quic-go's http3/qlog.
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

// takes reports whether to trace the next connection.
func (l *Ledger) takes() bool {
	n := l.asked.Add(1) - 1
	return l.options.Sample >= 0 && n%int64(max(l.options.Sample, 1)) == 0
}

// Conns yields the traced connections: the 64 that ended last, and all that have
// not ended, in no order. A connection is among them from its first packet on.
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

// Of returns the ledger's view of c. It returns nil if no Ledger traces c, or if
// the Ledger's tracer is wrapped in another.
func Of(c *quic.Conn) *Conn {
	if t, ok := c.QlogTrace().(*trace); ok {
		return t.conn
	}
	return nil
}

// begin lists c. It is called at the first packet of c, not when quic-go asks for
// a tracer. quic-go reports the end of a connection only if it has run, and a dial
// that TLS refuses never runs.
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
		return // it has ended before, or it had no packet
	}
	delete(l.live, c)
	if len(l.ended) == keptEnded {
		l.ended = slices.Delete(l.ended, 0, 1)
	}
	l.ended = append(l.ended, c)
}
