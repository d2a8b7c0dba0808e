package quiclife

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// LogValue has the number of streams that were cut, and the first of them.
func (e *ShutdownError) LogValue() slog.Value {
	attrs := []slog.Attr{slog.Int("cut", len(e.Streams)), slog.String("error", e.Err.Error())}
	if len(e.Streams) > 0 {
		attrs = append(attrs, slog.Any("first", e.Streams[0]))
	}
	return slog.GroupValue(attrs...)
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
// If ctx is done first, the streams that are open are reset and the connection
// is closed all the same. Of such a stream the peer sees Codes.Shutdown or the
// connection's end, whichever packet comes first. The error is then a
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
