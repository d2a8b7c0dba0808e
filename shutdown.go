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

// ErrShutdown is returned by calls that open or accept a stream while the
// connection is being shut down. Once the connection has ended, they return the
// connection's error instead.
var ErrShutdown = errors.New("quiclife: connection is shutting down")

// A ShutdownError says that Shutdown had to cut streams, or that it did not
// learn in time that all data had arrived.
type ShutdownError struct {
	// Streams are the streams that were cut: they were open, and were reset. If
	// there are none, all streams had ended, but their data may not have
	// arrived.
	Streams []StreamInfo
	// Err is the error that ended the wait: the context's, or the connection's.
	Err error
}

func (e *ShutdownError) Error() string {
	if len(e.Streams) == 0 {
		return fmt.Sprintf("quiclife: shutdown: data may not have arrived: %v", e.Err)
	}
	return fmt.Sprintf("quiclife: shutdown: %s cut, the first: %v: %v", counted(len(e.Streams), "open stream"), e.Streams[0], e.Err)
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// LogValue returns the error, the number of streams that were cut, and the
// first of them.
func (e *ShutdownError) LogValue() slog.Value {
	attrs := []slog.Attr{slog.Int("cut", len(e.Streams)), slog.String("error", e.Err.Error())}
	if len(e.Streams) > 0 {
		attrs = append(attrs, slog.Any("first", e.Streams[0]))
	}
	return slog.GroupValue(attrs...)
}

// Unwrap returns e.Err.
func (e *ShutdownError) Unwrap() error { return e.Err }

// Shutdown ends the connection so that no data is lost. As soon as it begins,
// calls that open or accept a stream fail with [ErrShutdown]. (A blocked call
// that accepts returns only when the next stream comes or the connection ends.)
// Shutdown blocks until all open streams have ended, whoever ends them. It does
// not wait for dropped unidirectional streams, which nobody would end. Streams
// that the peer opens meanwhile are refused with Codes.Shutdown. Then Shutdown
// blocks until the peer has acknowledged everything that was sent. Then it
// closes the connection with code and reason.
//
// If ctx is done first, Shutdown cuts the open streams: it resets them and
// closes the connection. For such a stream, the peer sees Codes.Shutdown or the
// end of the connection, whichever packet comes first. The error is a
// [*ShutdownError] that names the streams and matches ctx.Err(). If the
// connection ends by itself before all streams have ended, the error is a
// ShutdownError that matches the connection's error. Shutdown returns nil if
// the connection had ended before the call, or if the peer closes it after all
// streams have ended here. Shutdown may be called concurrently. The calls wait
// for the same end. When the context of one of them is done, that call cuts the
// streams, and all calls return an error.
//
// A nil error means that the peer's transport has acknowledged everything that
// was written and closed, whatever the network did before and during the call.
// quic-go does not report this, so Shutdown infers it: if data were not
// acknowledged, quic-go would have to send a packet again within a certain
// time. When no packet was sent for longer than that, everything is
// acknowledged. docs/SHUTDOWN.md says how long this takes. If the peer keeps
// sending, or a KeepAlivePeriod makes this side send, more often than that,
// only ctx ends the wait. So give ctx a deadline.
//
// There are limits to this promise. It does not hold for a peer whose
// max_ack_delay is above 25 ms, nor for a server that acknowledges the end of
// the client's handshake before it confirms the handshake (quic-go's server
// does not do this). Shutdown does not wait for streams opened or accepted
// through [Conn.Unwrap], or before [Wrap]. It does not account for a network
// outage that began before Wrap. For a stream given away with [Stream.Detach]
// it waits until the stream's Context is done: when its send half has ended, or
// when a context that a ConnContext returned is done.
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

// closeWithin is CloseWithError. During the handshake, quic-go may be in a
// callback of a tls.Config. Then ctx ends the wait, and the connection is
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

// within runs f and waits until it returns, or until shortly after ctx is done.
// If f does not block, that is long enough even if ctx is done from the start.
// Otherwise f goes on in the background.
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

// awaitEnd waits until all streams have ended and the transport is quiet. If it
// fails, it returns the streams that were cut, and why.
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
		if open == 0 { // else an open was in progress when Shutdown began
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
	c.asking.Reset(now) // otherwise we might wait in vain for dropped streams
	c.wakeLocked(now)
	c.mu.Unlock()

	defer c.refuseWhile(ctx, math.MaxInt64, math.MaxInt64)()
	select {
	case <-drained:
		if len(c.streamsCut()) == 0 {
			return nil
		}
		select { // they were ended by the connection's end, which is about to show
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

// drainedLocked closes the channel of whenDrained if no stream is open. It is
// called when a stream has ended.
func (c *Conn) drainedLocked() {
	if c.drained != nil && c.openLocked() == 0 {
		close(c.drained)
		c.drained = nil
	}
}

// gaveAway makes Shutdown wait for the send half of a detached stream.
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

// refuseWhile refuses incoming streams until stop is called. It refuses no more
// than most bidirectional and mostUni unidirectional streams.
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

// cutStreams notes that streams were cut, once for each stream.
func (c *Conn) cutStreams(sts []*streamState) {
	for _, st := range sts {
		if st.kind.uni() && st.isDropped() {
			continue // Shutdown does not wait for it
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

// peerClosed is called when the connection has ended after all streams had
// ended here. It returns the connection's error, or nil in two cases: the
// peer's application closed the connection, so it has what it wanted; or
// another Shutdown did, after everything had arrived.
func (c *Conn) peerClosed() error {
	err := context.Cause(c.lifetime)
	if e, ok := errors.AsType[*ApplicationError](err); ok && (e.Remote || c.arrived.Load()) && len(c.streamsCut()) == 0 {
		return nil
	}
	return err
}
