package quiclife

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// A NetConn is a bidirectional stream as a [net.Conn]. Its methods mean what
// they mean in net.Conn:
//
//   - Close ends both halves. Blocked and later calls of Read and Write return
//     [net.ErrClosed]. What was written before arrives, unless a Write was
//     blocked by the peer or cut short: then the stream is reset, and Close
//     returns [ErrWriteCut] (see [Stream.Close]).
//   - CloseWrite ends the send half (the peer reads io.EOF), and CloseRead ends
//     the receive half (the peer's Write fails), as for [net.TCPConn]. After
//     CloseWrite, Write returns [net.ErrClosed]; after CloseRead, Read does. If
//     the peer ended the half first, its error is returned instead.
//   - Read returns io.EOF after the peer's FIN, and a [*StreamError] after the
//     peer's reset. After a deadline, calls return [os.ErrDeadlineExceeded]. If
//     a bound context has reset the stream, they return the context's errors
//     (see [Stream.BindContext]).
//
// Some things differ from a TCP connection. The peer learns of a stream only
// when something is written to it, so the side that opens the stream has to
// write first. All streams of a connection have the same addresses. Closing
// with unread data does not reset the send half. CloseWithError of the Conn
// loses data that is not acknowledged; [Conn.Shutdown] does not.
//
// All methods may be called from any goroutine.
type NetConn struct {
	s      *Stream
	closed atomic.Bool // Close was called
}

var _ net.Conn = (*NetConn)(nil)

// NetConn returns the stream as a [net.Conn], for code that expects one. To
// read, write and close, use either the NetConn or the stream's own methods,
// not both. A Release of the stream may follow.
func (s *Stream) NetConn() *NetConn { return &NetConn{s: s} }

// Stream returns the stream of c: to get its Conn and information about the
// peer, or for BindContext and Info.
func (c *NetConn) Stream() *Stream { return c.s }

// err converts an error of the stream to that of a net.Conn. If this side has
// ended the half, it is net.ErrClosed, unless a bound context did so.
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
		return nil // as with TCP, it is no error of Close that the peer stopped reading
	}
	return err
}

// CloseWrite ends the send half, as [Stream.Close] does, with the same errors.
// It does not block, and leaves the receive half alone. After Close it returns
// [net.ErrClosed].
func (c *NetConn) CloseWrite() error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return c.s.Close()
}

// CloseRead ends the receive half: it asks the peer to stop sending, with
// Codes.Release. It does not block. After Close it returns [net.ErrClosed].
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

// DialContext opens a bidirectional stream and returns it as a [net.Conn]. It
// has the signature that [net/http.Transport] and others expect. It ignores
// network and addr, because all streams lead to the peer of c. It blocks as
// [Conn.OpenStreamSync] does, with the same errors. ctx ends the wait for a
// slot, and has no effect afterwards. The peer learns of the stream when the
// first byte is written.
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
