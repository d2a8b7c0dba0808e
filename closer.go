package quiclife

import (
	"errors"
	"io"
	"os"

	"github.com/quic-go/quic-go"
)

// Everything that happens when a half or a stream ends.
//
// A call that ends a half does three things. It claims the half if it is open,
// so that no other call ends it. It calls quic-go, without holding a lock. Then
// it settles the half: it records how the half ended. When both halves have
// ended, settle takes the stream out of the registry. So each half ends once,
// and the counters change once.

// ErrWriteCut is returned by Close if a Write was blocked at that moment and
// could not be completed, or if a Write had taken only a part of its data and
// was not continued. The peer sees a reset (Codes.Cut), not a clean end.
var ErrWriteCut = errors.New("quiclife: stream closed before a Write was complete")

// claim claims those of the requested halves that are open, and returns which
// it has claimed. The caller must end these and then settle them.
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

// settle records how claimed halves ended. HalfAbsent leaves a half as it is.
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
	case !receiveEnded: // the send half was settled, the receive half is still open
		st.watchFinalSize()
		st.conn.watchSoon(st.conn.guard.halfCloseTimeout())
	}
}

// close ends the send half with a FIN, or with a reset if a FIN would make a
// message that was cut look complete.
func (st *streamState) close() error {
	st.mu.Lock()
	for st.closing { // another Close is in progress, and this one returns the same
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
		st.sendAborted(st.peerStopped()) // quic-go's untyped error: the half was reset before
	}
	if cut {
		return ErrWriteCut
	}
	return st.whyNotClosed()
}

// whyNotClosed returns the error of Close for a send half that has ended
// without Close, or was reset after it. It is nil if the program did that
// itself.
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

// finish is Close at the end of a handler. It has no effect on a detached
// stream.
func (st *streamState) finish() error {
	st.mu.Lock()
	given := st.given
	st.mu.Unlock()
	if given {
		return nil
	}
	return st.close()
}

// hurryWrites waits until the writes that came before Close have returned, and
// makes them return at once. What fits into the peer's window is queued. What
// does not fit is cut. The caller holds st.mu, which hurryWrites releases while
// it waits.
func (st *streamState) hurryWrites() {
	if st.writing == notWriting {
		return
	}
	if st.writing == blocking {
		st.mu.Unlock()
		st.send().SetWriteDeadline(longAgo)
		st.mu.Lock()
	}
	for st.writing != notWriting { // a write that waited may get its turn meanwhile
		st.awaitChange()
	}
}

// sendAborted settles a claimed send half that was aborted. stop is the error
// for the peer's STOP_SENDING, if that was the reason, or nil.
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

// noticed is called when a call on the stream has failed with err. If err is
// the end of the connection, the program may learn of it, and settle the half,
// before our own code for that end runs. So noticed tells Shutdown and package
// leaktest about the stream.
func (st *streamState) noticed(err error) {
	draining, watched := st.conn.draining.Err() != nil, st.conn.guard.watched.Load() != nil
	if !draining && !watched {
		return
	}
	_, reset := errors.AsType[*quic.StreamError](err)
	ours := err == io.EOF || err == quic.ErrStreamClosed || err == quic.Err0RTTRejected // the connection has not ended
	if watched && !ours && (!reset || draining) {
		st.mu.Lock()
		st.extraLocked().toldOfEnd()
		st.mu.Unlock()
	}
	if draining && !ours && !reset {
		st.conn.cutStreams([]*streamState{st})
	}
}

// cancelWrite aborts the send half. After Close it aborts delivery, as the
// caller wants. After any other end quic-go ignores it.
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

// readFailed takes the results of a Read. It ends the receive half if err is
// final: any error but a timeout.
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

// release aborts the halves that have not ended, and returns the stream credit.
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

// reset aborts both halves, even a finished send half whose data was not
// delivered yet, and returns the stream credit.
func (st *streamState) reset(code quic.StreamErrorCode) {
	if send, receive, ours := st.claimOurs(); ours {
		st.abort(code, send, receive)
	}
}

// abort is reset for a caller that has claimed the open halves. send and
// receive say which it has claimed.
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

// cutOff is reset right before the connection is closed. With NoStopSending it
// leaves the receive half open until then. It also leaves dropped
// unidirectional streams open: one may be a control stream, and its end would
// be a protocol error for the peer.
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

// claimOurs claims both halves, unless the stream was detached.
func (st *streamState) claimOurs() (send, receive, ours bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.given {
		return false, false, false
	}
	send, receive = st.claimLocked(true, true)
	return send, receive, true
}

// abortSend is CancelWrite. claimed says whether the caller has claimed the
// half. After SetReliableBoundary, two mistakes would make quic-go announce two
// different final sizes for the stream, which ends the connection.
//
// First, Close and CancelWrite must not both be called. So if the half was
// closed, or is just being closed, its data is delivered and CancelWrite is not
// called. For the same reason we never call Close after CancelWrite; it would
// add nothing.
//
// Second, nothing may be queued beyond the boundary when CancelWrite is called,
// or a later STOP_SENDING would announce a smaller size. Write queues nothing
// after SetReliableBoundary. If TryWriteAll has queued data, we move the
// boundary behind it.
func (st *streamState) abortSend(code quic.StreamErrorCode, claimed bool) {
	st.mu.Lock()
	for st.boundary && st.writing == queueing {
		st.awaitChange()
	}
	deliver := st.boundary && !claimed && (st.sendHalf == HalfFinished || st.sendHalf == halfEnding)
	extend := st.boundary && st.queued > 0
	st.mu.Unlock()
	// If 0-RTT was rejected since the stream was opened, its ID may be another
	// stream's now.
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

// returnCredit lets the peer open another stream in place of this one, once
// quic-go has completed this one. Without RequireStreamCreditRelease it has no
// effect.
func (st *streamState) returnCredit() {
	st.settleCredit()
	if st.kind.incoming() {
		st.receive().ReleaseStreamCredit()
	}
}

// settleCredit notes that the stream credit was returned, or that returning it
// is now up to the program (after Detach).
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

// detach takes the stream out of the registry without ending it. This happens
// in one step, so that a concurrent call finds the stream either tracked or
// detached.
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

// connectionEnded settles the halves that quic-go has ended together with the
// connection, or when 0-RTT was rejected.
func (st *streamState) connectionEnded() {
	st.mu.Lock()
	send, receive := st.claimUnendedLocked(true, true)
	st.mu.Unlock()
	if send || receive {
		st.settle(abortedIf(send), abortedIf(receive))
	}
}
