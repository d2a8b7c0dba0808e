package quiclife

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// A NetConn is a stream as a [net.Conn]. It has net.Conn's own meaning:
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
//     reset. Deadlines give [os.ErrDeadlineExceeded]. A stream that a context has
//     reset gives the context's errors (see [Stream.BindContext]).
//
// What differs from a TCP connection: the peer learns of a stream only when
// something is written to it, so the side that opens it has to write first. All
// streams of a connection have the same addresses. Closing with data unread
// does not reset the send half. The connection's CloseWithError loses what is
// not acknowledged, as [Conn.Shutdown] does not.
//
// All methods may be called from any goroutine.
type NetConn struct {
	s      *Stream
	closed atomic.Bool // by Close, here
}

var _ net.Conn = (*NetConn)(nil)

// NetConn returns the stream as a [net.Conn], for code that expects one. Use
// either it or the stream's own methods to read, write and close; Release of
// the stream may follow.
func (s *Stream) NetConn() *NetConn { return &NetConn{s: s} }

// Stream returns the stream that c is made of: for its Conn and what that knows
// of the peer, for BindContext, for Info.
func (c *NetConn) Stream() *Stream { return c.s }

// err is what a net.Conn returns for err: net.ErrClosed for all ends by this
// side, but for those of a context.
func (c *NetConn) err(err error) error {
	if isCanceled(err) && !c.closed.Load() {
		return err
	}
	if local, ok := errors.AsType[*StreamError](err); ok && !local.Remote || err == ErrStreamClosed || err != nil && c.closed.Load() {
		return net.ErrClosed
	}
	return err
}

// Read reads data. It blocks as [Stream.Read] does, and returns when c is closed.
func (c *NetConn) Read(p []byte) (int, error) {
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.s.Read(p)
	return n, c.err(err)
}

// Write writes p. It blocks as [Stream.Write] does, and returns when c is closed.
func (c *NetConn) Write(p []byte) (int, error) {
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.s.Write(p)
	return n, c.err(err)
}

// Close ends both halves. It does not block. Called again it returns
// [net.ErrClosed].
func (c *NetConn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	err := c.s.Close()
	c.s.Release()
	if err != ErrWriteCut && !isCanceled(err) {
		return nil // that the peer stopped reading is no failure of Close, as with TCP
	}
	return err
}

// CloseWrite ends the send half, as [Stream.Close] does, with the same errors,
// and leaves the receive half alone. After Close it returns [net.ErrClosed].
func (c *NetConn) CloseWrite() error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return c.s.Close()
}

// CloseRead ends the receive half: the peer is asked to stop sending, with
// Codes.Release. After Close it returns [net.ErrClosed].
func (c *NetConn) CloseRead() error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	c.s.CancelRead(c.s.st.conn.guard.Codes.Release)
	return nil
}

// LocalAddr returns the local address of the connection.
func (c *NetConn) LocalAddr() net.Addr { return c.s.st.conn.LocalAddr() }

// RemoteAddr returns the address of the peer.
func (c *NetConn) RemoteAddr() net.Addr { return c.s.st.conn.RemoteAddr() }

// SetDeadline is [Stream.SetDeadline]. After Close it returns [net.ErrClosed].
func (c *NetConn) SetDeadline(t time.Time) error { return c.setDeadline(c.s.SetDeadline, t) }

// SetReadDeadline is SetDeadline for Read.
func (c *NetConn) SetReadDeadline(t time.Time) error { return c.setDeadline(c.s.SetReadDeadline, t) }

// SetWriteDeadline is SetDeadline for Write.
func (c *NetConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(c.s.SetWriteDeadline, t) }

func (c *NetConn) setDeadline(set func(time.Time) error, t time.Time) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return set(t)
}

// DialContext opens a stream as a [net.Conn], with the signature that
// [net/http.Transport] and others want. It waits for a slot as
// [Conn.OpenStreamSync] does, with the same errors, and ignores network and
// addr: all streams lead to the peer of c. ctx ends the wait, and has no say
// after it. The peer learns of the stream with the first byte that is written.
func (c *Conn) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if ctx == nil {
		return nil, errNilContext
	}
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	return s.NetConn(), nil
}
