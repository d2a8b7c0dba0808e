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

// sender and receiver are the halves of quic-go's three stream types.
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

// streamState is what we know of a stream. The registry, quic-go's final size
// callback and the timers hold it; the program holds a handle, which it alone
// keeps alive, once the stream is not young any more (reclaim.go): when the
// handle is gone, the program has dropped the stream.
type streamState struct {
	conn   *Conn
	raw    any           // quic-go's stream
	opened time.Duration // on conn's clock, as all times here

	// guarded by conn.mu
	prev, next *streamState // in a list of conn
	young      *handle      // until weaken has made it old
	old        weak.Pointer[handle]

	written, read atomic.Int64
	finalSize     atomic.Int64  // of the receive half, or sizeUnknown
	readDeadline  atomic.Int64  // a time.Duration, 0 is none
	writeDeadline time.Duration // likewise, guarded by mu

	mu    sync.Mutex // guards extra, and the fields after it unless they say otherwise
	extra *extra     // nil for most streams

	reads    atomic.Int32 // calls of Read and Peek in all, to see that there are some
	readers  atomic.Int32 // those under way
	dropped  atomic.Bool  // found without a handle
	draining atomic.Bool  // we read, and discard, for the program

	kind   kind   // does not change
	phase  uint8  // of conn, when the stream was opened
	served bool   // by conn's handler for the kind; does not change
	queued uint16 // bytes since the last barrier (write.go), owned by whoever writes

	// guarded by conn.mu
	owing        bool // in conn.owing
	handled      bool // counts against Guard.MaxStreams until it has ended
	unregistered bool // it has
	credited     bool // the stream credit was returned
	cutNoted     bool // in conn.cut

	sendHalf    HalfState
	receiveHalf HalfState
	reported    bool // as a leak
	reclaimed   bool // ended by us, not by the program
	released    bool // by the program, with a half open and none aborted
	given       bool // away, with Detach
	cut         bool // the last write took less than it was given
	closedCut   bool // and then Close was called
	writing     writing
	closing     bool // Close waits for the writes that came before it
	boundary    bool // SetReliableBoundary was called
	unseenEOF   bool // consumeEOF has read an EOF that no Read has returned
}

// An extra is what few streams need. streamState.mu guards it.
type extra struct {
	stack     *stack        // who opened it, if that was captured
	droppedAt time.Duration // since when it is known to be dropped

	stopErr  *quic.StreamError // the peer's STOP_SENDING, which Close returns
	readErr  *quic.StreamError // of a CancelRead while unseenEOF was set
	drainErr *quic.StreamError // what Read fails with once we read for the program

	changed chan struct{} // closed when writing has changed, nil if nobody waits for it
	turn    chan struct{} // a write hands its turn over, nil if none ever waited
	waiting int           // writes that wait for their turn

	userFinalSize func(int64)
	unread, idle  watch // of HalfCloseTimeout and IdleTimeout

	bindings []*binding // of the contexts that the stream is bound to
	canceled *canceled  // one of them has reset it
}

// extraLocked makes the stream's extra if there is none.
func (st *streamState) extraLocked() *extra {
	if st.extra == nil {
		st.extra = &extra{}
	}
	return st.extra
}

// A handle is what the program's stream points to the state with. A copy of it
// would not keep the stream from being taken for dropped.
type handle struct {
	_  noCopy
	st *streamState
}

// noCopy has go vet complain of copies.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// start makes h the handle of a stream, and registers that. served says whether
// it is for a handler.
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

// send and receive are the halves, which the stream must have.
func (st *streamState) send() sender      { return st.raw.(sender) }
func (st *streamState) receive() receiver { return st.raw.(receiver) }

func (st *streamState) id() quic.StreamID {
	return st.raw.(interface{ StreamID() quic.StreamID }).StreamID()
}

// openerLocked is who opened the stream, nil if that is not known.
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
// [quic.Stream] with the same meaning, and some that end it for good.
//
// Each half ends by itself: the send half by Close, CancelWrite or an error
// that Write returned, the receive half by io.EOF or another error that Read
// returned, or by CancelRead; deadlines end nothing. When both have ended,
// quic-go keeps nothing of the stream. Release ends what has not ended yet,
// and is made for defer:
//
//	str, err := conn.OpenStreamSync(ctx)
//	if err != nil {
//		return err
//	}
//	defer str.Release()
//
// A stream that is dropped without this is reported as a [Leak] and ended
// after a garbage collection has found it. See the package documentation.
//
// All methods may be called from any goroutine. Concurrent Writes, and
// concurrent Reads, wait for each other.
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

// Conn returns the connection of the stream, also after the end of either.
func (s *Stream) Conn() *Conn { return s.st.conn }

// Read reads data. It blocks until there is some, the peer has ended its half
// (io.EOF, or its [*StreamError]), the read deadline passes, CancelRead or
// Release is called, or the connection ends. The error can come with data.
func (s *Stream) Read(p []byte) (int, error) {
	if err := s.st.willRead(); err != nil {
		return 0, err
	}
	n, err := s.raw.Read(p)
	err = s.st.didRead(n, len(p), err)
	runtime.KeepAlive(s)
	return n, err
}

// Peek fills b with data without consuming it. It blocks as Read does, until
// all of b is filled. Shorter data comes with the error that ended it.
func (s *Stream) Peek(b []byte) (int, error) {
	if err := s.st.willRead(); err != nil {
		return 0, err
	}
	n, err := s.raw.Peek(b)
	err = s.st.didPeek(n, len(b), err)
	runtime.KeepAlive(s)
	return n, err
}

// Write writes p. It blocks while 16 KiB of the stream, or 256 KiB of the
// connection, wait to be sent, until the write deadline passes, CancelWrite, Close, Release or Reset
// is called, the peer stops reading ([*StreamError], Remote), or the
// connection ends. It returns how many bytes of p were taken; these are sent
// whatever the error, unless the stream is reset.
//
// A Write that took less than p leaves the stream cut: Close then resets it,
// unless another Write continues and is complete.
func (s *Stream) Write(p []byte) (int, error) {
	n, err := s.st.write(p)
	runtime.KeepAlive(s)
	return n, err
}

// WriteWithLimit is quic-go's [quic.Stream.WriteWithLimit]. It blocks as Write
// does. If it takes less than p, the stream is cut as after Write.
func (s *Stream) WriteWithLimit(p []byte, limiter func(maxBytes int) int) (int, error) {
	n, err := s.st.writeWithLimit(p, limiter)
	runtime.KeepAlive(s)
	return n, err
}

// TryWriteAll queues p if that is possible at once, else it queues nothing and
// returns [ErrWouldBlock]. It does not block, knows no deadline, and does not
// leave the stream cut. What it queues has no bound but the peer's window.
func (s *Stream) TryWriteAll(p []byte) error {
	err := s.st.tryWriteAll(p)
	runtime.KeepAlive(s)
	return err
}

// Close ends the send half: the peer reads all that was written, then io.EOF.
// It does not end the receive half. Read on, or Release.
//
// Close does not wait for the peer. A Write that is under way returns at once,
// and so do those that wait for it: what is left of them is queued, and they are
// complete. That cannot be if the peer's window is full, if more than 16 KiB of
// a Write are left, or if it is a WriteWithLimit. Then, and if a Write took less
// than it was given and was not continued, the send half is reset instead
// (Codes.Cut), the Write fails, and Close returns [ErrWriteCut]. A Write that
// comes later takes nothing and returns [ErrStreamClosed]. If the peer has stopped reading, Close returns its
// [*StreamError]. After CancelWrite, Release or the connection's end it
// returns nil. Closing again has no effect and returns the same.
func (s *Stream) Close() error {
	err := s.st.close()
	runtime.KeepAlive(s)
	return err
}

// CancelWrite aborts the send half: the peer's Read fails with code, and what
// it has not read yet is lost, also after Close. A blocked Write returns. It
// does not block; calling it again has no effect.
func (s *Stream) CancelWrite(code StreamErrorCode) {
	s.st.cancelWrite(code)
	runtime.KeepAlive(s)
}

// CancelRead aborts the receive half and asks the peer to stop sending, with
// code. A blocked Read returns. It does not block; after io.EOF, and when
// called again, it has no effect.
func (s *Stream) CancelRead(code StreamErrorCode) {
	s.st.cancelRead(code)
	runtime.KeepAlive(s)
}

// Release says that the program is done with the stream. A half that has not
// ended is aborted with Codes.Release: the peer sees RESET_STREAM for the one,
// STOP_SENDING for the other. A half that has ended properly is left alone:
// after Close, what was written still arrives. The stream credit goes back
// (see ReleaseStreamCredit). Blocked calls return.
//
// It does not block, and may be called at any time, any number of times.
func (s *Stream) Release() {
	s.st.release(s.st.conn.guard.Codes.Release)
	runtime.KeepAlive(s)
}

// Reset aborts both halves with code, now, also data that was written and
// closed but not yet delivered. It returns the stream credit. It does not
// block; for a stream that has been aborted already it has no effect.
func (s *Stream) Reset(code StreamErrorCode) {
	s.st.reset(code)
	runtime.KeepAlive(s)
}

// Info returns a snapshot of the stream, also after its end.
func (s *Stream) Info() StreamInfo { return s.st.info() }

// Detach returns quic-go's stream, which is then the caller's to end: it is
// not counted any more, never reclaimed, and Release, Reset and the end of a
// handler have no effect on it. The other methods of s keep working, Close as
// quic-go's does. Halves that have ended stay ended. Calls beside it find the
// stream either given away or not. Shutdown waits until its send half has ended,
// and does not name it among those it cuts.
func (s *Stream) Detach() *quic.Stream {
	s.st.detach()
	runtime.KeepAlive(s)
	return s.raw
}

// Context returns a context that is done when the send half has ended, whoever
// ended it. See [quic.Stream.Context]. Holding it does not keep the stream
// from being reclaimed.
func (s *Stream) Context() context.Context { return s.raw.Context() }

// SetPriority is quic-go's [quic.Stream.SetPriority].
func (s *Stream) SetPriority(urgency int8, incremental bool) { s.raw.SetPriority(urgency, incremental) }

// SetReliableBoundary is quic-go's [quic.Stream.SetReliableBoundary]: what was
// written so far is delivered even if the stream is reset later. After it,
// CancelWrite and Reset have no effect on a send half that was closed, a small
// Write waits until it is sent, and what TryWriteAll has queued may be delivered
// too.
func (s *Stream) SetReliableBoundary() { s.st.setReliableBoundary() }

// ReleaseStreamCredit lets the peer open a stream in place of this one, once
// it is complete. It has an effect only with Config.RequireStreamCreditRelease,
// on streams that the peer opened. Release and Reset do it too.
func (s *Stream) ReleaseStreamCredit() { s.st.returnCredit() }

// SetReceiveFinalSizeCallback is quic-go's
// [quic.Stream.SetReceiveFinalSizeCallback]. As long as it has not been
// called, callback is kept alive by the connection: if it refers to the
// stream, the stream cannot be found dropped.
func (s *Stream) SetReceiveFinalSizeCallback(callback func(int64)) {
	s.st.setFinalSizeCallback(callback)
	runtime.KeepAlive(s)
}

// SetDeadline sets the read and the write deadline, also of calls that are
// blocked. A call that times out returns an error that is [os.ErrDeadlineExceeded]
// and ends nothing. The zero time is no deadline.
func (s *Stream) SetDeadline(t time.Time) error {
	s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

// SetReadDeadline sets the deadline of Read and Peek. See SetDeadline.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.st.setReadDeadline(t) }

// SetWriteDeadline sets the deadline of Write. See SetDeadline.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.st.setWriteDeadline(t) }
