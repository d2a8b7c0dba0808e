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
// On a connection that has ended Shutdown returns nil, as it does if the peer
// closes the connection when all streams have ended here. Concurrent calls wait
// for the same end; the first whose context is done cuts, and then all return
// an error.
//
// nil means that the peer's transport has acknowledged all that was written and
// closed, whatever the network did before and during the call. quic-go does not
// tell when that is so. It must be so when no packet was sent for longer than
// quic-go could wait before it had to send one again; see the README for how
// long this takes. While the peer sends, or a KeepAlivePeriod has us send, more
// often than that, only ctx ends the wait: give it a deadline.
//
// Not promised: anything for a peer whose max_ack_delay is above 25 ms, or for
// a server that acknowledges the end of the client's handshake before it
// confirms it (quic-go's does not). Streams of [Conn.Unwrap], and those that
// [Wrap] did not see, are not known: they are not waited for, and an outage
// that had begun before Wrap is not reckoned with. A stream that was given away
// with [Stream.Detach] is waited for until its Context is done, which is when its
// send half has ended, or the context that a ConnContext returned.
func (c *Conn) Shutdown(ctx context.Context, code ApplicationErrorCode, reason string) error {
	if ctx == nil {
		return errNilContext
	}
	if c.lifetime.Err() != nil {
		return nil
	}
	c.drain()
	cut, err := c.awaitEnd(ctx)
	if err == nil {
		c.arrived.Store(true)
	}
	c.closeWithin(ctx, code, reason)
	if err != nil {
		return &ShutdownError{Streams: cut, Err: err}
	}
	return nil
}

// closeWithin is CloseWithError. In the handshake, when quic-go may be in a
// callback of a tls.Config, ctx ends the wait for it, and the connection is
// closed when the callback returns.
func (c *Conn) closeWithin(ctx context.Context, code ApplicationErrorCode, reason string) {
	select {
	case <-c.raw.HandshakeComplete():
		c.CloseWithError(code, reason)
		return
	default:
	}
	within(ctx, func() { c.CloseWithError(code, reason) })
}

// within waits for f, which should not block, until ctx is done and a little
// longer: long enough for an f that does not. f goes on.
func within(ctx context.Context, f func()) {
	const little = 50 * time.Millisecond
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	select {
	case <-done:
	case <-time.After(little):
	}
}

// awaitEnd waits until all streams have ended and the transport is quiet. It
// returns the streams that it had to cut, and why.
func (c *Conn) awaitEnd(ctx context.Context) (cut []StreamInfo, err error) {
	for {
		if err := c.awaitStreams(ctx); err != nil {
			open := c.all()
			c.cutStreams(open)
			for _, st := range open {
				st.cutOff(c.guard.Codes.Shutdown)
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
	drained := c.whenDrained()
	select {
	case <-drained:
		return nil
	default:
	}
	c.mu.Lock()
	now := c.now()
	c.asking.Reset(now) // dropped streams would have us wait in vain
	c.wakeLocked(now)
	c.mu.Unlock()

	defer c.refuseWhile(ctx, math.MaxInt64, math.MaxInt64)()
	select {
	case <-drained:
		if len(c.streamsCut()) == 0 {
			return nil
		}
		select { // ended by the connection's end, which is near
		case <-c.lifetime.Done():
			return context.Cause(c.lifetime)
		case <-ctx.Done():
			return ctx.Err()
		}
	case <-ctx.Done():
		return ctx.Err()
	}
}

// whenDrained returns a channel that is closed when no stream is open.
func (c *Conn) whenDrained() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drained == nil {
		c.drained = make(chan struct{})
	}
	drained := c.drained
	c.drainedLocked()
	return drained
}

// drainedLocked is called when a stream has ended.
func (c *Conn) drainedLocked() {
	if c.drained != nil && c.openLocked() == 0 {
		close(c.drained)
		c.drained = nil
	}
}

// gaveAway has Shutdown wait for the send half of a detached stream.
func (c *Conn) gaveAway(send sender) {
	c.mu.Lock()
	c.given++
	c.mu.Unlock()
	context.AfterFunc(send.Context(), func() {
		c.sends()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.given--
		c.drainedLocked()
	})
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
		if st.kind.uni() && st.isDropped() {
			continue // nobody waits for it
		}
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

// peerClosed is the connection's error. It is nil, now that all streams have
// ended, if the peer's application closed the connection, as it has what it
// wanted, or another Shutdown, when all had arrived.
func (c *Conn) peerClosed() error {
	err := context.Cause(c.lifetime)
	if e, ok := errors.AsType[*ApplicationError](err); ok && (e.Remote || c.arrived.Load()) && len(c.streamsCut()) == 0 {
		return nil
	}
	return err
}

// Shutdown closes the listeners of the group and shuts down all of its
// connections side by side, as [Conn.Shutdown] does, with code 0; also those
// that were not accepted yet. When it returns, the sockets of ListenAddr are
// closed. Its error is one line that counts what was cut; its Unwrap() []error
// has the error of each connection, a [*ShutdownError]. If ctx is done while a
// socket is left open for 3 PTO, to repeat a CONNECTION_CLOSE that was lost,
// there is also one that says so and matches ctx.Err(); the socket is then
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
	g.closeAll(ctx, listeners)

	var failed groupError
	var mu sync.Mutex // guards failed
	seen := make(map[*Conn]bool)
	for more := true; more; {
		var wg sync.WaitGroup
		more = false
		for _, c := range g.members() {
			if seen[c] {
				continue
			}
			seen[c], more = true, true
			wg.Go(func() {
				err := c.Shutdown(ctx, 0, "")
				c.endIfClosed() // so that c is no member any more
				mu.Lock()
				defer mu.Unlock()
				failed.add(err)
			})
		}
		wg.Wait()
	}
	failed.conns = len(seen)
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
				failed.sockets++
				failed.errs = append(failed.errs, fmt.Errorf("quiclife: shutdown: the socket of %v is still open: %w", l.raw.Addr(), ctx.Err()))
			}
		}
	}
	if len(failed.errs) > 0 {
		return &failed
	}
	return nil
}

// closeAll closes listeners, and waits until the connections that they had in
// store are members of the group, or ctx is done.
func (g *Guard) closeAll(ctx context.Context, listeners []*listener) {
	var wg sync.WaitGroup
	for _, l := range listeners {
		wg.Go(func() {
			l.close() // which waits for handshakes, so perhaps for a callback of a tls.Config
			for {     // those that nobody accepted; it does not block any more
				if _, err := l.accept(context.Background()); err != nil {
					break
				}
			}
			l.awaitAccepts()
		})
	}
	within(ctx, wg.Wait)
}

// A groupError is the error of Guard.Shutdown.
type groupError struct {
	conns, streams, sockets int
	errs                    []error // of the connections, then of the sockets
}

func (e *groupError) add(err error) {
	if err == nil {
		return
	}
	e.errs = append(e.errs, err)
	if cut, ok := errors.AsType[*ShutdownError](err); ok {
		e.streams += len(cut.Streams)
	}
}

func (e *groupError) Error() string {
	if len(e.errs) == 1 {
		return e.errs[0].Error()
	}
	return fmt.Sprintf("quiclife: shutdown: of %d connections %d ended with %d open streams cut, or with data that may not have arrived; %d sockets are still open",
		e.conns, len(e.errs)-e.sockets, e.streams, e.sockets)
}

func (e *groupError) Unwrap() []error { return e.errs }
