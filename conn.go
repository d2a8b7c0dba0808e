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

	"github.com/quiclife/quiclife/internal/pace"
	"github.com/quiclife/quiclife/internal/quiet"
)

// A Conn is a QUIC connection that knows its streams. It has all methods of
// quic-go's [quic.Conn] with the same meaning; the streams that it opens and
// accepts are counted until both of their halves have ended, and come back
// when the program forgets them.
//
// All methods may be called from any goroutine.
type Conn struct {
	raw   *quic.Conn
	guard *Guard
	// lifetime is done when the connection has ended, not before: raw.Context
	// also ends with the one that a ConnContext returned.
	lifetime  context.Context
	admission *admission      // nil if dialed or wrapped
	owned     *ownedTransport // of the listener that accepted it, or nil
	start     time.Time       // zero of the stream times, see now
	// inBubble: made inside a testing/synctest bubble, whose channels no
	// goroutine from outside may touch.
	inBubble  bool
	collector *collector
	// creditRequired: Config.RequireStreamCreditRelease was set.
	creditRequired bool
	// draining is done from the start of Shutdown on, which calls drain.
	draining context.Context
	drain    context.CancelFunc
	arrived  atomic.Bool // Shutdown has found all acknowledged

	queue sendQueue // what the streams have queued (write.go)

	endOnce sync.Once
	sampler sampler      // for Shutdown
	next    sync.Mutex   // serializes NextConnection, once the handshake is complete
	phase   atomic.Int32 // counts rejections of 0-RTT, after which stream IDs begin anew

	handlers [numKinds]atomic.Pointer[stack] // that Serve has, or had

	accepting    atomic.Int32 // calls of AcceptStream and AcceptUniStream under way
	stallWatched atomic.Bool  // a look for a stall is due within stallInterval

	mu      sync.Mutex // guards the fields below
	kinds   [numKinds]registry
	owing   streamList // incoming streams that have ended, and whose credit was not returned
	ended   bool
	folded  bool // into the totals of the group
	serving bool
	drained chan struct{} // not nil if somebody waits for the last stream to end
	cut     []StreamInfo  // streams that Shutdown, or the connection's end during it, has cut
	given   int64         // detached streams whose send half is open, as far as quic-go tells

	timer   *time.Timer   // has the streams looked at (timeouts.go)
	sweepAt time.Duration // when it fires, 0: it is not pending
	spare   time.Duration // until then, looking again would cost too much

	drainAt    time.Duration // when streams are drained next
	drainPace  pace.Backoff
	discarding bool // they are being drained

	asking pace.Backoff // for garbage collections, when streams are short
	asked  bool         // a collection is to come

	stallAt     time.Duration // when to look for a stall (stall.go), 0: nobody is blocked
	stallAsking pace.Backoff  // for collections in a stall
	stalled     bool
	moved       int64 // what trafficLocked returned
}

// Wrap takes over a connection that was made with quic-go itself, under
// [DefaultGuard]. See [Guard.Wrap].
func Wrap(raw *quic.Conn, conf *Config) *Conn { return DefaultGuard.Wrap(raw, conf) }

// Wrap takes over a connection that was made with quic-go itself. conf is the
// Config that raw was made with: if there was a GetConfigForClient, what that
// returned. nil means quic-go's defaults, as it does there. Wrap reads the
// limits on incoming streams from it, and RequireStreamCreditRelease.
//
// Wrap does not block. Streams that were opened or accepted through raw, before
// or after, are not counted, and Shutdown does not know them. Wrapping a
// connection that has ended is fine: its methods fail as quic-go's do. The
// connection is taken to have ended when its context is done. Wrapping one
// connection twice makes two Conns, each with its own streams.
func (g *Guard) Wrap(raw *quic.Conn, conf *Config) *Conn {
	if raw == nil {
		panic("quiclife: Wrap of a nil connection")
	}
	g.countConn()
	c := g.wrap(raw, termsOf(conf), nil, nil)
	c.handedOut()
	return c
}

// wrap is Wrap for a connection that is counted already. a is its admission,
// or nil.
func (g *Guard) wrap(raw *quic.Conn, terms terms, a *admission, owned *ownedTransport) *Conn {
	c := &Conn{raw: raw, guard: g, lifetime: raw.Context(), admission: a, owned: owned, start: time.Now()}
	if a != nil {
		c.lifetime = a.lifetime
	}
	c.sampler.detector = quiet.New(c.start)
	if a != nil {
		c.sampler.detector = quiet.New(a.began)
	}
	c.draining, c.drain = context.WithCancel(context.Background())
	// Inside a bubble the time has no monotonic clock reading (time.Time's ==
	// compares it, Round(0) strips it).
	c.inBubble = c.start == c.start.Round(0)
	c.collector = g.collectorFor(c.inBubble)
	c.asking = pace.Backoff{First: 100 * time.Millisecond, Most: 2 * time.Minute}
	c.stallAsking = pace.Backoff{First: stallInterval, Most: 2 * time.Minute}
	c.drainPace = pace.Backoff{First: drainInterval, Most: maxDrainInterval}
	c.creditRequired = terms.creditRequired
	c.kinds[outgoing].limit(g.MaxOutgoingStreams)
	c.kinds[outgoingUni].limit(g.MaxOutgoingUniStreams)
	c.kinds[incoming].stats.Limit = terms.maxIncoming
	c.kinds[incomingUni].stats.Limit = terms.maxIncomingUni
	g.add(c)
	g.totals.connMade()
	c.collector.add(c)
	context.AfterFunc(c.lifetime, c.end)
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
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	c.collector.remove(c)
	c.stopLooking()
	c.guard.uncount(c)
	if c.owned != nil && closedLocally(context.Cause(c.lifetime)) {
		c.owned.linger(3 * c.pto())
	}
	open := c.all()
	if c.draining.Err() != nil {
		c.cutStreams(open)
	}
	for _, st := range open {
		st.connectionEnded()
	}
	c.foldIfEnded()
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
	if c.lifetime.Err() != nil {
		c.end()
	}
}

// Unwrap returns quic-go's own connection, for packages that insist on it.
// Streams that are opened or accepted through it are not ours: they are not
// counted, and never reclaimed. Shutdown does not know them, and does not wait
// for their end: end them first. Of a nil Conn, as comes with an error, it is nil.
func (c *Conn) Unwrap() *quic.Conn {
	if c == nil {
		return nil
	}
	c.handedOut()
	return c.raw
}

// Draining returns a channel that is closed when Shutdown begins, so that a
// protocol can tell its peer to open no more streams.
func (c *Conn) Draining() <-chan struct{} { return c.draining.Done() }

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
	return newStream(c, outgoing, raw, false), nil
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
	return newStream(c, outgoing, raw, false), nil
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
// blocks until there is one, ctx is done or the connection has ended. A stream
// that is queued is returned even if ctx is done, as quic-go does.
//
// During Shutdown it fails with [ErrShutdown].
func (c *Conn) AcceptStream(ctx context.Context) (*Stream, error) {
	raw, err := accept(ctx, c, c.raw.AcceptStream)
	if err != nil {
		return nil, err
	}
	return newStream(c, incoming, raw, false), nil
}

// AcceptUniStream is [Conn.AcceptStream] for a unidirectional stream.
func (c *Conn) AcceptUniStream(ctx context.Context) (*ReceiveStream, error) {
	raw, err := accept(ctx, c, c.raw.AcceptUniStream)
	if err != nil {
		return nil, err
	}
	return newReceiveStream(c, raw, false), nil
}

// accept accepts a stream, but refuses it once Shutdown has begun.
func accept[S receiver](ctx context.Context, c *Conn, next func(context.Context) (S, error)) (none S, err error) {
	if c.draining.Err() != nil && c.lifetime.Err() == nil {
		return none, ErrShutdown
	}
	c.accepting.Add(1)
	c.mayStall()
	raw, err := next(ctx)
	c.accepting.Add(-1)
	if err != nil {
		return none, err
	}
	if c.draining.Err() != nil {
		refuse(raw, c.guard.Codes.Shutdown)
		return none, ErrShutdown
	}
	return raw, nil
}

// CloseWithError closes the connection at once, as quic-go's does: data that
// the peer has not acknowledged yet is lost. When it returns, all streams have
// ended and the counts are down. Calling it again, and after the connection
// has ended, has no effect.
func (c *Conn) CloseWithError(code ApplicationErrorCode, desc string) error {
	err := c.closeRaw(code, desc)
	c.end()
	<-c.whenDrained() // those that are just being ended elsewhere, which does not block
	return err
}

// closeRaw is quic-go's CloseWithError, and waits for the end of the connection
// in any case: that does not, if its context ended before.
func (c *Conn) closeRaw(code ApplicationErrorCode, desc string) error {
	err := c.raw.CloseWithError(code, desc)
	<-c.lifetime.Done()
	return err
}

// NextConnection makes the connection usable after the server rejected 0-RTT.
// It blocks until the handshake has completed, ctx is done or the connection
// has ended. It returns c itself; the streams of the rejected phase have ended.
func (c *Conn) NextConnection(ctx context.Context) (*Conn, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.lifetime.Done():
		return nil, context.Cause(c.lifetime)
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
// with the error that ended it as its cause. It is derived from the one that
// [Transport.ConnContext] returned, if there is one, and ends with that too;
// which ends neither the connection nor its streams.
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
