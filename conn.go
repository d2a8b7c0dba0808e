package quiclife

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"
)

// A Conn is a QUIC connection that knows its streams. It has all methods of
// quic-go's [quic.Conn] with the same meaning; the streams that it opens and
// accepts are counted until both of their halves have ended, and come back
// when the program forgets them.
//
// All methods may be called from any goroutine.
type Conn struct {
	raw    *quic.Conn
	guard  *Guard
	counts bool            // in guard.counted
	owned  *ownedTransport // of the listener that accepted it, or nil
	start  time.Time       // zero of the stream times, see now
	// inBubble: made inside a testing/synctest bubble, whose channels no
	// goroutine from outside may touch.
	inBubble bool
	// creditRequired: Config.RequireStreamCreditRelease was set.
	creditRequired bool
	// draining is done from the start of Shutdown on, which calls drain.
	draining context.Context
	drain    context.CancelFunc

	queue sendQueue // what the streams have queued (write.go)

	endOnce sync.Once
	next    sync.Mutex   // serializes NextConnection, once the handshake is complete
	phase   atomic.Int32 // counts rejections of 0-RTT, after which stream IDs begin anew

	mu      sync.Mutex // guards the fields below
	kinds   [numKinds]registry
	owing   streamList // incoming streams that have ended, and whose credit was not returned
	ended   bool
	serving bool
	drained chan struct{} // not nil if Shutdown waits for the last stream to end
	cut     []StreamInfo  // streams that Shutdown, or the connection's end during it, has cut
	sweep   *time.Timer   // pending while some stream has a timeout, else nil
	sweepAt time.Duration // when it fires
	retry   *time.Timer   // pending while slots are short, see collectAtLimit, else nil
}

// Wrap takes over a connection that was made with quic-go itself, under
// [DefaultGuard]. See [Guard.Wrap].
func Wrap(raw *quic.Conn) *Conn { return DefaultGuard.Wrap(raw) }

// Wrap takes over a connection that was made with quic-go itself. Streams that
// were opened or accepted through raw, before or after, are not counted.
// Wrapping a connection that has ended is fine: its methods fail as quic-go's
// do. Wrapping one connection twice makes two Conns, each with its own streams.
func (g *Guard) Wrap(raw *quic.Conn) *Conn {
	if raw == nil {
		panic("quiclife: Wrap of a nil connection")
	}
	g.countConn()
	return g.wrap(raw, incomingLimits{g.MaxIncomingStreams, g.MaxIncomingUniStreams}, nil)
}

// incomingLimits are MaxIncomingStreams and MaxIncomingUniStreams as configured.
type incomingLimits struct{ bidi, uni int64 }

func limitsOf(conf *quic.Config) incomingLimits {
	if conf == nil {
		return incomingLimits{}
	}
	return incomingLimits{conf.MaxIncomingStreams, conf.MaxIncomingUniStreams}
}

// wrap is Wrap for a connection that is counted already. If from accepted it,
// its handshake was counted, and is uncounted by quic-go's context.
func (g *Guard) wrap(raw *quic.Conn, limits incomingLimits, from *listener) *Conn {
	c := &Conn{raw: raw, guard: g, counts: from == nil, start: time.Now()}
	if from != nil {
		c.owned = from.owned
	}
	c.draining, c.drain = context.WithCancel(context.Background())
	// Inside a bubble the time has no monotonic clock reading (time.Time's ==
	// compares it, Round(0) strips it).
	c.inBubble = c.start == c.start.Round(0)
	c.creditRequired = raw.ConnectionState().RequireStreamCreditRelease
	c.kinds[outgoing].stats.Limit = max(g.MaxOutgoingStreams, 0)
	c.kinds[outgoingUni].stats.Limit = max(g.MaxOutgoingUniStreams, 0)
	c.kinds[incoming].stats.Limit = effectiveLimit(limits.bidi)
	c.kinds[incomingUni].stats.Limit = effectiveLimit(limits.uni)
	g.add(c)
	context.AfterFunc(raw.Context(), c.end)
	return c
}

// now is the age of c: the clock that its streams are timed by.
func (c *Conn) now() time.Duration { return time.Since(c.start) }

// end ends all streams, once the connection has ended. When it returns, they
// have ended, also if another call does it.
func (c *Conn) end() { c.endOnce.Do(c.endAll) }

func (c *Conn) endAll() {
	c.mu.Lock()
	c.ended = true
	for _, timer := range []*time.Timer{c.sweep, c.retry} {
		if timer != nil {
			timer.Stop()
		}
	}
	c.mu.Unlock()
	c.guard.remove(c)
	if c.owned != nil && closedLocally(context.Cause(c.raw.Context())) {
		c.owned.linger(3 * c.pto())
	}
	open := c.all()
	if c.draining.Err() != nil {
		c.cutStreams(open)
	}
	for _, st := range open {
		st.connectionEnded()
	}
}

// closedLocally tells the errors of connections that this side has closed.
func closedLocally(err error) bool {
	if e, ok := errors.AsType[*ApplicationError](err); ok {
		return !e.Remote
	}
	e, ok := errors.AsType[*TransportError](err)
	return ok && !e.Remote
}

// endIfClosed makes the counts exact from the moment that raw has ended, which
// is before the AfterFunc of wrap has run.
func (c *Conn) endIfClosed() {
	if c.raw.Context().Err() != nil {
		c.end()
	}
}

// Unwrap returns quic-go's own connection, for packages that insist on it.
// Streams that are opened or accepted through it are not ours: they are not
// counted, and never reclaimed. Of a nil Conn, as comes with an error, it is nil.
func (c *Conn) Unwrap() *quic.Conn {
	if c == nil {
		return nil
	}
	return c.raw
}

// OpenStream opens a bidirectional stream without blocking. The peer learns of
// it when something is sent on it.
//
// At the peer's limit, and at Guard.MaxOutgoingStreams, it fails with a
// [*LimitError]; the former matches [*StreamLimitReachedError] too.
func (c *Conn) OpenStream() (*Stream, error) {
	raw, err := open(c, outgoing, c.raw.OpenStream)
	if err != nil {
		return nil, err
	}
	return newStream(c, outgoing, raw), nil
}

// OpenStreamSync opens a bidirectional stream. At the peer's limit, and at
// Guard.MaxOutgoingStreams, it blocks until a slot is free, ctx is done or the
// connection has ended. If ctx ended the wait, the error is a [*LimitError]
// that matches ctx.Err() and says who holds the slots.
func (c *Conn) OpenStreamSync(ctx context.Context) (*Stream, error) {
	raw, err := openSync(ctx, c, outgoing, c.raw.OpenStream, c.raw.OpenStreamSync)
	if err != nil {
		return nil, err
	}
	return newStream(c, outgoing, raw), nil
}

// OpenUniStream is [Conn.OpenStream] for a unidirectional stream.
func (c *Conn) OpenUniStream() (*SendStream, error) {
	raw, err := open(c, outgoingUni, c.raw.OpenUniStream)
	if err != nil {
		return nil, err
	}
	return newSendStream(c, raw), nil
}

// OpenUniStreamSync is [Conn.OpenStreamSync] for a unidirectional stream.
func (c *Conn) OpenUniStreamSync(ctx context.Context) (*SendStream, error) {
	raw, err := openSync(ctx, c, outgoingUni, c.raw.OpenUniStream, c.raw.OpenUniStreamSync)
	if err != nil {
		return nil, err
	}
	return newSendStream(c, raw), nil
}

// AcceptStream returns the next bidirectional stream that the peer opened. It
// blocks until there is one, ctx is done or the connection has ended.
//
// During Shutdown it fails with [ErrShutdown].
func (c *Conn) AcceptStream(ctx context.Context) (*Stream, error) {
	raw, err := accept(ctx, c, c.raw.AcceptStream)
	if err != nil {
		return nil, err
	}
	return newStream(c, incoming, raw), nil
}

// AcceptUniStream is [Conn.AcceptStream] for a unidirectional stream.
func (c *Conn) AcceptUniStream(ctx context.Context) (*ReceiveStream, error) {
	raw, err := accept(ctx, c, c.raw.AcceptUniStream)
	if err != nil {
		return nil, err
	}
	return newReceiveStream(c, raw), nil
}

// accept accepts a stream, but refuses it once Shutdown has begun.
func accept[S receiver](ctx context.Context, c *Conn, next func(context.Context) (S, error)) (none S, err error) {
	if c.draining.Err() != nil && c.raw.Context().Err() == nil {
		return none, ErrShutdown
	}
	raw, err := next(ctx)
	if err != nil {
		return none, err
	}
	if c.draining.Err() != nil {
		refuse(raw, c.guard.Codes.Shutdown)
		return none, ErrShutdown
	}
	return raw, nil
}

// refuse ends a stream that the program is not shown, so that it holds no
// slot. It is not counted.
func refuse(raw receiver, code quic.StreamErrorCode) {
	if s, ok := raw.(sender); ok {
		s.CancelWrite(code)
	}
	raw.CancelRead(code)
	raw.ReleaseStreamCredit()
}

// CloseWithError closes the connection at once, as quic-go's does: data that
// the peer has not acknowledged yet is lost. When it returns, all streams have
// ended and the counts are down. Calling it again, and after the connection
// has ended, has no effect.
func (c *Conn) CloseWithError(code ApplicationErrorCode, desc string) error {
	err := c.raw.CloseWithError(code, desc)
	c.end()
	return err
}

// NextConnection makes the connection usable after the server rejected 0-RTT.
// It blocks until the handshake has completed, ctx is done or the connection
// has ended. It returns c itself; the streams of the rejected phase have ended.
func (c *Conn) NextConnection(ctx context.Context) (*Conn, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.raw.Context().Done():
		return nil, context.Cause(c.raw.Context())
	case <-c.raw.HandshakeComplete():
	}
	// It is known now whether 0-RTT was rejected. If so, the streams that there
	// are belong to the rejected phase, as long as quic-go's NextConnection has
	// not let new ones be opened.
	c.next.Lock()
	defer c.next.Unlock()
	if c.rejected0RTT() {
		c.phase.Add(1)
		for _, st := range c.all() {
			st.connectionEnded()
		}
	}
	if _, err := c.raw.NextConnection(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// rejected0RTT asks quic-go whether it refuses opens because of a rejection:
// with a context that is done it opens nothing, and says that first.
func (c *Conn) rejected0RTT() bool {
	done, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := c.raw.OpenStreamSync(done)
	return errors.Is(err, quic.Err0RTTRejected)
}

// AddPath adds a path to the connection, through t. See [quic.Conn.AddPath].
func (c *Conn) AddPath(t *Transport) (*Path, error) { return c.raw.AddPath(t.Unwrap()) }

// ConnectionState is quic-go's [quic.Conn.ConnectionState].
func (c *Conn) ConnectionState() ConnectionState { return c.raw.ConnectionState() }

// ConnectionStats is quic-go's [quic.Conn.ConnectionStats]. For the streams
// see [Conn.Stats].
func (c *Conn) ConnectionStats() ConnectionStats { return c.raw.ConnectionStats() }

// Context returns a context that is cancelled when the connection has ended,
// with the error that ended it as its cause.
func (c *Conn) Context() context.Context { return c.raw.Context() }

// HandshakeComplete is quic-go's [quic.Conn.HandshakeComplete].
func (c *Conn) HandshakeComplete() <-chan struct{} { return c.raw.HandshakeComplete() }

// LocalAddr returns the local address of the connection.
func (c *Conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr returns the address of the peer.
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// QlogTrace is quic-go's [quic.Conn.QlogTrace].
func (c *Conn) QlogTrace() qlogwriter.Trace { return c.raw.QlogTrace() }

// SendDatagram is quic-go's [quic.Conn.SendDatagram].
func (c *Conn) SendDatagram(p []byte) error { return c.raw.SendDatagram(p) }

// ReceiveDatagram is quic-go's [quic.Conn.ReceiveDatagram].
func (c *Conn) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	return c.raw.ReceiveDatagram(ctx)
}
