package quiclife

import (
	"io"
	"math"
	"os"
	"time"
)

// What Read and Peek do beside quic-go's.

// willRead accounts for a Read or a Peek that begins, and fails if it is not
// for the program any more to read.
func (st *streamState) willRead() error {
	if err := st.drained(); err != nil {
		return err
	}
	st.readers.Add(1)
	st.reads.Add(1)
	st.conn.mayStall()
	return nil
}

// didRead accounts for a Read into size bytes that has returned, and returns
// its error.
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

// readError is what the program sees of an error that quic-go returned.
func (st *streamState) readError(err error) error {
	switch {
	case err == io.EOF:
		return err
	case !isDeadline(err):
		return st.receiveCanceled(err)
	}
	if drained := st.drained(); drained != nil { // the deadline was ours
		return drained
	}
	return err
}

// didPeek accounts for a Peek that has returned. quic-go does not count an
// error that Peek returned as noticed, so when nothing is left to read but
// that error, it is read here.
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
// EOF, if the FIN comes in a frame of its own, and quic-go keeps the stream
// for it. So when nothing can be sent any more, we have quic-go tell us the
// final size, and when all bytes up to it have been read, consume the EOF.

const sizeUnknown = math.MaxInt64 // of streamState.finalSize

// watchFinalSize has finalSizeKnown called, at once if the size is known.
func (st *streamState) watchFinalSize() {
	st.receive().SetReceiveFinalSizeCallback(st.finalSizeKnown)
}

// finalSizeKnown is quic-go's callback. It may be called on the connection's
// event loop, where it must not block.
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

// setFinalSizeCallback is SetReceiveFinalSizeCallback: quic-go has one slot,
// which the user's callback and ours share.
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
	if !open {
		return
	}
	st.receive().SetReadDeadline(time.Time{}) // one that has passed would hide the EOF
	_, err := st.receive().Read(noBytes[:])
	if err == io.EOF {
		st.mu.Lock()
		st.unseenEOF = st.receiveHalf == HalfOpen // else a Read has seen it meanwhile
		st.mu.Unlock()
	}
	st.readFailed(0, err)
}

// seeEOF returns what quic-go would if consumeEOF had left the EOF to the Read
// or Peek of size bytes that has now come upon it.
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
	st.unseenEOF = false // also after the deadline's error, of which there is one
	if deadline != 0 && st.conn.now() >= deadline {
		return os.ErrDeadlineExceeded
	}
	return io.EOF
}

func (st *streamState) setReadDeadline(t time.Time) error {
	if st.draining.Load() {
		return nil // it is ours
	}
	st.readDeadline.Store(int64(st.conn.since(t)))
	return st.receive().SetReadDeadline(t)
}
