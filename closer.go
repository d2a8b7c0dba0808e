package quiclife

import (
	"errors"
	"io"
	"os"

	"github.com/quic-go/quic-go"
)

// What happens when a half or a stream ends, all of it.
//
// A half ends in two steps. Whoever finds it open claims it, so that nobody
// else ends it; calls into quic-go, without any lock; and settles how it
// ended. When both halves have ended, settle takes the stream out of the
// registry. So each half ends once, and the counters move once.

// ErrWriteCut is returned by Close when a Write was blocked at that moment, and
// could not be completed, or had taken only a part of its data and was not
// continued. The peer sees the
// stream reset (Codes.Cut), not a clean end.
var ErrWriteCut = errors.New("quiclife: stream closed before a Write was complete")

// claim takes the halves that the caller asks for and that are open, for the
// caller to end and then settle. It returns which it got.
func (st *streamState) claim(send, receive bool) (gotSend, gotReceive bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.claimLocked(send, receive)
}

func (st *streamState) claimLocked(send, receive bool) (gotSend, gotReceive bool) {
	if gotSend = send && st.sendHalf == HalfOpen; gotSend {
		st.sendHalf = halfEnding
	}
	if gotReceive = receive && st.receiveHalf == HalfOpen; gotReceive {
		st.receiveHalf = halfEnding
	}
	if gotSend != send || gotReceive != receive {
		st.extra.ended(send, receive)
	}
	return gotSend, gotReceive
}

// settle records how claimed halves ended; HalfAbsent leaves a half as it is.
func (st *streamState) settle(send, receive HalfState) {
	st.mu.Lock()
	if send != HalfAbsent {
		st.sendHalf = send
		st.closing = false
		st.wakeLocked()
	}
	if receive != HalfAbsent {
		st.receiveHalf = receive
	}
	receiveEnded := st.receiveHalf.ended()
	last := st.sendHalf.ended() && receiveEnded // each half is settled once, so this is seen once
	var bound []*binding
	if last {
		bound = st.unbindLocked()
	}
	as := finished
	switch {
	case st.given:
		as = detached
	case st.reclaimed:
		as = reclaimed
	case st.released:
		as = released
	case st.sendHalf == HalfAborted || st.receiveHalf == HalfAborted:
		as = aborted
	case st.unseenEOF:
		as = finishedForIt
	}
	st.mu.Unlock()

	switch {
	case last:
		st.conn.unregister(st, as)
		letGo(bound)
	case !receiveEnded: // the send half was settled
		st.watchFinalSize()
		st.conn.watchSoon(st.conn.guard.halfCloseTimeout())
	}
}

// close ends the send half with FIN, or with a reset if a FIN would make a
// message that was cut look whole.
func (st *streamState) close() error {
	st.mu.Lock()
	for st.closing { // another Close, whose outcome is this one's
		st.awaitChange()
	}
	if st.sendHalf == halfDetached {
		st.mu.Unlock()
		return st.send().Close()
	}
	got, _ := st.claimLocked(true, false)
	if got {
		st.closing = true // until settle
		st.hurryWrites()
		st.closedCut = st.cut
	}
	cut := st.closedCut
	st.mu.Unlock()
	switch {
	case cut && got:
		st.abortSend(st.conn.guard.Codes.Cut, true)
		st.settle(HalfAborted, HalfAbsent)
	case got:
		if st.send().Close() == nil {
			st.conn.sends()
			st.settle(HalfFinished, HalfAbsent)
			return nil
		}
		st.sendAborted(st.peerStopped()) // an untyped error: the half was reset before
	}
	if cut {
		return ErrWriteCut
	}
	return st.whyNotClosed()
}

// whyNotClosed is what Close returns of a send half that has ended without it,
// or was reset after it: nil if that was the program's own doing.
func (st *streamState) whyNotClosed() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch x := st.extra; {
	case x == nil:
		return nil
	case x.stopErr != nil:
		return x.stopErr
	case x.canceled != nil && x.canceled.send:
		return x.canceled.wrap(st.canceledErr())
	}
	return nil
}

// finish is Close at the end of a handler, which leaves a stream alone that
// was handed on.
func (st *streamState) finish() error {
	st.mu.Lock()
	given := st.given
	st.mu.Unlock()
	if given {
		return nil
	}
	return st.close()
}

// hurryWrites waits until the writes that came before Close have returned,
// which it has them do at once: what fits into the peer's window is queued, and
// what does not is cut. st.mu is held, but not while it waits.
func (st *streamState) hurryWrites() {
	if st.writing == notWriting {
		return
	}
	if st.writing == blocking {
		st.mu.Unlock()
		st.send().SetWriteDeadline(longAgo)
		st.mu.Lock()
	}
	for st.writing != notWriting { // also while a turn is handed over
		st.awaitChange()
	}
}

// sendAborted settles a claimed send half that was aborted. stop is the peer's
// STOP_SENDING, if it was that.
func (st *streamState) sendAborted(stop *quic.StreamError) {
	if stop != nil {
		st.mu.Lock()
		st.extraLocked().stopErr = stop
		st.mu.Unlock()
	}
	st.settle(HalfAborted, HalfAbsent)
}

// sendFailed ends the send half after a Write failed for good with err.
func (st *streamState) sendFailed(err error) {
	st.noticed(err)
	if got, _ := st.claim(true, false); got {
		stop, _ := errors.AsType[*quic.StreamError](err)
		st.sendAborted(stop)
	}
}

// noticed tells Shutdown, and package leaktest, of a stream whose half is open
// while the connection ends: the program may learn of that, and settle it,
// before we do.
func (st *streamState) noticed(err error) {
	draining, watched := st.conn.draining.Err() != nil, st.conn.guard.watched.Load() != nil
	if !draining && !watched {
		return
	}
	_, reset := errors.AsType[*quic.StreamError](err)
	ours := err == io.EOF || err == quic.ErrStreamClosed || err == quic.Err0RTTRejected // the connection lives
	if watched && !ours && (!reset || draining) {
		st.mu.Lock()
		st.extraLocked().toldOfEnd()
		st.mu.Unlock()
	}
	if draining && !ours && !reset {
		st.conn.cutStreams([]*streamState{st})
	}
}

// cancelWrite aborts the send half. After Close it aborts delivery, which is
// what the caller asks for; after any other end quic-go ignores it.
func (st *streamState) cancelWrite(code quic.StreamErrorCode) {
	got, _ := st.claim(true, false)
	st.abortSend(code, got)
	if got {
		st.settle(HalfAborted, HalfAbsent)
	}
}

// cancelRead aborts the receive half, if it has not ended.
func (st *streamState) cancelRead(code quic.StreamErrorCode) {
	_, got := st.claim(false, true)
	st.receive().CancelRead(code)
	st.mu.Lock()
	if st.unseenEOF && st.extraLocked().readErr == nil {
		st.extra.readErr = &quic.StreamError{StreamID: st.id(), ErrorCode: code}
	}
	st.mu.Unlock()
	if got {
		st.settle(HalfAbsent, HalfAborted)
	}
}

// readFailed ends the receive half if a Read, of which it takes the results,
// returned an error that stays.
func (st *streamState) readFailed(_ int, err error) {
	if err == nil || isDeadline(err) {
		return
	}
	st.noticed(err)
	if _, got := st.claim(false, true); got {
		as := HalfAborted
		if err == io.EOF {
			as = HalfFinished
		}
		st.settle(HalfAbsent, as)
	}
}

func isDeadline(err error) bool { return err != io.EOF && errors.Is(err, os.ErrDeadlineExceeded) }

// release aborts the halves that have not ended, and returns the credit.
func (st *streamState) release(code quic.StreamErrorCode) {
	st.mu.Lock()
	ours := !st.given
	reset := st.sendHalf == HalfAborted || st.receiveHalf == HalfAborted
	send, receive := st.claimLocked(ours, ours)
	st.released = st.released || (send || receive) && !reset
	st.mu.Unlock()
	if !ours {
		return
	}
	if send {
		st.abortSend(code, true)
	}
	if receive {
		st.receive().CancelRead(code)
	}
	if send || receive {
		st.settle(abortedIf(send), abortedIf(receive))
	}
	st.returnCredit()
}

// reset aborts both halves, also a finished send half that has not been
// delivered yet, and returns the credit.
func (st *streamState) reset(code quic.StreamErrorCode) {
	if send, receive, ours := st.claimOurs(); ours {
		st.abort(code, send, receive)
	}
}

// abort does what reset does. The halves that were open have been claimed.
func (st *streamState) abort(code quic.StreamErrorCode, send, receive bool) {
	if st.kind.sends() {
		st.abortSend(code, send)
	}
	if st.kind.receives() {
		st.receive().CancelRead(code)
	}
	if send || receive {
		st.settle(abortedIf(send), abortedIf(receive))
	}
	st.returnCredit()
}

// cutOff is reset, right before the connection is closed. With NoStopSending
// the receive half is left to that, and so are dropped unidirectional streams:
// to the peer the end of a control stream is an error of its own.
func (st *streamState) cutOff(code quic.StreamErrorCode) {
	switch {
	case st.kind.uni() && st.isDropped():
	case !st.conn.guard.NoStopSending:
		st.mu.Lock()
		ours := !st.given
		send, receive := st.claimUnendedLocked(ours, ours)
		st.mu.Unlock()
		if ours {
			st.abort(code, send, receive)
		}
	case st.kind.sends():
		st.mu.Lock()
		ours := !st.given
		send, _ := st.claimUnendedLocked(ours, false)
		st.mu.Unlock()
		if ours {
			st.abortSend(code, send)
		}
		if send {
			st.settle(HalfAborted, HalfAbsent)
		}
	}
}

// claimOurs claims both halves, unless the stream was given away.
func (st *streamState) claimOurs() (send, receive, ours bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.given {
		return false, false, false
	}
	send, receive = st.claimLocked(true, true)
	return send, receive, true
}

// abortSend is CancelWrite; claimed says whether the caller has claimed the
// half. After SetReliableBoundary, two things would have quic-go announce two
// final sizes for the stream, which ends the connection.
//
// Close and CancelWrite must not both be called. So a half that was closed, or
// is just being closed, is left to be delivered then. For the same reason Close
// never follows CancelWrite here: it would add nothing.
//
// And nothing may be queued beyond the boundary when CancelWrite is called, or
// a STOP_SENDING after it would find a smaller size. Write queues nothing
// there; what TryWriteAll has queued comes inside the boundary.
func (st *streamState) abortSend(code quic.StreamErrorCode, claimed bool) {
	st.mu.Lock()
	for st.boundary && st.writing == queueing {
		st.awaitChange()
	}
	deliver := st.boundary && !claimed && (st.sendHalf == HalfFinished || st.sendHalf == halfEnding)
	extend := st.boundary && st.queued > 0
	st.mu.Unlock()
	// The ID of a stream of a rejected 0-RTT phase may be another stream's now.
	if stale := st.phase != uint8(st.conn.phase.Load()); deliver || stale {
		return
	}
	if extend {
		st.send().SetReliableBoundary()
	}
	st.send().CancelWrite(code)
	st.conn.sends()
}

func abortedIf(got bool) HalfState {
	if got {
		return HalfAborted
	}
	return HalfAbsent
}

// returnCredit lets the peer open a stream in place of this one, once it is
// complete. Without RequireStreamCreditRelease there is nothing to return.
func (st *streamState) returnCredit() {
	st.settleCredit()
	if st.kind.incoming() {
		st.receive().ReleaseStreamCredit()
	}
}

// settleCredit notes that the credit is not ours to return any more.
func (st *streamState) settleCredit() {
	c := st.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.owing {
		c.owing.remove(st)
		c.kinds[st.kind].owing--
	}
	st.owing, st.credited = false, true
}

// detach takes the stream out of the registry without ending it. It is given
// away in one step, so that a call beside it finds it ours or not.
func (st *streamState) detach() {
	st.mu.Lock()
	given := st.given
	st.given = true
	send, receive := st.sendHalf, st.receiveHalf
	if st.sendHalf == HalfOpen {
		st.sendHalf = halfDetached
	}
	if st.receiveHalf == HalfOpen {
		st.receiveHalf = halfDetached
	}
	last := (send == HalfOpen || receive == HalfOpen) && st.sendHalf.ended() && st.receiveHalf.ended()
	bound := st.unbindLocked()
	st.mu.Unlock()
	letGo(bound)
	if given {
		return
	}
	st.settleCredit()
	if send == HalfOpen {
		st.conn.gaveAway(st.send())
	}
	if last {
		st.conn.unregister(st, detached)
	}
}

// connectionEnded ends what quic-go has ended with the connection, or with the
// rejection of 0-RTT.
func (st *streamState) connectionEnded() {
	st.mu.Lock()
	send, receive := st.claimUnendedLocked(true, true)
	st.mu.Unlock()
	if send || receive {
		st.settle(abortedIf(send), abortedIf(receive))
	}
}
