package quiclife

import (
	"context"
	"time"

	"github.com/quic-go/quic-go"
)

// Streams that the program does not want, or cannot have.

// refuse ends a stream that the program is not shown, so that it holds no
// slot. It is not counted.
func refuse(raw receiver, code quic.StreamErrorCode) {
	if s, ok := raw.(sender); ok {
		s.CancelWrite(code)
	}
	raw.CancelRead(code)
	raw.ReleaseStreamCredit()
}

// refuseAll refuses streams until accepting fails or ctx is done, but no more
// than most. It does so at a pace, since refusing gives the slot back, and a
// peer that opens streams in a loop would keep us busy: as many at once as the
// peer may have open, then one each refusalInterval.
func refuseAll[S receiver](ctx context.Context, c *Conn, k kind, most int64, accept func(context.Context) (S, error), code StreamErrorCode) error {
	c.accepts(k)
	pace := refusalPace{atOnce: min(c.kinds[k].stats.Limit, maxRefusedAtOnce)}
	if pace.atOnce == 0 { // GetConfigForClient may have said otherwise
		pace.atOnce = maxRefusedAtOnce
	}
	for range most {
		if err := pace.wait(ctx); err != nil {
			return err
		}
		raw, err := acceptUntil(ctx, accept)
		if err != nil {
			return err
		}
		refuse(raw, code)
		pace.refused(time.Now())
	}
	return nil
}

const (
	maxRefusedAtOnce = 1000
	refusalInterval  = 10 * time.Millisecond
)

// A refusalPace lets atOnce refusals pass, and one more for each
// refusalInterval that has gone by.
type refusalPace struct {
	atOnce int64
	rested time.Time // when atOnce may pass again
}

func (p *refusalPace) refused(now time.Time) {
	if p.rested.Before(now) {
		p.rested = now
	}
	p.rested = p.rested.Add(refusalInterval)
}

// wait waits until one more refusal may pass, or ctx is done.
func (p *refusalPace) wait(ctx context.Context) error {
	early := time.Until(p.rested.Add(-time.Duration(p.atOnce-1) * refusalInterval))
	if early <= 0 {
		return nil
	}
	select {
	case <-time.After(early):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refusalCode is for a stream that no handler has seen.
func (c *Conn) refusalCode() StreamErrorCode {
	if c.draining.Err() != nil {
		return c.guard.Codes.Shutdown
	}
	return c.guard.Codes.Refused
}

// refuseWaiting refuses a stream that has waited too long for its turn, and those
// of its kind that the peer has opened since.
func refuseWaiting[R receiver, S ender](c *Conn, str S, k kind, accept func(context.Context) (R, error)) {
	code := c.guard.Codes.Refused
	str.Reset(code)
	now, cancel := context.WithCancel(context.Background())
	cancel() // quic-go returns a stream that is queued all the same
	// Not for as long as there are any: the peer may open others meanwhile.
	for range max(c.kinds[k].stats.Limit, 1) {
		raw, err := accept(now)
		if err != nil {
			return
		}
		refuse(raw, code)
	}
}
