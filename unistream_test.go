package quiclife_test

import (
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// TestUniStreams goes through the ends of unidirectional streams.
func TestUniStreams(t *testing.T) {
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
				s, err := e.client.OpenUniStreamSync(t.Context())
				require.NoError(t, err)
				write(t, s, "abc")
				r, err := e.server.AcceptUniStream(t.Context())
				require.NoError(t, err)
				expect(t, r, "abc")
				var wg sync.WaitGroup
				wg.Go(func() { c.send(s) })
				wg.Go(func() { c.receive(r) })
				wg.Wait()
				settled()
				require.Equal(t, [2]quiclife.HalfState{c.sender, quiclife.HalfAbsent}, [2]quiclife.HalfState{s.Info().Send, s.Info().Receive})
				require.Equal(t, [2]quiclife.HalfState{quiclife.HalfAbsent, c.receiver}, [2]quiclife.HalfState{r.Info().Send, r.Info().Receive})
				e.requireNothingLeft(t)
			})
		})
	}
}

// The methods of unidirectional streams that the other tests do not call.
func TestEdgeUni(t *testing.T) {
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
		var sizes []int64
		r.SetReceiveFinalSizeCallback(func(n int64) { sizes = append(sizes, n) })
		s.Close()
		s.Reset(1) // no effect after a boundary and Close
		r.SetReadDeadline(time.Now())
		_, err = r.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		r.SetReadDeadline(time.Time{})
		b, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, "abcdef", string(b))
		settled()
		require.Equal(t, []int64{6}, sizes)
		e.requireNothingLeft(t)

		s, err = e.client.OpenUniStream()
		require.NoError(t, err)
		s.SetWriteDeadline(time.Now())
		_, err = s.Write([]byte("late"))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		s.Release()
	})
	// exact read of a uni stream with a callback, EOF not read
	setup{}.in(t, func(t *testing.T, e ends) {
		s, err := e.client.OpenUniStream()
		require.NoError(t, err)
		write(t, s, "abc")
		r, err := e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		called := 0
		r.SetReceiveFinalSizeCallback(func(int64) { called++ })
		expect(t, r, "abc")
		s.Close()
		settled()
		require.Equal(t, 1, called)
		e.requireNothingLeft(t)
	})
}
