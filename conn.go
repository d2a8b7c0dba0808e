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

// A Conn is a QUIC connection that tracks its streams. It has all methods of
// quic-go's [quic.Conn], with the same meaning. It counts the streams that it
// opens and accepts until both of their halves have ended, and ends those that
// the program has dropped.
//
// All methods may be called from any goroutine.
type Conn struct {
	raw   *quic.Conn
	guard *Guard
	// lifetime is done when the connection has ended, and not before.
	// raw.Context may be done earlier: when the context that a ConnContext
	// returned is done.
	lifetime  context.Context
	admission *admission      // nil if dialed or wrapped
	owned     *ownedTransport // the transport of the listener that accepted c, or nil
	start     time.Time       // the time 0 of now
	// inBubble says that c was made inside a testing/synctest bubble. No
	// goroutine from outside may touch channels of the bubble.
	inBubble  bool
	collector *collector
	// creditRequired says that Config.RequireStreamCreditRelease was set.
	creditRequired bool
	// draining is done once Shutdown has begun, which calls drain.
	draining context.Context
	drain    context.CancelFunc
	arrived  atomic.Bool // Shutdown has found that everything is acknowledged
	// For package leaktest. accepted: somebody has called accept for streams of
	// this kind. unwrapped: the program has, or had, quic-go's connection.
	accepted  [numKinds]atomic.Bool
	unwrapped atomic.Bool

	queue sendQueue // what the streams have queued (see write.go)

	endOnce sync.Once
	sampler sampler      // for Shutdown
	next    sync.Mutex   // serializes NextConnection after the handshake
	phase   atomic.Int32 // counts rejections of 0-RTT, after each of which stream IDs start again

	handlers [numKinds]atomic.Pointer[stack] // the handlers of Serve, also after it has returned

	accepting    atomic.Int32 // calls of AcceptStream and AcceptUniStream in progress
	stallWatched atomic.Bool  // a look for a stall is due within stallInterval

	mu      sync.Mutex // guards the fields below
	kinds   [numKinds]registry
	owing   streamList // incoming streams that have ended but whose credit was not returned
	ended   bool
	folded  bool // added to the totals of the group
	serving bool
	drained chan struct{} // not nil if somebody waits for the last stream to end
	cut     []StreamInfo  // streams cut by Shutdown, or by the connection's end during it
	given   int64         // detached streams whose send half is open, as far as quic-go shows

	timer   *time.Timer   // sweeps the streams (see timeouts.go)
	sweepAt time.Duration // when timer fires, or 0 if it is not pending
	spare   time.Duration // a sweep before this time would cost too much

	drainAt    time.Duration // when streams are drained next
	drainPace  pace.Backoff
	discarding bool // a drain is in progress

	asking pace.Backoff // for garbage collections, when slots are short
	asked  bool         // a collection was asked for and has not run yet

	stallAt     time.Duration // when to look for a stall (see stall.go), or 0 if nobody is blocked
	stallAsking pace.Backoff  // for collections in a stall
	stalled     bool
	moved       int64 // what trafficLocked returned last
}

// Wrap takes over a connection that was made with quic-go itself, under
// [DefaultGuard]. See [Guard.Wrap].
func Wrap(raw *quic.Conn, conf *Config) *Conn { return DefaultGuard.Wrap(raw, conf) }

// Wrap takes over a connection that was made with quic-go itself. conf is the
// Config that raw was made with. If the server has a GetConfigForClient, pass
// the Config that GetConfigForClient returned. nil means quic-go's defaults.
// Wrap reads the limits on incoming streams and RequireStreamCreditRelease from
// conf.
//
// Wrap does not block. Streams that were opened or accepted through raw, before
// or after Wrap, are not counted, and Shutdown does not wait for them. Wrapping
// a connection that has ended is fine: the methods of the Conn fail as
// quic-go's do. Wrap takes the connection to have ended when its Context is
// done. Wrapping one connection twice makes two Conns, each with its own
// streams.
func (g *Guard) Wrap(raw *quic.Conn, conf *Config) *Conn {
	if raw == nil {
		panic("quiclife: Wrap of a nil connection")
	}
	g.countConn()
	c := g.wrap(raw, termsOf(conf), nil, nil)
	c.handedOut()
	return c
}

// wrap is Wrap for a connection that is already counted. a is its admission, or
// nil.
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
	// Inside a bubble, time.Now has no monotonic clock reading. Round(0) strips
	// the reading, and == compares it.
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

// now is the age of c. It is the clock for the times of its streams.
func (c *Conn) now() time.Duration { return time.Since(c.start) }

// end ends all streams after the connection has ended. They have ended when it
// returns, even if another call is doing the work.
func (c *Conn) end() { c.endOnce.Do(c.endAll) }

func (c *Conn) endAll() {
	c.mu.Lock()
	c.ended = true
	c.watchOwingLocked()
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

// closedLocally reports whether err is that of a connection that this side has
// closed.
func closedLocally(err error) bool {
	if e, ok := errors.AsType[*ApplicationError](err); ok {
		return !e.Remote
	}
	e, ok := errors.AsType[*TransportError](err)
	return ok && !e.Remote
}

// endIfClosed ends the streams if raw has ended but the AfterFunc of wrap has
// not run yet. So the counts are exact at all times.
func (c *Conn) endIfClosed() {
	if c.lifetime.Err() != nil {
		c.end()
	}
}

// Unwrap returns quic-go's own connection, for packages that require it.
// quiclife does not track streams that are opened or accepted through it: they
// are not counted and never reclaimed. Shutdown does not wait for them, so end
// them first. Unwrap of a nil Conn, such as one that came with an error,
// returns nil.
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

// OpenStream opens a bidirectional stream. It does not block. The peer learns
// of the stream when something is sent on it.
//
// At the peer's limit, and at Guard.MaxOutgoingStreams, it fails with a
// [*LimitError]. At the peer's limit, the error matches
// [*StreamLimitReachedError] too. During Shutdown it fails with [ErrShutdown].
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
// that matches ctx.Err() and says who holds the slots. During Shutdown it fails
// with [ErrShutdown].
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
// blocks until there is one, ctx is done or the connection has ended. As in
// quic-go, a stream that is already queued is returned even if ctx is done.
//
// During Shutdown it fails with [ErrShutdown].
func (c *Conn) AcceptStream(ctx context.Context) (*Stream, error) {
	raw, err := accept(ctx, c, incoming, c.raw.AcceptStream)
	if err != nil {
		return nil, err
	}
	return newStream(c, incoming, raw, false), nil
}

// AcceptUniStream is [Conn.AcceptStream] for a unidirectional stream.
func (c *Conn) AcceptUniStream(ctx context.Context) (*ReceiveStream, error) {
	raw, err := accept(ctx, c, incomingUni, c.raw.AcceptUniStream)
	if err != nil {
		return nil, err
	}
	return newReceiveStream(c, raw, false), nil
}

// accept accepts a stream, but refuses it once Shutdown has begun.
func accept[S receiver](ctx context.Context, c *Conn, k kind, next func(context.Context) (S, error)) (none S, err error) {
	if c.draining.Err() != nil && c.lifetime.Err() == nil {
		return none, ErrShutdown
	}
	c.accepts(k)
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

// CloseWithError closes the connection at once, as in quic-go. Data that the
// peer has not acknowledged yet may be lost. When it returns, all streams have
// ended and none is counted as open. Calling it again, or after the connection
// has ended, has no effect.
func (c *Conn) CloseWithError(code ApplicationErrorCode, desc string) error {
	err := c.closeRaw(code, desc)
	c.end()
	<-c.whenDrained() // some streams may just be ending elsewhere, which does not block
	return err
}

// closeRaw is quic-go's CloseWithError, but always waits for the end of the
// connection. quic-go's does not if the connection's context was done before.
func (c *Conn) closeRaw(code ApplicationErrorCode, desc string) error {
	err := c.raw.CloseWithError(code, desc)
	<-c.lifetime.Done()
	return err
}

// NextConnection makes the connection usable again after the server rejected
// 0-RTT. It blocks until the handshake has completed, ctx is done or the
// connection has ended. It returns c itself. When it returns, the streams that
// were opened before the rejection have ended.
func (c *Conn) NextConnection(ctx context.Context) (*Conn, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.lifetime.Done():
		return nil, context.Cause(c.lifetime)
	case <-c.raw.HandshakeComplete():
	}
	// It is known now whether 0-RTT was rejected. If so, all streams were
	// opened before the rejection: new ones can be opened only after quic-go's
	// NextConnection.
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

// rejected0RTT asks quic-go whether it refuses to open streams because 0-RTT
// was rejected. With a context that is done, OpenStreamSync opens nothing, and
// reports a rejection before the context's error.
func (c *Conn) rejected0RTT() bool {
	done, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := c.raw.OpenStreamSync(done)
	return errors.Is(err, quic.Err0RTTRejected)
}

// AddPath adds a path through t to the connection. See [quic.Conn.AddPath].
func (c *Conn) AddPath(t *Transport) (*Path, error) { return c.raw.AddPath(t.Unwrap()) }

// ConnectionState is quic-go's [quic.Conn.ConnectionState].
func (c *Conn) ConnectionState() ConnectionState { return c.raw.ConnectionState() }

// ConnectionStats is quic-go's [quic.Conn.ConnectionStats]. For the streams
// see [Conn.Stats].
func (c *Conn) ConnectionStats() ConnectionStats { return c.raw.ConnectionStats() }

// Context returns a context that is done when the connection has ended. Its
// cause is the error that ended the connection. If there is a
// [Transport.ConnContext], the context is derived from the one that ConnContext
// returned, and is also done when that one is done. That ends neither the
// connection nor its streams.
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
