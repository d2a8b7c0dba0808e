package quiclife

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"
)

// ErrShutdown is returned for streams that are to be opened or accepted on a
// connection while it is shut down; afterwards it is the connection's own error.
var ErrShutdown = errors.New("quiclife: connection is shutting down")

// A ShutdownError says that Shutdown had to cut streams, or did not learn in
// time that all had arrived.
type ShutdownError struct {
	// Streams were open, and have been reset. If there are none, all streams
	// had ended, but their data may not have arrived.
	Streams []StreamInfo
	// Err is what ended the wait: the context's error, or the connection's.
	Err error
}

func (e *ShutdownError) Error() string {
	if len(e.Streams) == 0 {
		return fmt.Sprintf("quiclife: shutdown: data may not have arrived: %v", e.Err)
	}
	return fmt.Sprintf("quiclife: shutdown: %d open streams cut, the first: %v: %v", len(e.Streams), e.Streams[0], e.Err)
}

// Unwrap returns e.Err.
func (e *ShutdownError) Unwrap() error { return e.Err }

// Shutdown ends the connection so that nothing is lost. From its start on,
// streams can be neither opened nor accepted ([ErrShutdown]; an Accept that is
// blocked returns with the next stream, or the connection's end). It waits until the
// open streams have ended, whoever ends them; those that the peer opens
// meanwhile are refused with Codes.Shutdown. It waits until the peer has acknowledged all that
// was sent, then closes the connection with code and reason.
//
// If ctx is done first, the streams that are open are reset, the connection is
// closed all the same, which is what the peer sees, and the error is a
// [*ShutdownError] that names them and matches ctx.Err(). So is the error, with
// the connection's, if the connection ended by itself before all streams had.
// On a connection that has ended Shutdown returns nil. Concurrent calls wait
// for the same end; the first whose context is done cuts.
//
// quic-go does not tell when all is acknowledged. It is taken to be when no
// packet was sent for longer than quic-go could wait before it had to send one
// again; see the README for how long this takes. A peer whose max_ack_delay is
// above 25 ms is not reckoned with. While the peer sends, or a KeepAlivePeriod
// has us send, more often than that, the transport is never quiet, and only
// ctx ends the wait: give it a deadline.
func (c *Conn) Shutdown(ctx context.Context, code ApplicationErrorCode, reason string) error {
	if ctx == nil {
		return errNilContext
	}
	if c.raw.Context().Err() != nil {
		return nil
	}
	c.drain()
	cut, err := c.awaitEnd(ctx)
	c.raw.CloseWithError(code, reason)
	c.end()
	if err != nil {
		return &ShutdownError{Streams: cut, Err: err}
	}
	return nil
}

// awaitEnd waits until all streams have ended and the transport is quiet. It
// returns the streams that it had to cut, and why.
func (c *Conn) awaitEnd(ctx context.Context) (cut []StreamInfo, err error) {
	for {
		if err := c.awaitStreams(ctx); err != nil {
			open := c.all()
			c.cutStreams(open)
			for _, st := range open {
				st.reset(c.guard.Codes.Shutdown)
			}
			return c.streamsCut(), err
		}
		if err := c.awaitQuiet(ctx); err != nil {
			return c.streamsCut(), err
		}
		c.mu.Lock()
		open := c.openLocked()
		c.mu.Unlock()
		if open == 0 { // else an open was under way when Shutdown began
			return nil, nil
		}
	}
}

// awaitStreams waits until no stream is open.
func (c *Conn) awaitStreams(ctx context.Context) error {
	c.mu.Lock()
	if c.openLocked() == 0 {
		c.mu.Unlock()
		return nil
	}
	if c.drained == nil {
		c.drained = make(chan struct{})
	}
	drained := c.drained
	c.mu.Unlock()
	c.collectAtLimit() // dropped streams would have us wait in vain

	defer c.refuseWhile(ctx, math.MaxInt64, math.MaxInt64)()
	select {
	case <-drained:
		if len(c.streamsCut()) > 0 { // ended by the connection's end, which is near
			<-c.raw.Context().Done()
			return context.Cause(c.raw.Context())
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refuseWhile refuses incoming streams until stop is called, but no more than
// so many of each kind.
func (c *Conn) refuseWhile(ctx context.Context, most, mostUni int64) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var both sync.WaitGroup
	both.Go(func() { refuseAll(ctx, c, incoming, most, c.raw.AcceptStream, c.guard.Codes.Shutdown) })
	both.Go(func() { refuseAll(ctx, c, incomingUni, mostUni, c.raw.AcceptUniStream, c.guard.Codes.Shutdown) })
	return func() {
		cancel()
		both.Wait()
	}
}

// cutStreams notes streams as cut, each once.
func (c *Conn) cutStreams(sts []*streamState) {
	for _, st := range sts {
		info := st.info()
		c.mu.Lock()
		if !st.cutNoted {
			st.cutNoted = true
			c.cut = append(c.cut, info)
		}
		c.mu.Unlock()
	}
}

func (c *Conn) streamsCut() []StreamInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

// awaitQuiet waits until all that was sent must have been acknowledged: if
// something were outstanding, quic-go would have sent a probe (RFC 9002, 6.2).
// It does so a PTO after the last packet, or after twice the last wait if that
// one was in vain, of which the largest gap between probes tells. What is sent
// soon after something was received is no probe: it may be an ACK, or what an
// ACK has called for.
func (c *Conn) awaitQuiet(ctx context.Context) error {
	select { // before that, the limit on what a server sends to an address that is not validated looks quiet
	case <-c.raw.HandshakeComplete():
	case <-c.raw.Context().Done():
		return c.peerClosed()
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.rejected0RTT() {
		return Err0RTTRejected
	}
	// A peer that opens streams without end uses up its slots, and the transport
	// falls quiet.
	defer c.refuseWhile(ctx, c.kinds[incoming].stats.Limit, c.kinds[incomingUni].stats.Limit)()

	stats := c.raw.ConnectionStats()
	lastSent := time.Now()
	lastProbe, lastReceived := lastSent, time.Time{}
	var gap time.Duration
	for {
		pto := ptoOf(stats)
		quiet := 2 * pto
		switch {
		case stats.PacketsLost > 0: // the backoff may be hidden behind what we answer the peer
			quiet = 8 * pto
		case lastReceived.Before(lastSent): // nothing tells of the backoff before we began to look
			quiet = 3 * pto
		}
		if time.Since(lastSent) >= quiet && time.Since(lastProbe) >= 3*gap {
			return nil
		}
		poll := pto / 8
		timer := time.NewTimer(poll)
		select {
		case <-timer.C:
		case <-c.raw.Context().Done():
			timer.Stop()
			return c.peerClosed()
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		before, now := stats, time.Now()
		stats = c.raw.ConnectionStats()
		if stats.PacketsReceived != before.PacketsReceived {
			lastReceived = now
		}
		if stats.PacketsSent != before.PacketsSent {
			lastSent = now
			if now.Sub(lastReceived) > maxAckDelay+poll {
				gap, lastProbe = max(gap, now.Sub(lastProbe)), now
			}
		}
	}
}

// pto is the probe timeout of quic-go, as far as its stats tell (RFC 9002, 6.2.1).
func (c *Conn) pto() time.Duration { return ptoOf(c.raw.ConnectionStats()) }

const maxAckDelay = 25 * time.Millisecond // the default of RFC 9000, section 18.2

func ptoOf(stats ConnectionStats) time.Duration {
	const (
		granularity = time.Millisecond
		initialPTO  = 200 * time.Millisecond // quic-go's, without an RTT sample
	)
	if stats.SmoothedRTT == 0 {
		return initialPTO
	}
	return stats.SmoothedRTT + max(4*stats.MeanDeviation, granularity) + maxAckDelay
}

// peerClosed is the connection's error, or nil if the peer's application closed
// it, now that all streams have ended: it has what it wanted.
func (c *Conn) peerClosed() error {
	err := context.Cause(c.raw.Context())
	if _, ok := errors.AsType[*ApplicationError](err); ok && len(c.streamsCut()) == 0 {
		return nil
	}
	return err
}

// Shutdown closes the listeners of the group and shuts down all of its
// connections side by side, as [Conn.Shutdown] does, with code 0; also those
// that were not accepted yet. When it returns, the sockets of ListenAddr are
// closed. Its error joins those of the connections. If ctx is done while a
// socket is left open for 3 PTO, to repeat a CONNECTION_CLOSE that was lost, it
// is also joined by one that says so and matches ctx.Err(); the socket is then
// closed without Shutdown.
//
// New connections can be made afterwards. Connections that are being dialed
// are not waited for.
func (g *Guard) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return errNilContext
	}
	g.mu.Lock()
	var listeners []*listener
	for l := range g.listeners {
		listeners = append(listeners, l)
	}
	g.mu.Unlock()
	for _, l := range listeners {
		l.close()
		for { // those that nobody accepted; it does not block any more
			if _, err := l.accept(context.Background()); err != nil {
				break
			}
		}
	}

	var mu sync.Mutex // guards errs
	var errs []error
	for conns := g.members(); len(conns) > 0; conns = g.members() {
		var wg sync.WaitGroup
		for _, c := range conns {
			wg.Go(func() {
				err := c.Shutdown(ctx, 0, "")
				c.endIfClosed() // so that c is no member any more
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			})
		}
		wg.Wait()
	}
	for _, l := range listeners {
		if l.owned != nil {
			select {
			case <-l.owned.gone:
				continue
			default:
			}
			select {
			case <-l.owned.gone:
			case <-ctx.Done():
				errs = append(errs, fmt.Errorf("quiclife: shutdown: the socket of %v is still open: %w", l.raw.Addr(), ctx.Err()))
			}
		}
	}
	return errors.Join(errs...)
}
