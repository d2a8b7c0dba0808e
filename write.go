package quiclife

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// The write path. We never call quic-go's plain Write: if it is cancelled while
// it is blocked, it can leave a frame behind that makes quic-go keep the stream
// until the connection ends. TryWriteAll and WriteWithLimit do not have this
// defect. TryWriteAll queues data at once, but without a limit. WriteWithLimit
// waits until every byte has gone into a packet. So we queue small writes with
// TryWriteAll until maxQueued bytes are queued. The next write goes through
// WriteWithLimit. When that returns, everything before it has gone into packets
// too, so it serves as a barrier, and queueing starts again.
const (
	maxQueued     = 16 << 10  // bytes queued with TryWriteAll between two barriers
	maxConnQueued = 256 << 10 // bytes queued on a connection (see mayQueue)
)

// pass is a WriteWithLimit limiter that lets everything through.
func pass(maxBytes int) int { return maxBytes }

// A sendQueue limits what all streams of a connection have queued together.
// Without it, a peer that reads nothing would pin maxQueued bytes for each
// stream.
type sendQueue struct {
	bytes atomic.Int64 // bytes queued, minus what was sent up to the last look
	sent  atomic.Int64 // bytes sent on the connection up to the last look
}

// mayQueue reports whether n more bytes may be queued. quic-go does not say how
// much it still holds. So we assume that the queue shrinks by whatever the
// connection sends, and look at that only when the queue seems full.
func (c *Conn) mayQueue(n int) bool {
	bytes := c.queue.bytes.Load()
	if bytes+int64(n) <= maxConnQueued {
		return true
	}
	stats := c.raw.ConnectionStats()
	sent := int64(stats.BytesSent) - int64(stats.BytesLost)
	gone := min(sent-c.queue.sent.Swap(sent), bytes)
	return c.queue.bytes.Add(-gone)+int64(n) <= maxConnQueued
}

// A writing says what the write that has the turn is doing. One write has the
// turn at a time.
type writing uint8

const (
	notWriting writing = iota
	queueing           // it does not block
	blocking           // it is in WriteWithLimit
)

// awaitChange waits until st.writing changes or Close settles the send half.
// The caller holds st.mu, which awaitChange releases while it waits, like
// [sync.Cond.Wait].
func (st *streamState) awaitChange() {
	x := st.extraLocked()
	if x.changed == nil {
		x.changed = make(chan struct{})
	}
	changed := x.changed
	st.mu.Unlock()
	<-changed // its deadline, CancelWrite, Close or the connection's end unblocks the write with the turn
	st.mu.Lock()
}

func (st *streamState) wakeLocked() {
	if x := st.extra; x != nil && x.changed != nil {
		close(x.changed)
		x.changed = nil
	}
}

// awaitTurn waits until another write passes its turn to us. It uses a channel,
// as quic-go does, because a channel serves the longest waiter first: a loop of
// Writes does not keep other calls from writing. The caller holds st.mu, which
// awaitTurn releases while it waits.
func (st *streamState) awaitTurn() {
	x := st.extraLocked()
	if x.turn == nil {
		x.turn = make(chan struct{}, 1)
	}
	x.waiting++
	turn := x.turn
	st.mu.Unlock()
	<-turn // unblocked as in awaitChange
	st.mu.Lock()
}

// passTurnLocked ends a turn, and passes it to the longest waiter if there is
// one.
func (st *streamState) passTurnLocked() {
	if x := st.extra; x != nil && x.waiting > 0 {
		x.waiting--
		st.writing = queueing
		x.turn <- struct{}{} // does not block: there is only one turn
	} else {
		st.writing = notWriting
	}
	st.wakeLocked()
}

// beginWrite waits for its turn, as quic-go's calls do. ok is false if the send
// half has ended. queue says whether the write may be queued.
func (st *streamState) beginWrite() (queue, ok bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	ok = st.canWriteLocked()
	if ok && st.writing != notWriting {
		st.awaitTurn()
		// Close waits for the writes that came before it.
		if ok = st.canWriteLocked() || st.closing && !st.cut; !ok {
			st.passTurnLocked()
		}
	}
	if !ok {
		return false, false
	}
	st.writing = queueing
	// TryWriteAll ignores deadlines, so a write whose deadline has passed is
	// not queued. After SetReliableBoundary nothing is queued (see abortSend).
	late := st.writeDeadline != 0 && st.conn.now() >= st.writeDeadline
	return !late && !st.boundary, true
}

func (st *streamState) canWriteLocked() bool {
	return st.sendHalf == HalfOpen || st.sendHalf == halfDetached
}

// block notes that the write with the turn may block from now on. It returns
// false if Close is waiting for the write, which then must not block.
func (st *streamState) block() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closing {
		return false
	}
	st.writing = blocking
	st.wakeLocked()
	return true
}

// hurried reports whether Close has interrupted the write with the turn. If so,
// the write must not block any more.
func (st *streamState) hurried() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closing {
		st.writing = queueing
	}
	return st.closing
}

// endWrite ends a turn in which n of size bytes were taken. It returns the
// error for the program.
func (st *streamState) endWrite(n, size int, err error) error {
	st.mu.Lock()
	if st.writing == blocking && n > 0 { // everything queued before has gone into packets
		st.queued = 0
	}
	if n < size {
		st.cut = true
	} else if size > 0 {
		st.cut = false
	}
	st.passTurnLocked()
	st.mu.Unlock()
	if n > 0 {
		st.conn.sends()
	}
	if err != nil && endsSendHalf(err) {
		st.sendFailed(err)
		return st.sendCanceled(err)
	}
	return err
}

// endsSendHalf reports whether no Write can succeed after err.
func endsSendHalf(err error) bool {
	return !isDeadline(err) && err != quic.ErrWouldBlock && err != quic.ErrWriteLimitReached
}

// writeAfterEnd returns the error of a Write on a send half that has ended.
func (st *streamState) writeAfterEnd() error {
	st.mu.Lock()
	closing := st.closing
	if st.extra != nil && st.extra.unended != nil {
		st.extra.toldOfEnd()
	}
	st.mu.Unlock()
	if closing { // a call now would make quic-go return ErrWouldBlock to a write that Close waits for
		return quic.ErrStreamClosed
	}
	if _, err := st.send().WriteWithLimit(nil, pass); err != nil && endsSendHalf(err) {
		return st.sendCanceled(err)
	}
	// The call that ends the half has not called quic-go yet.
	return st.sendCanceled(quic.ErrStreamClosed)
}

func (st *streamState) write(p []byte) (n int, err error) {
	queue, ok := st.beginWrite()
	if !ok {
		return 0, st.writeAfterEnd()
	}
	n, err = st.writeInTurn(p, queue)
	return n, st.endWrite(n, len(p), err)
}

func (st *streamState) writeInTurn(p []byte, queue bool) (n int, err error) {
	if queue && len(p) > 0 && int(st.queued)+len(p) <= maxQueued && st.conn.mayQueue(len(p)) {
		err := st.queue(p)
		if err == nil {
			return len(p), nil
		}
		if err != quic.ErrWouldBlock {
			return 0, err
		}
	}
	return st.pastBarrier(p, nil)
}

// queue is quic-go's TryWriteAll.
func (st *streamState) queue(p []byte) error {
	err := st.send().TryWriteAll(p)
	if err == nil {
		st.queued = min(st.queued, maxQueued) + uint16(min(len(p), maxQueued)) // need not be exact above maxQueued
		st.conn.queue.bytes.Add(int64(len(p)))
		st.written.Add(int64(len(p)))
	}
	return err
}

// pastBarrier is quic-go's WriteWithLimit. A nil limiter means [pass]. It
// differs from quic-go's in two ways. First, if a deadline passes just when
// quic-go has taken all of p, quic-go returns an error although nothing is cut.
// Here the call succeeds, and the next Write returns the error. Second, if
// Close interrupts it, the rest of p is queued if it is small. So nothing is
// cut unless the peer's window is full.
func (st *streamState) pastBarrier(p []byte, limiter func(int) int) (n int, err error) {
	if st.block() {
		st.conn.mayStall()
		n, err = st.writeCounted(p, limiter)
		st.conn.mayStall()
		if n > 0 && n == len(p) && isDeadline(err) {
			err = nil
		}
		if !isDeadline(err) || !st.hurried() {
			return n, err
		}
	}
	if rest := p[n:]; limiter == nil && len(rest) <= maxQueued {
		err := st.queue(rest)
		if err == nil {
			return len(p), nil
		}
		if err != quic.ErrWouldBlock {
			return n, err
		}
	}
	// Close is about to reset the stream with this error.
	return n, &quic.StreamError{StreamID: st.id(), ErrorCode: st.conn.guard.Codes.Cut}
}

// writeCounted is quic-go's WriteWithLimit, and counts the bytes. If there is
// an IdleTimeout, it counts them while they go into packets, so that the stream
// does not look idle.
func (st *streamState) writeCounted(p []byte, limiter func(int) int) (int, error) {
	if limiter == nil {
		limiter = pass
	}
	written, l := st.written.Load(), limiter
	if st.conn.guard.IdleTimeout > 0 {
		limiter = func(maxBytes int) int {
			n := min(max(l(maxBytes), 0), maxBytes)
			st.written.Add(int64(n))
			return n
		}
	}
	n, err := st.send().WriteWithLimit(p, limiter)
	st.written.Store(written + int64(n))
	return n, err
}

// tryWriteAll never blocks, not even for its turn.
func (st *streamState) tryWriteAll(p []byte) error {
	st.mu.Lock()
	busy, ok := st.writing != notWriting, st.canWriteLocked()
	if !busy && ok {
		st.writing = queueing
	}
	st.mu.Unlock()
	switch {
	case busy:
		return quic.ErrWouldBlock
	case !ok:
		return st.writeAfterEnd()
	}
	err := st.queue(p)
	if err == nil {
		return st.endWrite(len(p), len(p), nil)
	}
	return st.endWrite(0, 0, err) // it takes all or nothing, so the stream is not cut
}

func (st *streamState) writeWithLimit(p []byte, limiter func(int) int) (int, error) {
	if limiter == nil {
		return st.write(p)
	}
	if _, ok := st.beginWrite(); !ok {
		return 0, st.writeAfterEnd()
	}
	n, err := st.pastBarrier(p, limiter)
	return n, st.endWrite(n, len(p), err)
}

var longAgo = time.Unix(1, 0)

func (st *streamState) setWriteDeadline(t time.Time) error {
	err := st.send().SetWriteDeadline(t)
	st.mu.Lock()
	st.writeDeadline = st.conn.since(t)
	closing := st.closing
	st.mu.Unlock()
	if closing { // Close has set a deadline in the past, which must stay
		st.send().SetWriteDeadline(longAgo)
	}
	return err
}

// since converts a deadline to the clock of c. 0 means none.
func (c *Conn) since(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return max(t.Sub(c.start), 1)
}

// setReliableBoundary has no effect once the send half is aborted or is just
// being ended: its promise could no longer be kept.
func (st *streamState) setReliableBoundary() {
	st.mu.Lock()
	ok := st.canWriteLocked() || st.sendHalf == HalfFinished
	st.boundary = st.boundary || ok
	st.mu.Unlock()
	if ok {
		st.send().SetReliableBoundary()
	}
}

// peerStopped is called when quic-go's Close has failed. It returns the error
// for the peer's STOP_SENDING, or nil if that was not the reason. We cannot use
// the cause of the stream's context: if a ConnContext returned a context that
// is done, that is the cause.
func (st *streamState) peerStopped() *quic.StreamError {
	stop, ok := errors.AsType[*quic.StreamError](st.send().TryWriteAll(nil))
	if !ok || !stop.Remote {
		return nil
	}
	return stop
}
