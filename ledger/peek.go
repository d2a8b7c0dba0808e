package ledger

import (
	"iter"

	"github.com/quiclife/quiclife/internal/peek"
)

// Package debugpage reads a Ledger through internal/peek, without importing ledger.

func init() {
	peek.LedgerConns = func(ledger any) (iter.Seq[peek.LedgerConn], bool) {
		l, ok := ledger.(*Ledger)
		if !ok || l == nil {
			return nil, false
		}
		return l.forPage, true
	}
}

func (l *Ledger) forPage(yield func(peek.LedgerConn) bool) {
	for c := range l.Conns() {
		r := c.Report()
		page := peek.LedgerConn{
			Client: r.Client, Local: r.Local, Remote: r.Remote, Ended: !r.Ended.IsZero(), Reason: r.Reason, Held: r.Held(),
			Streams: c.streamsForPage,
		}
		for i, n := range [...]Count{r.Outgoing, r.OutgoingUni, r.Incoming, r.IncomingUni} {
			page.Kinds = append(page.Kinds, peek.LedgerCount{
				Incoming: i >= 2, Unidirectional: i%2 == 1, Limit: n.Limit, Opened: n.Opened, Held: n.Held, HeldComplete: n.HeldComplete,
				Exact: n.Exact, Why: n.Why, Blocked: n.Blocked,
			})
		}
		if !yield(page) {
			return
		}
	}
}

func (c *Conn) streamsForPage(yield func(peek.LedgerStream) bool) {
	for s := range c.Streams() {
		page := peek.LedgerStream{
			ID: int64(s.ID), Last: int64(s.Last), Count: s.Count, Incoming: s.Incoming, Unidirectional: s.Unidirectional,
			Label: s.Label, Opened: s.Opened, Blame: s.Blame.String(), Proof: s.Proof,
		}
		if !yield(page) {
			return
		}
	}
}
