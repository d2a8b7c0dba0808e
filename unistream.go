package quiclife

import (
	"context"
	"runtime"
	"time"

	"github.com/quic-go/quic-go"
)

// A SendStream is a unidirectional stream opened by this side. Its methods work
// like those of [Stream]. A dropped SendStream may be a control stream, so it
// is left alone until slots of its kind are short.
type SendStream struct {
	handle
	raw *quic.SendStream
}

func newSendStream(c *Conn, raw *quic.SendStream) *SendStream {
	s := &SendStream{raw: raw}
	s.start(c, outgoingUni, raw, false)
	return s
}

// StreamID returns the stream ID.
func (s *SendStream) StreamID() StreamID { return s.raw.StreamID() }

// Conn is [Stream.Conn].
func (s *SendStream) Conn() *Conn { return s.st.conn }

// Write is [Stream.Write].
func (s *SendStream) Write(p []byte) (int, error) {
	n, err := s.st.write(p)
	runtime.KeepAlive(s)
	return n, err
}

// WriteWithLimit is [Stream.WriteWithLimit].
func (s *SendStream) WriteWithLimit(p []byte, limiter func(maxBytes int) int) (int, error) {
	n, err := s.st.writeWithLimit(p, limiter)
	runtime.KeepAlive(s)
	return n, err
}

// TryWriteAll is [Stream.TryWriteAll].
func (s *SendStream) TryWriteAll(p []byte) error {
	err := s.st.tryWriteAll(p)
	runtime.KeepAlive(s)
	return err
}

// Close is [Stream.Close]. It ends the stream.
func (s *SendStream) Close() error {
	err := s.st.close()
	runtime.KeepAlive(s)
	return err
}

// CancelWrite is [Stream.CancelWrite]. It ends the stream.
func (s *SendStream) CancelWrite(code StreamErrorCode) {
	s.st.cancelWrite(code)
	runtime.KeepAlive(s)
}

// Release is [Stream.Release]: if the stream was not closed before, it is
// reset.
func (s *SendStream) Release() {
	s.st.release(s.st.conn.guard.Codes.Release)
	runtime.KeepAlive(s)
}

// Reset is [Stream.Reset]: it aborts the stream, even after Close.
func (s *SendStream) Reset(code StreamErrorCode) {
	s.st.reset(code)
	runtime.KeepAlive(s)
}

// Info is [Stream.Info].
func (s *SendStream) Info() StreamInfo { return s.st.info() }

// Detach is [Stream.Detach].
func (s *SendStream) Detach() *quic.SendStream {
	s.st.detach()
	runtime.KeepAlive(s)
	return s.raw
}

// Context is [Stream.Context].
func (s *SendStream) Context() context.Context { return s.raw.Context() }

// SetPriority is quic-go's [quic.SendStream.SetPriority].
func (s *SendStream) SetPriority(urgency int8, incremental bool) {
	s.raw.SetPriority(urgency, incremental)
}

// SetReliableBoundary is [Stream.SetReliableBoundary].
func (s *SendStream) SetReliableBoundary() { s.st.setReliableBoundary() }

// SetWriteDeadline is [Stream.SetWriteDeadline].
func (s *SendStream) SetWriteDeadline(t time.Time) error { return s.st.setWriteDeadline(t) }

// A ReceiveStream is a unidirectional stream opened by the peer. Its methods
// work like those of [Stream]. A dropped ReceiveStream may be a control stream,
// so it is left alone until slots of its kind are short.
type ReceiveStream struct {
	handle
	raw *quic.ReceiveStream
}

func newReceiveStream(c *Conn, raw *quic.ReceiveStream, served bool) *ReceiveStream {
	s := &ReceiveStream{raw: raw}
	s.start(c, incomingUni, raw, served)
	s.st.watchFinalSize()
	return s
}

// StreamID returns the stream ID.
func (s *ReceiveStream) StreamID() StreamID { return s.raw.StreamID() }

// Conn is [Stream.Conn].
func (s *ReceiveStream) Conn() *Conn { return s.st.conn }

// Read is [Stream.Read]. Once all bytes up to the peer's FIN have been read,
// the stream has ended, even if nobody has read the io.EOF.
func (s *ReceiveStream) Read(p []byte) (int, error) {
	if err := s.st.willRead(); err != nil {
		return 0, err
	}
	n, err := s.raw.Read(p)
	err = s.st.didRead(n, len(p), err)
	runtime.KeepAlive(s)
	return n, err
}

// Peek is [Stream.Peek].
func (s *ReceiveStream) Peek(b []byte) (int, error) {
	if err := s.st.willRead(); err != nil {
		return 0, err
	}
	n, err := s.raw.Peek(b)
	err = s.st.didPeek(n, len(b), err)
	runtime.KeepAlive(s)
	return n, err
}

// CancelRead is [Stream.CancelRead]. It ends the stream.
func (s *ReceiveStream) CancelRead(code StreamErrorCode) {
	s.st.cancelRead(code)
	runtime.KeepAlive(s)
}

// Release is [Stream.Release]: if the receive half has not ended, it asks the
// peer to stop sending.
func (s *ReceiveStream) Release() {
	s.st.release(s.st.conn.guard.Codes.Release)
	runtime.KeepAlive(s)
}

// Reset is [Stream.Reset]: it does what CancelRead does, and returns the stream
// credit.
func (s *ReceiveStream) Reset(code StreamErrorCode) {
	s.st.reset(code)
	runtime.KeepAlive(s)
}

// Info is [Stream.Info].
func (s *ReceiveStream) Info() StreamInfo { return s.st.info() }

// Detach is [Stream.Detach].
func (s *ReceiveStream) Detach() *quic.ReceiveStream {
	s.st.detach()
	runtime.KeepAlive(s)
	return s.raw
}

// ReleaseStreamCredit is [Stream.ReleaseStreamCredit].
func (s *ReceiveStream) ReleaseStreamCredit() { s.st.returnCredit() }

// SetReceiveFinalSizeCallback is [Stream.SetReceiveFinalSizeCallback].
func (s *ReceiveStream) SetReceiveFinalSizeCallback(callback func(int64)) {
	s.st.setFinalSizeCallback(callback)
	runtime.KeepAlive(s)
}

// SetReadDeadline is [Stream.SetReadDeadline].
func (s *ReceiveStream) SetReadDeadline(t time.Time) error { return s.st.setReadDeadline(t) }
