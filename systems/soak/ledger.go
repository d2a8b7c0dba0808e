package main

import (
	"fmt"
	"time"

	"github.com/quiclife/quiclife/ledger"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

// books holds the ledgers of both ends of all connections.
type books struct{ ledger *ledger.Ledger }

func (b *books) open() {
	b.ledger = ledger.New(ledger.Options{OnStarved: func(c *ledger.Conn, _ ledger.Report) {
		for range c.Streams() { // must work while there is traffic
		}
	}})
	conf.Tracer = b.ledger.Tracer(nil)
}

// compare waits until the ledgers of both ends agree, for each connection that is
// alive. If over is set, no stream may be held either.
func (b *books) compare(r *lab.Run, over bool) error {
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		conns, streams, held, err := b.differences(over)
		if err == nil || time.Since(start) > restTime {
			r.Printf("at rest the ledgers of both ends of %d connections agree on %d streams, %d of them held: %t", conns, streams, held, err == nil)
			return err
		}
	}
}

// differences returns how many connections it has compared, how many streams
// their ledgers have counted, and how many of these are held. err says what
// differs.
func (b *books) differences(over bool) (conns int, streams, held int64, err error) {
	type ends struct{ client, server *ledger.Conn }
	pairs := make(map[string]ends)
	for c := range b.ledger.Conns() {
		r := c.Report()
		if !r.Ended.IsZero() {
			continue
		}
		p := pairs[r.ID]
		if r.Client {
			p.client = c
		} else {
			p.server = c
		}
		pairs[r.ID] = p
	}
	for id, p := range pairs {
		if p.client == nil || p.server == nil {
			continue // the other end has ended
		}
		conns++
		c, s := p.client.Report(), p.server.Report()
		for kind, counts := range map[string][2]ledger.Count{
			"bidirectional of the client":  {c.Outgoing, s.Incoming},
			"unidirectional of the client": {c.OutgoingUni, s.IncomingUni},
			"bidirectional of the server":  {c.Incoming, s.Outgoing},
			"unidirectional of the server": {c.IncomingUni, s.OutgoingUni},
		} {
			if a, b := counts[0], counts[1]; a.Opened != b.Opened || a.LetGo != b.LetGo || over && a.Held+b.Held > 0 || !a.Exact || !b.Exact {
				proofs := ""
				for _, end := range []*ledger.Conn{p.client, p.server} {
					for s := range end.Streams() {
						proofs += fmt.Sprintf("\n%d to %d: %v: %s", s.ID, s.Last, s.Blame, s.Proof)
					}
				}
				return conns, streams, held, fmt.Errorf("connection %s, %s streams: the client's ledger has %+v, the server's %+v%s", id, kind, a, b, proofs)
			}
			streams += counts[0].Opened
			held += counts[0].Held
		}
	}
	return conns, streams, held, nil
}
