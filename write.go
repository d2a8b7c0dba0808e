package quiclife

import (
	"context"
	"errors"
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
const maxQueued = 16 << 10 // bytes queued with TryWriteAll between two barriers

// pass is a WriteWithLimit limiter that lets everything through.
func pass(maxBytes int) int { return maxBytes }

// beginWrite waits for its turn, as quic-go's calls do, and returns false if
// the send half has ended.
func (st *streamState) beginWrite() bool {
	st.mu.Lock()
	for st.writing {
		if st.writeTurn == nil {
			st.writeTurn = make(chan struct{})
		}
		turn := st.writeTurn
		st.mu.Unlock()
		<-turn // whoever writes is unblocked by its deadline, CancelWrite, Close or the connection's end
		st.mu.Lock()
	}
	return st.takeTurnLocked()
}

func (st *streamState) takeTurnLocked() bool {
	ok := st.sendHalf == HalfOpen || st.sendHalf == halfDetached
	st.writing = ok
	st.mu.Unlock()
	return ok
}

// endWrite ends a turn in which n of size bytes were taken.
func (st *streamState) endWrite(n, size int, err error) {
	st.mu.Lock()
	st.writing = false
	turn := st.writeTurn
	st.writeTurn = nil
	if n < size {
		st.cut = true
	} else if size > 0 {
		st.cut = false
	}
	st.mu.Unlock()
	if turn != nil {
		close(turn)
	}
	if n > 0 {
		st.conn.sends()
	}
	if err != nil && endsSendHalf(err) {
		st.sendFailed(err)
	}
}

// endsSendHalf tells errors after which no Write can succeed.
func endsSendHalf(err error) bool {
	return !isDeadline(err) && err != quic.ErrWouldBlock && err != quic.ErrWriteLimitReached
}

// writeAfterEnd returns the error of a Write on a send half that has ended.
func (st *streamState) writeAfterEnd() error {
	if _, err := st.send.WriteWithLimit(nil, pass); err != nil && endsSendHalf(err) {
		return err
	}
	// Whoever ended the half has not told quic-go yet.
	return quic.ErrStreamClosed
}

func (st *streamState) write(p []byte) (n int, err error) {
	if !st.beginWrite() {
		return 0, st.writeAfterEnd()
	}
	n, err = st.writeInTurn(p)
	st.endWrite(n, len(p), err)
	return n, err
}

func (st *streamState) writeInTurn(p []byte) (n int, err error) {
	if len(p) > 0 && st.queued+len(p) <= maxQueued && !st.writeDeadlinePassed() {
		err := st.send.TryWriteAll(p)
		if err == nil {
			st.queued += len(p)
			st.written.Add(int64(len(p)))
			return len(p), nil
		}
		if err != quic.ErrWouldBlock {
			return 0, err
		}
	}
	for more := true; more; {
		piece := p[n:]
		if st.conn.guard.IdleTimeout > 0 { // which wants to see progress
			piece = piece[:min(len(piece), maxQueued)]
		}
		var m int
		m, err = st.pastBarrier(piece, pass)
		n += m
		more = n < len(p) && err == nil
	}
	return n, err
}

// pastBarrier is quic-go's WriteWithLimit, which reports a deadline that passes
// just when it has taken all of p. To the program that would be a Write that
// failed, though nothing is cut; so here the next Write reports it.
func (st *streamState) pastBarrier(p []byte, limiter func(int) int) (int, error) {
	n, err := st.send.WriteWithLimit(p, limiter)
	st.written.Add(int64(n))
	if n > 0 && n == len(p) && isDeadline(err) {
		err = nil
	}
	if n > 0 && err == nil {
		st.queued = 0
	}
	return n, err
}

// tryWriteAll never waits, not even for its turn.
func (st *streamState) tryWriteAll(p []byte) error {
	st.mu.Lock()
	if st.writing {
		st.mu.Unlock()
		return quic.ErrWouldBlock
	}
	if !st.takeTurnLocked() {
		return st.writeAfterEnd()
	}
	err := st.send.TryWriteAll(p)
	switch err {
	case nil:
		st.queued += len(p)
		st.written.Add(int64(len(p)))
		st.endWrite(len(p), len(p), nil)
	default: // all or nothing: what is not taken is not cut
		st.endWrite(0, 0, err)
	}
	return err
}

func (st *streamState) writeWithLimit(p []byte, limiter func(int) int) (int, error) {
	if limiter == nil {
		return st.write(p)
	}
	if !st.beginWrite() {
		return 0, st.writeAfterEnd()
	}
	n, err := st.pastBarrier(p, limiter)
	st.endWrite(n, len(p), err)
	return n, err
}

func (st *streamState) setWriteDeadline(t time.Time) error {
	deadline := time.Duration(0)
	if !t.IsZero() {
		deadline = max(t.Sub(st.conn.start), 1) // 0 is none
	}
	st.mu.Lock()
	st.writeDeadline = deadline
	st.mu.Unlock()
	return st.send.SetWriteDeadline(t)
}

// writeDeadlinePassed sees to it that queueing, which knows no deadline,
// honours one that has passed.
func (st *streamState) writeDeadlinePassed() bool {
	st.mu.Lock()
	deadline := st.writeDeadline
	st.mu.Unlock()
	return deadline != 0 && st.conn.now() >= deadline
}

func (st *streamState) setReliableBoundary() {
	st.mu.Lock()
	st.boundary = true
	st.mu.Unlock()
	st.send.SetReliableBoundary()
}

// peerStopped returns the peer's STOP_SENDING as the error it is, if there was one.
func (st *streamState) peerStopped() (*quic.StreamError, bool) {
	stop, ok := errors.AsType[*quic.StreamError](context.Cause(st.send.Context()))
	return stop, ok && stop.Remote
}
