package quiclife

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// NetConn returns a [net.Conn] over the stream, for code that expects one. Use
// either it or the stream's own methods to read, write and close; Release of
// the stream may follow. It has net.Conn's own meaning:
//
//   - Close ends both halves. Blocked Reads and Writes return [net.ErrClosed],
//     as do later calls. What was written before arrives, unless a Write was
//     blocked by the peer or cut short: then the stream is reset, and Close
//     returns [ErrWriteCut] (see [Stream.Close]).
//   - CloseWrite ends the send half (the peer reads io.EOF), CloseRead the
//     receive half (the peer's Write fails), as [net.TCPConn] has them. After
//     them Write and Read return [net.ErrClosed], unless the peer ended that
//     half first.
//   - Read returns io.EOF after the peer's FIN, and its [*StreamError] after a
//     reset. Deadlines give [os.ErrDeadlineExceeded].
//
// What differs from a TCP connection: the peer learns of a stream only when
// something is written to it, so the side that opens it has to write first. All
// streams of a connection have the same addresses. Closing with data unread
// does not reset the send half. The connection's CloseWithError loses what is
// not acknowledged, as [Conn.Shutdown] does not.
func (s *Stream) NetConn() net.Conn { return &netConn{s: s} }

type netConn struct {
	s      *Stream
	closed atomic.Bool // by Close, here
}

// err is what a net.Conn returns for err: net.ErrClosed for all ends by this side.
func (c *netConn) err(err error) error {
	if local, ok := errors.AsType[*StreamError](err); ok && !local.Remote || err == ErrStreamClosed || err != nil && c.closed.Load() {
		return net.ErrClosed
	}
	return err
}

func (c *netConn) Read(p []byte) (int, error) {
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.s.Read(p)
	return n, c.err(err)
}

func (c *netConn) Write(p []byte) (int, error) {
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.s.Write(p)
	return n, c.err(err)
}

func (c *netConn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	err := c.s.Close()
	c.s.Release()
	if err != ErrWriteCut {
		return nil // that the peer stopped reading is no failure of Close, as with TCP
	}
	return err
}

func (c *netConn) CloseWrite() error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return c.s.Close()
}

func (c *netConn) CloseRead() error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	c.s.CancelRead(c.s.st.conn.guard.Codes.Release)
	return nil
}

func (c *netConn) LocalAddr() net.Addr                { return c.s.st.conn.LocalAddr() }
func (c *netConn) RemoteAddr() net.Addr               { return c.s.st.conn.RemoteAddr() }
func (c *netConn) SetDeadline(t time.Time) error      { return c.setDeadline(c.s.SetDeadline, t) }
func (c *netConn) SetReadDeadline(t time.Time) error  { return c.setDeadline(c.s.SetReadDeadline, t) }
func (c *netConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(c.s.SetWriteDeadline, t) }

func (c *netConn) setDeadline(set func(time.Time) error, t time.Time) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return set(t)
}

// Listener returns a [net.Listener] whose Accept returns the bidirectional
// streams that the peer opens, as net.Conns (see [Stream.NetConn]), for servers
// that expect one. Its Addr is the connection's local address. Accept fails
// with [net.ErrClosed] once it is closed, with [ErrShutdown] once Shutdown has
// begun, and with the connection's error, which is net.ErrClosed too, once
// that has ended. Close leaves the connection and its streams as they are: an
// Accept that begins after it returns none, not even one that is queued.
func (c *Conn) Listener() net.Listener {
	l := &netListener{conn: c}
	l.open, l.stop = context.WithCancel(c.draining)
	return l
}

type netListener struct {
	conn *Conn
	open context.Context // done once closed, or shutting down
	stop context.CancelFunc
	once sync.Once
}

func (l *netListener) Accept() (net.Conn, error) {
	s, err := acceptUntil(l.open, l.conn.AcceptStream)
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

func (l *netListener) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		l.stop()
		err = nil
	})
	return err
}

func (l *netListener) Addr() net.Addr { return l.conn.LocalAddr() }
