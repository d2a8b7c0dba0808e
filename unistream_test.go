package quiclife_test

import (
	"io"
	"os"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// TestUniStreamIsFreedByEachEnd goes through the ways to end unidirectional
// streams.
func TestUniStreamIsFreedByEachEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name             string
		send             func(*quiclife.SendStream)
		receive          func(*quiclife.ReceiveStream)
		sender, receiver quiclife.HalfState
	}{
		{"finished", func(s *quiclife.SendStream) { s.Close() }, func(r *quiclife.ReceiveStream) { io.ReadAll(r) }, quiclife.HalfFinished, quiclife.HalfFinished},
		{"exact read only", func(s *quiclife.SendStream) { s.Close() }, func(r *quiclife.ReceiveStream) {}, quiclife.HalfFinished, quiclife.HalfFinished},
		{"exact read, late FIN", func(s *quiclife.SendStream) { time.Sleep(time.Second); s.Close() }, func(r *quiclife.ReceiveStream) {}, quiclife.HalfFinished, quiclife.HalfFinished},
		{"peek only", func(s *quiclife.SendStream) { s.Close() }, func(r *quiclife.ReceiveStream) { r.Peek(make([]byte, 1)) }, quiclife.HalfFinished, quiclife.HalfFinished},
		{"reset", func(s *quiclife.SendStream) { s.CancelWrite(1) }, func(r *quiclife.ReceiveStream) { io.ReadAll(r) }, quiclife.HalfAborted, quiclife.HalfAborted},
		{"released", func(s *quiclife.SendStream) { s.Release() }, func(r *quiclife.ReceiveStream) { r.Release() }, quiclife.HalfAborted, quiclife.HalfAborted},
		{"Reset", func(s *quiclife.SendStream) { s.Reset(1) }, func(r *quiclife.ReceiveStream) { r.Reset(1) }, quiclife.HalfAborted, quiclife.HalfAborted},
		{"cancelled", func(s *quiclife.SendStream) { settled(); s.Close() }, func(r *quiclife.ReceiveStream) { r.CancelRead(1) }, quiclife.HalfAborted, quiclife.HalfAborted},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup{}.in(t, func(t *testing.T, e ends) {
				s, r := e.uniStream(t)
				together(func() { c.send(s) }, func() { c.receive(r) })
				settled()
				requireHalves(t, s, c.sender, quiclife.HalfAbsent)
				requireHalves(t, r, quiclife.HalfAbsent, c.receiver)
				e.requireNothingLeft(t)
			})
		})
	}
}

// TestUniStreamBoundaryHoldsAgainstReset: what was written before the boundary
// is delivered. After Close the rest is delivered too.
func TestUniStreamBoundaryHoldsAgainstReset(t *testing.T) {
	t.Parallel()
	conf := &quic.Config{EnableStreamResetPartialDelivery: true}
	setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		s, err := e.client.OpenUniStream()
		require.NoError(t, err)
		require.NoError(t, s.TryWriteAll([]byte("abc")))
		require.EqualValues(t, 3, s.Info().BytesWritten)
		s.SetReliableBoundary()
		write(t, s, "def")
		r, err := e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		s.Close()
		s.Reset(1) // no effect
		settled()
		b, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, "abcdef", string(b))
		settled()
		e.requireNothingLeft(t)
	})
}

// TestUniStreamDeadlinesEndNothing: neither that of Read nor that of Write.
func TestUniStreamDeadlinesEndNothing(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		s, r := e.uniStream(t)
		r.SetReadDeadline(time.Now())
		_, err := r.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		s.SetWriteDeadline(time.Now())
		_, err = s.Write([]byte("late"))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		requireHalves(t, s, quiclife.HalfOpen, quiclife.HalfAbsent)
		requireHalves(t, r, quiclife.HalfAbsent, quiclife.HalfOpen)
		r.SetReadDeadline(time.Time{})
		s.SetWriteDeadline(time.Time{})
		write(t, s, "in time")
		expect(t, r, "in time")
		s.Release()
		r.Release()
	})
}

// TestUniStreamFinalSizeCallbackIsCalledOnce: whether or not the EOF is read.
func TestUniStreamFinalSizeCallbackIsCalledOnce(t *testing.T) {
	t.Parallel()
	for _, readEOF := range []bool{false, true} {
		setup{}.in(t, func(t *testing.T, e ends) {
			s, r := e.uniStream(t)
			var sizes []int64
			r.SetReceiveFinalSizeCallback(func(n int64) { sizes = append(sizes, n) })
			write(t, s, "abc")
			expect(t, r, "abc")
			s.Close()
			if readEOF {
				_, err := r.Read(make([]byte, 1))
				require.Equal(t, io.EOF, err)
			}
			settled()
			require.Equal(t, []int64{4}, sizes, "EOF read: %v", readEOF)
			e.requireNothingLeft(t)
		})
	}
}

// TestUniStreamPeekEndsStreamThatWasReset: at once, even if earlier data was
// not read.
func TestUniStreamPeekEndsStreamThatWasReset(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		s, r := e.uniStream(t)
		write(t, s, "not read")
		settled()
		s.CancelWrite(7)
		settled()
		n, err := r.Peek(make([]byte, 1))
		require.ErrorIs(t, err, &quiclife.StreamError{StreamID: r.StreamID(), ErrorCode: 7, Remote: true})
		require.Zero(t, n)
		requireHalves(t, r, quiclife.HalfAbsent, quiclife.HalfAborted)
	})
}
