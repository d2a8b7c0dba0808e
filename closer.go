package quiclife

import (
	"errors"
	"io"
	"math"
	"os"
	"time"

	"github.com/quic-go/quic-go"
)

// What happens when a half or a stream ends, all of it.
//
// A half ends in two steps. Whoever finds it open claims it, so that nobody
// else ends it; calls into quic-go, without any lock; and settles how it
// ended. When both halves have ended, settle takes the stream out of the
// registry. So each half ends once, and the counters move once.

// ErrWriteCut is returned by Close when a Write was blocked at that moment, or
// had taken only a part of its data and was not continued. The peer sees the
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
	return gotSend, gotReceive
}

// settle records how claimed halves ended; HalfAbsent leaves a half as it is.
func (st *streamState) settle(send, receive HalfState) {
	st.mu.Lock()
	if send != HalfAbsent {
		st.sendHalf = send
	}
	if receive != HalfAbsent {
		st.receiveHalf = receive
	}
	receiveEnded := st.receiveHalf.ended()
	last := st.sendHalf.ended() && receiveEnded // each half is settled once, so this is seen once
	count := countFinished
	switch {
	case st.sendHalf == halfDetached || st.receiveHalf == halfDetached:
		count = countDetached
	case st.reclaimed:
		count = countReclaimed
	case st.sendHalf == HalfAborted || st.receiveHalf == HalfAborted:
		count = countReset
	}
	st.mu.Unlock()

	switch {
	case last:
		st.conn.unregister(st, count)
	case !receiveEnded: // the send half was settled
		st.watchFinalSize()
		st.awaitReader()
	}
}

func countFinished(s *StreamStats) *int64  { return &s.Finished }
func countReset(s *StreamStats) *int64     { return &s.Reset }
func countReclaimed(s *StreamStats) *int64 { return &s.Reclaimed }
func countDetached(s *StreamStats) *int64  { return &s.Detached }

// close ends the send half with FIN, or with a reset if a FIN would make a
// message that was cut look whole.
func (st *streamState) close() error {
	st.mu.Lock()
	detached, err := st.sendHalf == halfDetached, st.closeErr
	got, _ := st.claimLocked(true, false)
	cut := got && (st.cut || st.writing)
	if cut {
		st.closeErr = ErrWriteCut
	}
	st.mu.Unlock()
	switch {
	case detached:
		return st.send.Close()
	case !got:
		return err
	case cut:
		st.abortSend(st.conn.guard.Codes.Cut, true)
		st.settle(HalfAborted, HalfAbsent)
		return ErrWriteCut
	}
	if st.send.Close() != nil { // an untyped error: the half was reset before
		var err error
		if stop, ok := st.peerStopped(); ok {
			err = stop
		}
		st.sendEnded(HalfAborted, err)
		return err
	}
	st.conn.sends()
	st.settle(HalfFinished, HalfAbsent)
	return nil
}

// sendEnded settles a claimed send half of which Close is to return err.
func (st *streamState) sendEnded(as HalfState, err error) {
	st.mu.Lock()
	st.closeErr = err
	st.mu.Unlock()
	st.settle(as, HalfAbsent)
}

// sendFailed ends the send half after a Write failed for good with err.
func (st *streamState) sendFailed(err error) {
	st.noticed(err)
	if got, _ := st.claim(true, false); got {
		if _, stopped := errors.AsType[*quic.StreamError](err); !stopped {
			err = nil
		}
		st.sendEnded(HalfAborted, err)
	}
}

// noticed tells Shutdown of a stream whose half is open while the connection
// ends: the program may learn of that, and settle it, before we do.
func (st *streamState) noticed(err error) {
	_, reset := errors.AsType[*quic.StreamError](err)
	ours := err == io.EOF || err == quic.ErrStreamClosed || err == quic.Err0RTTRejected // the connection lives
	if st.conn.draining.Err() != nil && !ours && !reset {
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
	st.receive.CancelRead(code)
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

func isDeadline(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// release aborts the halves that have not ended, and returns the credit.
func (st *streamState) release(code quic.StreamErrorCode) {
	if st.detached() {
		return
	}
	send, receive := st.claim(true, true)
	if send {
		st.abortSend(code, true)
	}
	if receive {
		st.receive.CancelRead(code)
	}
	if send || receive {
		st.settle(aborted(send), aborted(receive))
	}
	st.returnCredit()
}

// reset aborts both halves, also a finished send half that has not been
// delivered yet, and returns the credit.
func (st *streamState) reset(code quic.StreamErrorCode) {
	if st.detached() {
		return
	}
	send, receive := st.claim(true, true)
	if st.send != nil {
		st.abortSend(code, send)
	}
	if st.receive != nil {
		st.receive.CancelRead(code)
	}
	if send || receive {
		st.settle(aborted(send), aborted(receive))
	}
	st.returnCredit()
}

func (st *streamState) detached() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.sendHalf == halfDetached || st.receiveHalf == halfDetached
}

// abortSend is CancelWrite; claimed says whether the caller has claimed the
// half. After SetReliableBoundary, Close and CancelWrite must not both be
// called: quic-go then sends a FIN whose final size is not that of the
// RESET_STREAM_AT, which ends the connection. So a half that was closed, or is
// just being closed, is left to be delivered then. For the same reason Close
// never follows CancelWrite here: it would add nothing.
func (st *streamState) abortSend(code quic.StreamErrorCode, claimed bool) {
	st.mu.Lock()
	deliver := st.boundary && !claimed && (st.sendHalf == HalfFinished || st.sendHalf == halfEnding)
	st.mu.Unlock()
	// The ID of a stream of a rejected 0-RTT phase may be another stream's now.
	if stale := st.phase != st.conn.phase.Load(); !deliver && !stale {
		st.send.CancelWrite(code)
		st.conn.sends()
	}
}

func aborted(got bool) HalfState {
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
		st.receive.ReleaseStreamCredit()
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

// detach takes the stream out of the registry without ending it.
func (st *streamState) detach() {
	st.settleCredit()
	send, receive := st.claim(true, true)
	given := func(got bool) HalfState {
		if got {
			return halfDetached
		}
		return HalfAbsent
	}
	if send {
		st.conn.gaveAway(st.send)
	}
	if send || receive {
		st.settle(given(send), given(receive))
	}
}

// connectionEnded ends what quic-go has ended with the connection, or with the
// rejection of 0-RTT.
func (st *streamState) connectionEnded() {
	if send, receive := st.claim(true, true); send || receive {
		st.settle(aborted(send), aborted(receive))
	}
}

// The late FIN. A program that reads just the bytes it expects never sees the
// EOF, if the FIN comes in a frame of its own, and quic-go keeps the stream
// for it. So when nothing can be sent any more, we have quic-go tell us the
// final size, and when all bytes up to it have been read, consume the EOF.

const sizeUnknown = math.MaxInt64 // of streamState.finalSize

// watchFinalSize has finalSizeKnown called, at once if the size is known.
func (st *streamState) watchFinalSize() {
	st.receive.SetReceiveFinalSizeCallback(st.finalSizeKnown)
}

// finalSizeKnown is quic-go's callback. It may be called on the connection's
// event loop, where it must not block.
func (st *streamState) finalSizeKnown(size int64) {
	st.mu.Lock()
	user := st.userFinalSize
	st.userFinalSize = nil
	st.finalSize.Store(size)
	st.mu.Unlock()
	if user != nil {
		user(size)
	}
	st.consumeEOF()
}

// setFinalSizeCallback is SetReceiveFinalSizeCallback: quic-go has one slot,
// which the user's callback and ours share.
func (st *streamState) setFinalSizeCallback(callback func(int64)) {
	st.mu.Lock()
	size := st.finalSize.Load()
	if size == sizeUnknown {
		st.userFinalSize = callback
	}
	st.mu.Unlock()
	if size == sizeUnknown {
		st.watchFinalSize()
	} else if callback != nil {
		callback(size)
	}
}

var noBytes [1]byte // never written to: it is read into where only an EOF or an error is left

// consumeEOF reads the EOF, or a reset, if nothing else is left to read. That
// Read does not block: all bytes up to the final size are read. Nor does the
// program notice: a later Read of its own returns the same.
func (st *streamState) consumeEOF() {
	if st.read.Load() != st.finalSize.Load() {
		return
	}
	st.mu.Lock()
	open := st.receiveHalf == HalfOpen
	st.mu.Unlock()
	if open {
		st.receive.SetReadDeadline(time.Time{}) // one that has passed would hide the EOF
		st.readFailed(st.receive.Read(noBytes[:]))
	}
}
