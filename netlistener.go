package quiclife

import (
	"context"
	"errors"
	"math"
	"net"
	"sync"
	"sync/atomic"
)

// Streams for servers that expect a net.Listener: those of one connection, and
// those of all connections of a Listener.

// NetListener returns a [net.Listener] whose Accept returns the bidirectional
// streams that the peer opens, as [*NetConn]s, for servers that expect one. Its
// Addr is the connection's local address. Accept fails
// with [net.ErrClosed] once it is closed, with [ErrShutdown] once Shutdown has
// begun, and with the connection's error, which is net.ErrClosed too, once
// that has ended. Close leaves the connection and its streams as they are: an
// Accept that begins after it returns none, not even one that is queued. Closing
// again returns net.ErrClosed. For all connections of a listener at once see
// [Listener.NetListener].
func (c *Conn) NetListener() net.Listener {
	l := &connListener{conn: c}
	l.open, l.stop = context.WithCancel(c.draining)
	return l
}

type connListener struct {
	conn *Conn
	open context.Context // done once closed, or shutting down
	stop context.CancelFunc
	once sync.Once
}

func (l *connListener) Accept() (net.Conn, error) {
	s, err := l.conn.acceptHandled(l.open)
	if errors.Is(err, context.Canceled) {
		if l.conn.draining.Err() != nil {
			return nil, ErrShutdown
		}
		return nil, net.ErrClosed
	}
	if err != nil {
		return nil, err
	}
	return s.NetConn(), nil
}

func (l *connListener) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		l.stop()
		err = nil
	})
	return err
}

func (l *connListener) Addr() net.Addr { return l.conn.LocalAddr() }

// NetListener returns a [net.Listener] whose Accept returns the bidirectional
// streams of all connections, as [*NetConn]s, for servers that expect one:
//
//	err := httpServer.Serve(ln.NetListener())
//
// A server finds the connection, and so the peer's certificate, in the net.Conn:
//
//	conn.(*quiclife.NetConn).Stream().Conn().ConnectionState().TLS.PeerCertificates
//
// It accepts the connections of l itself, so l must not be used by Accept, Serve
// or another NetListener until it is closed; they return an error. If one of
// them uses l now, it is the Accept of the NetListener that does. From its first
// Accept on it has a goroutine for l and one for each connection, and one more
// for each whose peer may open unidirectional streams. Nobody handles those: they
// are refused with Codes.Refused, as [Handlers] without a func does. To forbid
// them, set Config.MaxIncomingUniStreams to -1.
//
// Accept blocks until there is a stream or the listener is closed. Connections
// that wait for it take turns. The streams count against Guard.MaxStreams until
// they have ended. What happens to one connection never ends it.
// It fails with [net.ErrClosed] once the NetListener is closed, and with
// [ErrServerClosed], which is a net.ErrClosed too, once l was closed by its own
// Close or by [Guard.Shutdown]; [net/http.Server.Serve] returns that error then,
// or http.ErrServerClosed if its own Shutdown has begun. A transport that fails
// ends it with the transport's error.
//
// Close closes l, and unblocks Accept. The net.Conns that were given out live
// on, and Close does not wait for them. Further streams are refused with Codes.Refused, also
// those that nobody has accepted yet. A connection is closed when none of its
// streams is open any more, as [Conn.Shutdown] does it, within
// Guard.DrainTimeout: what was written arrives. Call Guard.Shutdown to wait for
// that. Closing again returns net.ErrClosed. The Close of l, and Guard.Shutdown,
// have the same effect on the connections.
//
// Addr is that of l.
func (l *Listener) NetListener() net.Listener {
	n := &netListener{l: l.l, streams: make(chan net.Conn)}
	n.open, n.end = context.WithCancelCause(context.Background())
	if err := l.l.begin(byNetListener); err != nil {
		n.busy = true
		n.end(err)
	} else {
		l.l.whenClosed(n.start)
	}
	return n
}

type netListener struct {
	l       *listener
	busy    bool // made while something else used l
	streams chan net.Conn
	open    context.Context         // until no stream is handed out any more
	end     context.CancelCauseFunc // with what Accept fails with
	started sync.Once
	closed  atomic.Bool
}

// start has connections accepted. Once l is closed, those that were waiting
// are, and then it ends: so nobody else has to close them.
func (n *netListener) start() {
	if !n.busy {
		n.started.Do(func() { go n.run() })
	}
}

func (n *netListener) Accept() (net.Conn, error) {
	n.start()
	if n.open.Err() != nil {
		return nil, context.Cause(n.open)
	}
	select {
	case c := <-n.streams:
		return c, nil
	case <-n.open.Done():
		return nil, context.Cause(n.open)
	}
}

func (n *netListener) Close() error {
	switch {
	case n.closed.Swap(true):
		return net.ErrClosed
	case n.busy:
		return nil // l is not ours
	}
	n.end(net.ErrClosed)
	return n.l.close()
}

func (n *netListener) Addr() net.Addr { return n.l.raw.Addr() }

// run accepts connections. It is a goroutine of its own, until l is closed.
func (n *netListener) run() {
	defer n.l.finish()
	for {
		c, err := n.l.accept(context.Background())
		if err != nil {
			n.end(err)
			return
		}
		go n.serve(c)
	}
}

// serve hands out the streams of a connection, refuses those that come once the
// listener is closed, and closes the connection when the last of them has ended.
// It is a goroutine of its own. Where Shutdown was called, that does the rest.
func (n *netListener) serve(c *Conn) {
	ctx, stop := context.WithCancel(c.draining)
	defer stop()
	var refusing sync.WaitGroup
	if c.kinds[incomingUni].stats.Limit > 0 {
		refusing.Go(func() {
			refuseAll(ctx, c, incomingUni, math.MaxInt64, c.raw.AcceptUniStream, c.guard.Codes.Refused)
		})
	}
	n.handOut(ctx, c)
	refusing.Go(func() {
		refuseAll(ctx, c, incoming, math.MaxInt64, c.raw.AcceptStream, c.guard.Codes.Refused)
	})
	<-c.whenDrained()
	c.guard.awaitShutdown(c.draining.Done(), c.lifetime.Done())
	stop()
	refusing.Wait()
	if c.draining.Err() == nil { // else a Shutdown may have more time than we
		c.drainFor(c.guard.drainTimeout())
	}
}

// handOut hands out streams until the listener is closed, Shutdown is called or
// the connection has ended.
func (n *netListener) handOut(ctx context.Context, c *Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.open, cancel)()
	for {
		s, err := c.acceptHandled(ctx)
		if err != nil || !n.give(ctx, s) {
			return
		}
	}
}

// give hands out a stream, or refuses it, if ctx is done first. It was
// accepted, and no server has seen it yet.
func (n *netListener) give(ctx context.Context, s *Stream) bool {
	c := s.st.conn
	select {
	case n.streams <- s.NetConn():
		return true
	case <-ctx.Done():
	case <-c.lifetime.Done():
	}
	s.Reset(c.refusalCode())
	return false
}
