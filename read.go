package quiclife

import (
	"io"
	"math"
	"os"
	"time"
)

// What Read and Peek do in addition to quic-go's.

// willRead is called before a Read or a Peek. It fails if we drain the stream.
func (st *streamState) willRead() error {
	if err := st.drained(); err != nil {
		return err
	}
	st.readers.Add(1)
	st.reads.Add(1)
	st.conn.mayStall()
	return nil
}

// didRead is called after a Read into size bytes. It returns the error for the
// program.
func (st *streamState) didRead(n, size int, err error) error {
	st.readers.Add(-1)
	st.conn.mayStall() // the program may never read again
	if n > 0 && st.read.Add(int64(n)) == st.finalSize.Load() && err == nil {
		st.consumeEOF()
	}
	if err == nil {
		return nil
	}
	st.readFailed(n, err)
	if n == 0 && err == io.EOF {
		return st.seeEOF(size)
	}
	return st.readError(err)
}

// readError converts an error of quic-go to the one that the program gets.
func (st *streamState) readError(err error) error {
	switch {
	case err == io.EOF:
		return err
	case !isDeadline(err):
		return st.receiveCanceled(err)
	}
	if drained := st.drained(); drained != nil { // the deadline was that of drain
		return drained
	}
	return err
}

// didPeek is called after a Peek into size bytes. It returns the error for the
// program. quic-go does not end the receive half when Peek returns an error, so
// if nothing else is left to read, didPeek reads that error.
func (st *streamState) didPeek(n, size int, err error) error {
	st.readers.Add(-1)
	st.conn.mayStall()
	if err == nil {
		return nil
	}
	if n > 0 || size == 0 || isDeadline(err) {
		return st.readError(err)
	}
	st.readFailed(st.receive().Read(noBytes[:]))
	if err == io.EOF {
		return st.seeEOF(size)
	}
	return st.readError(err)
}

// The late FIN. A program that reads just the bytes it expects never sees the
// EOF if the FIN comes in a separate frame. quic-go then keeps the stream. So
// when the send half has ended, we ask quic-go for the final size. When all
// bytes up to it have been read, we consume the EOF.

const sizeUnknown = math.MaxInt64 // a value of streamState.finalSize

// watchFinalSize makes quic-go call finalSizeKnown, at once if the size is
// already known.
func (st *streamState) watchFinalSize() {
	st.receive().SetReceiveFinalSizeCallback(st.finalSizeKnown)
}

// finalSizeKnown is quic-go's callback. It may run on the connection's event
// loop, so it must not block.
func (st *streamState) finalSizeKnown(size int64) {
	st.mu.Lock()
	var user func(int64)
	if x := st.extra; x != nil {
		user, x.userFinalSize = x.userFinalSize, nil
	}
	st.finalSize.Store(size)
	st.mu.Unlock()
	if user != nil {
		user(size)
	}
	st.consumeEOF()
	if st.draining.Load() {
		st.conn.drainSoon()
	}
}

// setFinalSizeCallback is SetReceiveFinalSizeCallback. quic-go takes only one
// callback, so ours calls the program's.
func (st *streamState) setFinalSizeCallback(callback func(int64)) {
	st.mu.Lock()
	size := st.finalSize.Load()
	if size == sizeUnknown {
		st.extraLocked().userFinalSize = callback
	}
	st.mu.Unlock()
	if size == sizeUnknown {
		st.watchFinalSize()
	} else if callback != nil {
		callback(size)
	}
}

var noBytes [1]byte // never written to: we read into it only when nothing but an EOF or an error is left

// consumeEOF reads the EOF, or a reset, if nothing else is left to read. The
// Read does not block, because all bytes up to the final size have been read.
// The program does not notice: its next Read returns the same.
func (st *streamState) consumeEOF() {
	if st.read.Load() != st.finalSize.Load() {
		return
	}
	st.mu.Lock()
	open := st.receiveHalf == HalfOpen
	st.mu.Unlock()
	if !open {
		return
	}
	st.receive().SetReadDeadline(time.Time{}) // a deadline in the past would hide the EOF
	_, err := st.receive().Read(noBytes[:])
	if err == io.EOF {
		st.mu.Lock()
		st.unseenEOF = st.receiveHalf == HalfOpen // else a Read of the program has seen it meanwhile
		st.mu.Unlock()
	}
	st.readFailed(0, err)
}

// seeEOF is called when a Read or Peek of size bytes meets the EOF. It returns
// what quic-go would return if consumeEOF had not read the EOF before.
func (st *streamState) seeEOF(size int) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	deadline := time.Duration(st.readDeadline.Load())
	switch {
	case !st.unseenEOF:
		return io.EOF
	case st.extra != nil && st.extra.readErr != nil:
		return st.extra.readErr
	case size == 0:
		return nil
	}
	st.unseenEOF = false // even if we return the deadline's error, so that it comes only once
	if deadline != 0 && st.conn.now() >= deadline {
		return os.ErrDeadlineExceeded
	}
	return io.EOF
}

func (st *streamState) setReadDeadline(t time.Time) error {
	if st.draining.Load() {
		return nil // the deadline is ours now
	}
	st.readDeadline.Store(int64(st.conn.since(t)))
	return st.receive().SetReadDeadline(t)
}
