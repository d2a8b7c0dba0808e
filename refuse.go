package quiclife

import (
	"context"
	"time"

	"github.com/quic-go/quic-go"
)

// Refusing streams that the program does not want or cannot handle.

// refuse ends a stream that the program does not get to see, so that it holds
// no slot. The stream is not counted.
func refuse(raw receiver, code quic.StreamErrorCode) {
	if s, ok := raw.(sender); ok {
		s.CancelWrite(code)
	}
	raw.CancelRead(code)
	raw.ReleaseStreamCredit()
}

// refuseAll refuses up to most streams, until accept fails or ctx is done.
// Refusing gives the slot back, so a peer that opens streams in a loop would
// keep us busy. So refuseAll limits its pace: it refuses at once as many as the
// peer may have open, then one in each refusalInterval.
func refuseAll[S receiver](ctx context.Context, c *Conn, k kind, most int64, accept func(context.Context) (S, error), code StreamErrorCode) error {
	c.accepts(k)
	pace := refusalPace{atOnce: min(c.kinds[k].stats.Limit, maxRefusedAtOnce)}
	if pace.atOnce == 0 { // the limit may be wrong if GetConfigForClient chose another Config
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

// A refusalPace allows atOnce refusals at once, and one more for each
// refusalInterval that has passed.
type refusalPace struct {
	atOnce int64
	rested time.Time // when atOnce refusals are allowed at once again
}

func (p *refusalPace) refused(now time.Time) {
	if p.rested.Before(now) {
		p.rested = now
	}
	p.rested = p.rested.Add(refusalInterval)
}

// wait waits until one more refusal is allowed, or ctx is done.
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

// refusalCode returns the code for a stream that no handler has seen.
func (c *Conn) refusalCode() StreamErrorCode {
	if c.draining.Err() != nil {
		return c.guard.Codes.Shutdown
	}
	return c.guard.Codes.Refused
}

// refuseWaiting refuses a stream that has waited too long for its turn, and the
// streams of its kind that the peer has opened since.
func refuseWaiting[R receiver, S ender](c *Conn, str S, k kind, accept func(context.Context) (R, error)) {
	code := c.guard.Codes.Refused
	str.Reset(code)
	now, cancel := context.WithCancel(context.Background())
	cancel() // even then quic-go returns a stream that is queued
	// Not an endless loop, since the peer may go on opening streams.
	for range max(c.kinds[k].stats.Limit, 1) {
		raw, err := accept(now)
		if err != nil {
			return
		}
		refuse(raw, code)
	}
}
