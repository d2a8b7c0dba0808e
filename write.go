package quiclife

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// The write path. quic-go's plain Write is never called: cancelled while it is
// blocked, it can leave a frame behind for which the stream is kept until the
// connection ends. Of its two siblings, which cannot, TryWriteAll queues at
// once but without bound, and WriteWithLimit waits until every byte has gone
// into a packet. So small writes are queued, up to maxQueued bytes, and the
// next one goes through WriteWithLimit, which returns when all before it has
// gone into packets, and is the barrier after which queueing starts anew.
const (
	maxQueued     = 16 << 10  // bytes queued with TryWriteAll between two barriers
	maxConnQueued = 256 << 10 // bytes queued on a connection, see mayQueue
)

// pass is a WriteWithLimit limiter that lets everything through.
func pass(maxBytes int) int { return maxBytes }

// A sendQueue bounds what the streams of a connection have queued together, or
// a peer that takes nothing would pin maxQueued bytes for each stream.
type sendQueue struct {
	bytes atomic.Int64 // queued, less what was sent by the time of the last look
	sent  atomic.Int64 // on the connection, by then
}

// mayQueue reports whether n more bytes may be queued. quic-go does not say
// what it still holds, so the queue is taken to shrink by whatever the
// connection sends. That is looked at only when the queue seems to be full.
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

// A writing says what the write call that has the turn is doing.
type writing uint8

const (
	notWriting writing = iota
	queueing           // it returns at once
	blocking           // it is in WriteWithLimit
)

// awaitChange waits until st.writing has changed, or Close has gone on. st.mu is
// held, but not while it waits, as with [sync.Cond.Wait].
func (st *streamState) awaitChange() {
	x := st.extraLocked()
	if x.changed == nil {
		x.changed = make(chan struct{})
	}
	changed := x.changed
	st.mu.Unlock()
	<-changed // whoever writes is unblocked by its deadline, CancelWrite, Close or the connection's end
	st.mu.Lock()
}

func (st *streamState) wakeLocked() {
	if x := st.extra; x != nil && x.changed != nil {
		close(x.changed)
		x.changed = nil
	}
}

// awaitTurn waits until a write hands its turn over. A channel serves who has
// waited longest, as quic-go's does, so that a loop of Writes keeps no other
// from writing. st.mu is held, but not while it waits.
func (st *streamState) awaitTurn() {
	x := st.extraLocked()
	if x.turn == nil {
		x.turn = make(chan struct{}, 1)
	}
	x.waiting++
	turn := x.turn
	st.mu.Unlock()
	<-turn // as in awaitChange
	st.mu.Lock()
}

// passTurnLocked ends a turn. Who waits for it has it from now on.
func (st *streamState) passTurnLocked() {
	if x := st.extra; x != nil && x.waiting > 0 {
		x.waiting--
		st.writing = queueing
		x.turn <- struct{}{} // which has room: there is one turn
	} else {
		st.writing = notWriting
	}
	st.wakeLocked()
}

// beginWrite waits for its turn, as quic-go's calls do. ok is false if the
// send half has ended; queue says whether the write may be queued.
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
	// Queueing knows no deadline, so one that has passed is honoured here. After
	// SetReliableBoundary nothing is queued: see abortSend.
	late := st.writeDeadline != 0 && st.conn.now() >= st.writeDeadline
	return !late && !st.boundary, true
}

func (st *streamState) canWriteLocked() bool {
	return st.sendHalf == HalfOpen || st.sendHalf == halfDetached
}

// block says that the write under way may block from now on, unless Close
// waits for it.
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

// hurried reports whether Close has ended the write under way, which then may
// not block any more.
func (st *streamState) hurried() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closing {
		st.writing = queueing
	}
	return st.closing
}

// endWrite ends a turn in which n of size bytes were taken. It returns what the
// program is to see of err.
func (st *streamState) endWrite(n, size int, err error) error {
	st.mu.Lock()
	if st.writing == blocking && n > 0 { // all that was queued before has gone into packets
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

// endsSendHalf tells errors after which no Write can succeed.
func endsSendHalf(err error) bool {
	return !isDeadline(err) && err != quic.ErrWouldBlock && err != quic.ErrWriteLimitReached
}

// writeAfterEnd returns the error of a Write on a send half that has ended.
func (st *streamState) writeAfterEnd() error {
	st.mu.Lock()
	closing := st.closing
	st.mu.Unlock()
	if closing { // a call into quic-go would have it say ErrWouldBlock to a write that Close waits for
		return quic.ErrStreamClosed
	}
	if _, err := st.send().WriteWithLimit(nil, pass); err != nil && endsSendHalf(err) {
		return st.sendCanceled(err)
	}
	// Whoever ended the half has not told quic-go yet.
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
		st.queued = min(st.queued, maxQueued) + uint16(min(len(p), maxQueued)) // more makes no difference
		st.conn.queue.bytes.Add(int64(len(p)))
		st.written.Add(int64(len(p)))
	}
	return err
}

// pastBarrier is quic-go's WriteWithLimit, where no limiter is [pass]. It
// differs in two ways. quic-go reports a deadline that passes just when it has
// taken all of p. To the program that would be a Write that failed, though
// nothing is cut; so here the next Write reports it. And when Close ends it,
// what is left of p is queued, if it is small, so that nothing is cut unless
// the peer's window is full.
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
	// Close is about to reset the stream with this.
	return n, &quic.StreamError{StreamID: st.id(), ErrorCode: st.conn.guard.Codes.Cut}
}

// writeCounted counts the bytes as they go into packets, if an IdleTimeout
// wants to see them move.
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

// tryWriteAll never waits, not even for its turn.
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
	return st.endWrite(0, 0, err) // all or nothing: what is not taken is not cut
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
	if closing { // Close has set one that has passed, which must stay
		st.send().SetWriteDeadline(longAgo)
	}
	return err
}

// since is a deadline on the clock of c, where 0 is none.
func (c *Conn) since(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return max(t.Sub(c.start), 1)
}

// setReliableBoundary does nothing once the send half is aborted or about to
// end, when it would promise what is no longer kept.
func (st *streamState) setReliableBoundary() {
	st.mu.Lock()
	ok := st.canWriteLocked() || st.sendHalf == HalfFinished
	st.boundary = st.boundary || ok
	st.mu.Unlock()
	if ok {
		st.send().SetReliableBoundary()
	}
}

// peerStopped returns the peer's STOP_SENDING as the error it is, or nil, once
// quic-go's Close has failed. The cause of the stream's context does not tell,
// if a ConnContext returned one that ended before.
func (st *streamState) peerStopped() *quic.StreamError {
	stop, ok := errors.AsType[*quic.StreamError](st.send().TryWriteAll(nil))
	if !ok || !stop.Remote {
		return nil
	}
	return stop
}
