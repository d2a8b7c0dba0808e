package quiclife

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// Guard.MaxStreams limits the streams that are handled at a time. At the limit,
// each connection accepts one more stream of each kind, which then waits for
// its turn. A free slot goes to the connection that has the fewest streams
// being handled, so that a greedy peer delays itself.

// errWaited says that a stream has waited for longer than Guard.MaxWait.
var errWaited = errors.New("quiclife: no slot within Guard.MaxWait")

func (g *Guard) maxWait() time.Duration {
	if g.MaxWait == 0 {
		return time.Second
	}
	return g.MaxWait
}

// awaitHandling waits until one more stream of c may be handled, and counts it.
// It fails if that takes too long ([errWaited]), ctx is done or the connection
// has ended.
func (c *Conn) awaitHandling(ctx context.Context) error {
	g := c.guard
	if g.MaxStreams <= 0 {
		return nil
	}
	g.mu.Lock()
	g.handling.Limit = g.MaxStreams
	turn := g.handling.Take(c)
	g.mu.Unlock()
	if turn == nil {
		return nil
	}
	g.log(slog.LevelWarn, recordKind{msg: "quiclife: streams wait for their turn"},
		"scope", LimitStreams.String(), "limit", g.MaxStreams, "most", greediest{g}, "most_open", greed{g})
	var late <-chan time.Time
	if wait := g.maxWait(); wait > 0 {
		late = time.After(wait)
	}
	var err error
	select {
	case <-turn.Given:
		return nil
	case <-late:
		err = errWaited
	case <-ctx.Done():
		err = ctx.Err()
	case <-c.lifetime.Done():
		err = context.Cause(c.lifetime)
	}
	g.mu.Lock()
	g.handling.Leave(turn)
	handled := g.handling.Taken()
	g.mu.Unlock()
	if err == errWaited {
		g.totals.limitErrors[LimitStreams].Add(1)
		g.refuse(&LimitError{Scope: LimitStreams, Open: handled, Limit: g.MaxStreams},
			"remote", c.RemoteAddr().String(), "most", greediest{g}, "most_open", greed{g})
	}
	return err
}

// acceptHandled accepts a stream and waits until it may be handled. The stream
// counts as handled until it ends. acceptHandled fails once ctx is done.
func (c *Conn) acceptHandled(ctx context.Context) (*Stream, error) {
	for {
		s, err := acceptUntil(ctx, c.AcceptStream)
		if err != nil {
			return nil, err
		}
		switch err := c.awaitHandling(ctx); err {
		case nil:
			s.st.handledUntilEnd()
			return s, nil
		case errWaited:
			refuseWaiting(c, s, incoming, c.raw.AcceptStream)
		default:
			s.Reset(c.refusalCode())
			return nil, err
		}
	}
}

// handledUntilEnd makes unregister give back the slot that awaitHandling took.
func (st *streamState) handledUntilEnd() {
	c := st.conn
	if c.guard.MaxStreams <= 0 {
		return
	}
	c.mu.Lock()
	ended := st.unregistered
	st.handled = !ended
	c.mu.Unlock()
	if ended {
		c.handled()
	}
}

// handled gives back a slot that awaitHandling took.
func (c *Conn) handled() {
	g := c.guard
	if g.MaxStreams <= 0 {
		return
	}
	g.mu.Lock()
	g.handling.Release(c)
	g.mu.Unlock()
}

// most returns the connection that has the most streams being handled, or nil,
// and their number.
func (g *Guard) most() (*Conn, int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.handling.Most()
}

// greediest and greed find the connection that has the most streams being
// handled. They do so only when a record is written, which is rare, and not
// each time a stream is refused.
type (
	greediest struct{ guard *Guard }
	greed     struct{ guard *Guard }
)

func (g greediest) LogValue() slog.Value {
	c, _ := g.guard.most()
	if c == nil {
		return slog.StringValue("")
	}
	return slog.StringValue(c.RemoteAddr().String())
}

func (g greed) LogValue() slog.Value {
	_, n := g.guard.most()
	return slog.Int64Value(n)
}
