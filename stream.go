package quiclife

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/quic-go/quic-go"
)

// sender and receiver are the halves of quic-go's stream types.
type sender interface {
	StreamID() quic.StreamID
	Context() context.Context
	TryWriteAll(p []byte) error
	WriteWithLimit(p []byte, limiter func(maxBytes int) int) (int, error)
	SetWriteDeadline(time.Time) error
	SetReliableBoundary()
	Close() error
	CancelWrite(quic.StreamErrorCode)
}

type receiver interface {
	StreamID() quic.StreamID
	Read(p []byte) (int, error)
	SetReadDeadline(time.Time) error
	SetReceiveFinalSizeCallback(func(int64))
	ReleaseStreamCredit()
	CancelRead(quic.StreamErrorCode)
}

// streamState is what we know about a stream. The registry, the timers and
// quic-go's final size callback refer to it. The program refers to a handle.
// Once the stream is no longer young (reclaim.go), only the program keeps the
// handle alive. So when the handle is gone, the program has dropped the stream.
type streamState struct {
	conn   *Conn
	raw    any           // quic-go's stream
	opened time.Duration // by conn.now, as all times here

	// guarded by conn.mu
	prev, next *streamState // in a streamList of conn
	young      *handle      // the handle, until weakenLocked moves it to old
	old        weak.Pointer[handle]

	written, read atomic.Int64
	finalSize     atomic.Int64  // final size of the receive half, or sizeUnknown
	readDeadline  atomic.Int64  // a time.Duration, or 0 for none
	writeDeadline time.Duration // or 0 for none; guarded by mu

	mu    sync.Mutex // guards extra, and the fields after it unless they say otherwise
	extra *extra     // nil for most streams

	reads    atomic.Int32 // calls of Read and Peek in all, to notice that there are new ones
	readers  atomic.Int32 // calls of Read and Peek in progress
	dropped  atomic.Bool  // the stream was found dropped
	draining atomic.Bool  // we read and discard the data

	kind   kind   // does not change
	phase  uint8  // conn.phase when the stream was opened
	served bool   // a handler of Serve has it; does not change
	queued uint16 // bytes since the last barrier (write.go); owned by the call that has the turn to write

	// guarded by conn.mu
	owing        bool // in conn.owing
	handled      bool // it counts against Guard.MaxStreams until it has ended
	unregistered bool // unregister was called
	credited     bool // the stream credit was returned, or is no longer ours to return
	cutNoted     bool // in conn.cut

	sendHalf    HalfState
	receiveHalf HalfState
	reported    bool // it was reported as a leak
	reclaimed   bool // a half was open when we ended the stream as a leak
	released    bool // Release ended it while a half was open and none aborted
	given       bool // Detach was called
	cut         bool // the last write took less than it was given
	closedCut   bool // cut was set when Close was called
	writing     writing
	closing     bool // Close waits for the writes that came before it
	boundary    bool // SetReliableBoundary was called
	unseenEOF   bool // consumeEOF has read an EOF that no Read has returned
}

// An extra has what few streams need. streamState.mu guards it.
type extra struct {
	stack     *stack        // where it was opened, if that was captured
	droppedAt time.Duration // when it was found dropped

	stopErr  *quic.StreamError // the peer's STOP_SENDING, which Close returns
	readErr  *quic.StreamError // what Read fails with after a CancelRead while unseenEOF was set
	drainErr *quic.StreamError // what Read fails with once we drain the receive half

	changed chan struct{} // closed when writing changes; nil if nobody waits for that
	turn    chan struct{} // passes the turn from one write to the next; nil if none ever waited
	waiting int           // writes that wait for their turn

	userFinalSize func(int64)
	unread, idle  watch // for HalfCloseTimeout and IdleTimeout

	unended *unended // for package leaktest

	bindings []*binding // one for each context that the stream is bound to
	canceled *canceled  // not nil if one of these contexts has reset it
}

// extraLocked makes the stream's extra if there is none.
func (st *streamState) extraLocked() *extra {
	if st.extra == nil {
		st.extra = &extra{}
	}
	return st.extra
}

// A handle is the part of Stream, SendStream and ReceiveStream that the
// registry watches with a weak pointer. It must not be copied: a copy would not
// keep the stream from being found dropped.
type handle struct {
	_  noCopy
	st *streamState
}

// noCopy makes go vet complain about copies.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// start makes h the handle of a new stream, and registers the stream. served
// says whether the stream is for a handler of Serve.
func (h *handle) start(c *Conn, k kind, raw any, served bool) {
	st := &streamState{conn: c, kind: k, served: served, phase: uint8(c.phase.Load()), raw: raw, opened: c.now(), young: h}
	st.finalSize.Store(sizeUnknown)
	if k.sends() {
		st.sendHalf = HalfOpen
	}
	if k.receives() {
		st.receiveHalf = HalfOpen
	}
	if g := c.guard; !served && (g.CaptureStacks || g.samples.next(st)) {
		st.extra = &extra{stack: callers(3, g.CaptureStacks)}
	}
	h.st = st
	c.register(st)
	c.watchSoon(c.guard.IdleTimeout)
}

// send and receive return the halves. The stream must have the half.
func (st *streamState) send() sender      { return st.raw.(sender) }
func (st *streamState) receive() receiver { return st.raw.(receiver) }

func (st *streamState) id() quic.StreamID {
	return st.raw.(interface{ StreamID() quic.StreamID }).StreamID()
}

// openerLocked returns who opened the stream, or nil if that is not known.
func (st *streamState) openerLocked() *stack {
	switch {
	case st.served:
		return st.conn.handlers[st.kind].Load()
	case st.extra != nil:
		return st.extra.stack
	}
	return nil
}

// A Stream is a bidirectional stream. It has all methods of quic-go's
// [quic.Stream], with the same meaning, and some more.
//
// The two halves end separately. The send half ends with Close or CancelWrite,
// or when Write returns an error. The receive half ends with CancelRead, or
// when Read returns io.EOF or another error. A timeout ends nothing. When both
// halves have ended, quic-go can free the stream. Release aborts each half that
// has not ended. It is made for defer:
//
//	str, err := conn.OpenStreamSync(ctx)
//	if err != nil {
//		return err
//	}
//	defer str.Release()
//
// If the program drops a stream that has not ended, a garbage collection finds
// it. It is then reported as a [Leak] and ended. See the package documentation.
//
// All methods may be called from any goroutine. Concurrent Writes wait for each
// other, and so do concurrent Reads.
type Stream struct {
	handle
	raw *quic.Stream
}

func newStream(c *Conn, k kind, raw *quic.Stream, served bool) *Stream {
	s := &Stream{raw: raw}
	s.start(c, k, raw, served)
	return s
}

// StreamID returns the stream ID.
func (s *Stream) StreamID() StreamID { return s.raw.StreamID() }

// Conn returns the connection of the stream. It works after the end of either.
func (s *Stream) Conn() *Conn { return s.st.conn }

// Read reads data into p. It blocks until there is some data, the peer ends its
// half (io.EOF after a FIN, a [*StreamError] after a reset), the read deadline
// passes, CancelRead, Release or Reset is called, or the connection ends. Read
// may return data and an error together.
func (s *Stream) Read(p []byte) (int, error) {
	if err := s.st.willRead(); err != nil {
		return 0, err
	}
	n, err := s.raw.Read(p)
	err = s.st.didRead(n, len(p), err)
	runtime.KeepAlive(s)
	return n, err
}

// Peek fills b with data without consuming it. It blocks like Read, but until
// all of b is filled. If it returns less, it also returns the error that
// stopped it.
func (s *Stream) Peek(b []byte) (int, error) {
	if err := s.st.willRead(); err != nil {
		return 0, err
	}
	n, err := s.raw.Peek(b)
	err = s.st.didPeek(n, len(b), err)
	runtime.KeepAlive(s)
	return n, err
}

// Write writes p. Up to 16 KiB of the stream and 256 KiB of the connection are
// queued for sending. If p does not fit, or the peer's window has no room for
// it, Write blocks until all of p has gone into packets. The write deadline
// ends the wait, and so does a call of CancelWrite, Close, Release or Reset, the
// peer's STOP_SENDING (a [*StreamError] with Remote set), or the end of the
// connection. Write returns how many bytes of p it took. These are sent even if
// there is an error, unless the stream is reset.
//
// If Write took less than p, the stream is cut: Close then resets the send
// half, unless a later Write takes all of its data.
func (s *Stream) Write(p []byte) (int, error) {
	n, err := s.st.write(p)
	runtime.KeepAlive(s)
	return n, err
}

// WriteWithLimit is quic-go's [quic.Stream.WriteWithLimit]. It blocks until all
// of p has gone into packets or limiter ends the call. Whatever ends a blocked
// Write also ends it. If it takes less than p, the stream is cut, as after
// Write.
func (s *Stream) WriteWithLimit(p []byte, limiter func(maxBytes int) int) (int, error) {
	n, err := s.st.writeWithLimit(p, limiter)
	runtime.KeepAlive(s)
	return n, err
}

// TryWriteAll queues all of p, or queues nothing and returns [ErrWouldBlock].
// It does not block, ignores the write deadline, and never leaves the stream
// cut. Only the peer's flow control window limits how much it queues.
func (s *Stream) TryWriteAll(p []byte) error {
	err := s.st.tryWriteAll(p)
	runtime.KeepAlive(s)
	return err
}

// Close ends the send half with a FIN: the peer reads everything that was
// written, then io.EOF. It does not end the receive half: go on reading, or
// call Release.
//
// Close does not wait for the peer. A Write in progress, and Writes that wait
// for it, complete at once: the rest of their data is queued. This fails if the
// peer's window is full, if a Write has more than 16 KiB left, or if the call
// is a WriteWithLimit. Then the Write fails, the send half is reset with
// Codes.Cut instead, and Close returns [ErrWriteCut]. The same happens if an
// earlier Write took less than it was given and was not continued.
//
// A Write after Close takes nothing and returns [ErrStreamClosed]. If the peer
// has sent STOP_SENDING, Close returns the peer's [*StreamError]. After
// CancelWrite, Release or the connection's end it returns nil. Closing again
// has no effect and returns the same.
func (s *Stream) Close() error {
	err := s.st.close()
	runtime.KeepAlive(s)
	return err
}

// CancelWrite aborts the send half: the peer's Read fails with code, and data
// that the peer has not read yet is lost, even after Close. A blocked Write
// returns. CancelWrite does not block. Calling it again has no effect.
func (s *Stream) CancelWrite(code StreamErrorCode) {
	s.st.cancelWrite(code)
	runtime.KeepAlive(s)
}

// CancelRead aborts the receive half and asks the peer to stop sending, with
// code. A blocked Read returns. CancelRead does not block. After io.EOF, or
// when called again, it has no effect.
func (s *Stream) CancelRead(code StreamErrorCode) {
	s.st.cancelRead(code)
	runtime.KeepAlive(s)
}

// Release says that the program is done with the stream. It aborts each half
// that has not ended, with Codes.Release: the peer sees RESET_STREAM if it is
// the send half, and STOP_SENDING if it is the receive half. It leaves a
// finished half alone: after Close, what was written still arrives. It returns
// the stream credit (see ReleaseStreamCredit). Blocked calls return.
//
// Release does not block. It may be called at any time and any number of times.
func (s *Stream) Release() {
	s.st.release(s.st.conn.guard.Codes.Release)
	runtime.KeepAlive(s)
}

// Reset aborts both halves with code at once. After Close, data that was not
// delivered yet is lost. Reset returns the stream credit. It does not block. If
// both halves were already aborted, it has no effect.
func (s *Stream) Reset(code StreamErrorCode) {
	s.st.reset(code)
	runtime.KeepAlive(s)
}

// Info returns a snapshot of the stream. It works after the end of the stream.
func (s *Stream) Info() StreamInfo { return s.st.info() }

// Detach returns quic-go's stream and stops tracking it. From then on the
// caller has to end it. The stream no longer counts as open and is never
// reclaimed. Release, Reset and the end of a handler have no effect on it. The
// other methods of s keep working; Close works as quic-go's does. Halves that
// have ended stay ended. Detach is atomic: a concurrent call finds the stream
// either tracked or detached. Shutdown waits until the send half of the stream
// has ended, and does not name the stream among those that it cuts.
func (s *Stream) Detach() *quic.Stream {
	s.st.detach()
	runtime.KeepAlive(s)
	return s.raw
}

// Context returns a context that is done when the send half has ended, whoever
// ended it. See [quic.Stream.Context]. A stream can be found dropped even if
// the program still holds its Context.
func (s *Stream) Context() context.Context { return s.raw.Context() }

// SetPriority is quic-go's [quic.Stream.SetPriority].
func (s *Stream) SetPriority(urgency int8, incremental bool) { s.raw.SetPriority(urgency, incremental) }

// SetReliableBoundary is quic-go's [quic.Stream.SetReliableBoundary]: what was
// written so far is delivered even if the stream is reset later. From then on,
// CancelWrite and Reset have no effect on a send half that was closed. A small
// Write waits until it is sent. Data that TryWriteAll queues may be delivered
// too.
func (s *Stream) SetReliableBoundary() { s.st.setReliableBoundary() }

// ReleaseStreamCredit returns the stream credit: once both halves have ended,
// the peer may open another stream in place of this one. It has an effect only
// with Config.RequireStreamCreditRelease, and only for streams that the peer
// opened. Release and Reset do the same.
func (s *Stream) ReleaseStreamCredit() { s.st.returnCredit() }

// SetReceiveFinalSizeCallback is quic-go's
// [quic.Stream.SetReceiveFinalSizeCallback]. The connection keeps callback
// alive until it has been called. If callback refers to the stream, the stream
// cannot be found dropped until then.
func (s *Stream) SetReceiveFinalSizeCallback(callback func(int64)) {
	s.st.setFinalSizeCallback(callback)
	runtime.KeepAlive(s)
}

// SetDeadline sets the read and the write deadline, even for calls that are
// already blocked. A call that times out returns an error that matches
// [os.ErrDeadlineExceeded], and ends nothing. The zero time means no deadline.
func (s *Stream) SetDeadline(t time.Time) error {
	s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

// SetReadDeadline sets the deadline of Read and Peek. See SetDeadline.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.st.setReadDeadline(t) }

// SetWriteDeadline sets the deadline of Write. See SetDeadline.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.st.setWriteDeadline(t) }
