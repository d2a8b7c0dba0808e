package quiclife

import (
	"context"
	"errors"
	"math"
	"net"
	"sync"
	"sync/atomic"
)

// net.Listeners whose connections are streams: those of one connection, and
// those of all connections of a Listener.

// NetListener returns a [net.Listener] for the bidirectional streams that the
// peer opens on c. It is for servers that expect a net.Listener. For the
// streams of all connections of a listener see [Listener.NetListener].
//
// Accept returns streams as [*NetConn]s. It blocks until there is one, the
// NetListener is closed, Shutdown has begun or the connection has ended. Then
// it fails: with [net.ErrClosed], with [ErrShutdown], or with the connection's
// error, which matches net.ErrClosed too.
//
// Close unblocks Accept. It does not close the connection or its streams. An
// Accept that begins after Close returns no stream, not even one that is
// queued. Closing again returns net.ErrClosed. Addr returns the connection's
// local address.
func (c *Conn) NetListener() net.Listener {
	l := &connListener{conn: c}
	l.open, l.stop = context.WithCancel(c.draining)
	return l
}

type connListener struct {
	conn *Conn
	open context.Context // done once l is closed or Shutdown has begun
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

// NetListener returns a [net.Listener] for the bidirectional streams that the
// peers open on all connections of l. Its Accept returns them as [*NetConn]s.
// It is for servers that expect a net.Listener:
//
//	err := httpServer.Serve(ln.NetListener())
//
// A server gets the connection, and so the peer's certificate, from the
// net.Conn:
//
//	conn.(*quiclife.NetConn).Stream().Conn().ConnectionState().TLS.PeerCertificates
//
// The NetListener accepts the connections of l itself. Until it is closed,
// Accept, Serve and another NetListener of l return an error. If one of them
// already uses l, Accept of the new NetListener returns an error.
//
// From its first Accept on, the NetListener runs one goroutine for l and one
// for each connection. It runs one more for each connection whose peer may open
// unidirectional streams. Nobody handles these streams: they are refused with
// Codes.Refused, as by [Handlers] without a UniStream function. To forbid them,
// set Config.MaxIncomingUniStreams to -1.
//
// Accept blocks until there is a stream or the listener is closed. Connections
// that have a stream waiting take turns. A stream counts against
// Guard.MaxStreams until it has ended. The end of one connection never makes
// Accept fail. Accept fails with [net.ErrClosed] once the NetListener is
// closed. It fails with [ErrServerClosed], which matches net.ErrClosed too,
// once l was closed by its own Close or by [Guard.Shutdown].
// [net/http.Server.Serve] then returns that error, or http.ErrServerClosed if
// its own Shutdown has begun. If the transport fails, Accept fails with the
// transport's error.
//
// Close closes l, and unblocks Accept. The net.Conns that Accept has returned
// stay open, and Close does not wait for them. All other streams are refused
// with Codes.Refused, including those that wait to be accepted. Once no stream
// of a connection is open, the connection is shut down as [Conn.Shutdown] does
// it, so that what was written arrives. This takes at most Guard.DrainTimeout.
// To wait for all this, call Guard.Shutdown. Closing again returns
// net.ErrClosed. The Close of l and Guard.Shutdown have the same effect on the
// connections.
//
// Addr returns the address of l.
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
	busy    bool // made while l had another user
	streams chan net.Conn
	open    context.Context         // done once Accept returns no more streams
	end     context.CancelCauseFunc // its argument is the error of Accept
	started sync.Once
	closed  atomic.Bool
}

// start starts run, unless l has another user. It is also called when l is
// closed: run then accepts the connections that are still queued and closes
// them, so that nobody else has to.
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

// run accepts connections until l is closed. It has its own goroutine.
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

// serve hands out the streams of a connection. Once the listener is closed, it
// refuses new streams, and closes the connection when the last stream has
// ended. If Shutdown was called, it leaves that to Shutdown. It has its own
// goroutine.
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
	if c.draining.Err() == nil { // else a Shutdown is in progress, which may have more time
		c.drainFor(c.guard.drainTimeout())
	}
}

// handOut hands streams to Accept until the listener is closed, Shutdown is
// called or the connection has ended.
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

// give hands one stream to Accept. If ctx is done first, it refuses the stream:
// no server has seen it yet.
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
