package quiclife_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// The defects of quic-go v0.65.0 that quiclife works around. Each test shows a
// defect on plain quic-go, and shows that it is absent here. If the plain half
// of a test fails after an upgrade, quic-go has fixed the defect, and the
// workaround can be removed.

// windowConf is the Config of a peer whose windows are 10,000 bytes.
var windowConf = &quic.Config{InitialStreamReceiveWindow: 10_000, MaxStreamReceiveWindow: 10_000, MaxIdleTimeout: time.Hour}

// writer has the methods that the plain and the wrapped stream share.
type writer interface {
	Write([]byte) (int, error)
	CancelWrite(quic.StreamErrorCode)
	CancelRead(quic.StreamErrorCode)
	Close() error
	SetReliableBoundary()
}

// cancelBlockedWrite fills the peer's window, and cancels a Write of 100 bytes
// that is blocked behind 1400 buffered bytes.
func cancelBlockedWrite(t *testing.T, s writer) {
	t.Helper()
	_, err := s.Write(make([]byte, 10_000))
	require.NoError(t, err)
	settled()
	done := make(chan struct{})
	go func() {
		s.Write(make([]byte, 1400))
		s.Write(make([]byte, 100))
		close(done)
	}()
	settled()
	s.CancelWrite(1)
	s.CancelRead(1)
	s.Close()
	<-done
	settled()
}

// If a plain Write is cancelled while it is blocked with less than a packet
// left, it leaves a frame behind. quic-go then keeps the stream until the
// connection ends.
func TestDefectCancelledWriteKeepsStream(t *testing.T) {
	setup{serverConf: windowConf}.in(t, func(t *testing.T, e ends) {
		plain, err := e.rawClient.OpenStream()
		require.NoError(t, err)
		cancelBlockedWrite(t, plain)
		require.Equal(t, 1, quictest.Held(e.rawClient), "quic-go has mended the cancelled Write")

		ours, err := e.client.OpenStream()
		require.NoError(t, err)
		cancelBlockedWrite(t, ours)
		require.Equal(t, 1, quictest.Held(e.rawClient), "only the plain one")
	})
}

// The same with the peer's STOP_SENDING.
func TestBlockedWriteThatPeerStopsKeepsNoStream(t *testing.T) {
	setup{serverConf: windowConf}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		_, err := s.Write(make([]byte, 9000))
		require.NoError(t, err)
		settled()
		done := make(chan error, 1)
		go func() {
			s.Write(make([]byte, 1400))
			_, err := s.Write(make([]byte, 100))
			done <- err
		}()
		settled()
		peer.Release()
		require.Error(t, <-done)
		s.Release()
		settled()
		e.requireNothingLeft(t)
	})
}

// Writes of all sizes are cancelled at random moments, with default windows and
// a peer that reads.
func TestDefectCancelledWriteInPractice(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		go func() {
			for {
				in, err := e.server.AcceptStream(context.Background())
				if err != nil {
					return
				}
				go func() {
					defer in.Release()
					buf := make([]byte, 100_000)
					for {
						if _, err := in.Read(buf); err != nil {
							return
						}
					}
				}()
			}
		}()
		for i := range 36 {
			s, err := e.client.OpenStreamSync(t.Context())
			require.NoError(t, err)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					if _, err := s.Write(make([]byte, 1+i*39)); err != nil {
						return
					}
				}
			}()
			time.Sleep(time.Duration(i*7%36) * 100 * time.Microsecond)
			s.CancelWrite(1)
			<-done
			s.Release()
		}
		settled()
		e.requireNothingLeft(t)
	})
}

// With RESET_STREAM_AT, a plain Write that is buffered for lack of flow control
// credit counts in the final size of a reset. That ends the connection.
func TestDefectBufferedReliableWriteEndsConnection(t *testing.T) {
	conf := windowConf.Clone()
	conf.EnableStreamResetPartialDelivery = true
	cancelReliable := func(t *testing.T, s writer) {
		_, err := s.Write(make([]byte, 10_000))
		require.NoError(t, err)
		settled()
		go s.Write(make([]byte, 100))
		settled()
		s.SetReliableBoundary()
		s.CancelWrite(1)
		settled()
	}
	setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		plain, err := e.rawClient.OpenStream()
		require.NoError(t, err)
		cancelReliable(t, plain)
		var transportErr *quic.TransportError
		require.ErrorAs(t, context.Cause(e.rawServer.Context()), &transportErr, "quic-go has mended the buffered reliable Write")
		require.Equal(t, quic.FlowControlError, transportErr.ErrorCode)
	})
	setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		ours, err := e.client.OpenStream()
		require.NoError(t, err)
		cancelReliable(t, ours)
		require.NoError(t, e.server.Context().Err())
		ours.Release()
		in, err := e.server.AcceptStream(t.Context())
		require.NoError(t, err)
		in.Release()
		settled()
		e.requireNothingLeft(t)
	})
}

// With RESET_STREAM_AT, Close before or after CancelWrite makes quic-go send a
// FIN at the reliable size, which differs from the final size of the reset.
// That ends the connection.
func TestDefectFINAtReliableSizeEndsConnection(t *testing.T) {
	conf := &quic.Config{EnableStreamResetPartialDelivery: true}
	orders := map[string]func(s writer){
		"CancelWrite, Close": func(s writer) { s.CancelWrite(1); s.Close() },
		"Close, CancelWrite": func(s writer) { s.Close(); s.CancelWrite(1) },
	}
	for name, order := range orders {
		t.Run("plain "+name, func(t *testing.T) {
			var transportErr *quic.TransportError
			for range 20 { // a packet may be sent between two of the calls
				synctest.Test(t, func(t *testing.T) {
					rc, rs := quictest.Net{}.Pair(t, conf, conf)
					s, err := rc.OpenStream()
					require.NoError(t, err)
					require.NoError(t, s.TryWriteAll([]byte("reliable")))
					s.SetReliableBoundary()
					require.NoError(t, s.TryWriteAll([]byte("not so")))
					order(s)
					settled()
					errors.As(context.Cause(rs.Context()), &transportErr)
				})
				if transportErr != nil {
					break
				}
			}
			require.NotNil(t, transportErr, "quic-go has mended the FIN of a reliable reset")
			require.Equal(t, quic.FinalSizeError, transportErr.ErrorCode)
		})
	}
	orders["Release"] = func(s writer) { s.(*quiclife.Stream).Release() }
	orders["Close, Reset"] = func(s writer) { s.Close(); s.(*quiclife.Stream).Reset(1) }
	for name, order := range orders {
		t.Run(name, func(t *testing.T) {
			setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				write(t, s, "reliable")
				s.SetReliableBoundary()
				write(t, s, "not so")
				order(s)
				in, err := e.server.AcceptStream(t.Context())
				require.NoError(t, err)
				if name != "Release" && name != "Close, Reset" { // the others stop reading and so writing
					expect(t, in, "reliable")
				}
				s.Release()
				in.Release()
				settled()
				e.requireNothingLeft(t)
			})
		})
	}
}

// With RESET_STREAM_AT, data that TryWriteAll has queued beyond the boundary
// counts in the final size of CancelWrite, but not in that of the reset that
// answers a later STOP_SENDING.
func TestDefectStopSendingAfterReliableResetEndsConnection(t *testing.T) {
	conf := &quic.Config{EnableStreamResetPartialDelivery: true}
	synctest.Test(t, func(t *testing.T) {
		rc, rs := quictest.Net{}.Pair(t, conf, conf)
		s, err := rc.OpenStream()
		require.NoError(t, err)
		require.NoError(t, s.TryWriteAll([]byte("reliable")))
		in, err := rs.AcceptStream(t.Context())
		require.NoError(t, err)
		s.SetReliableBoundary()
		require.NoError(t, s.TryWriteAll([]byte("not so")))
		s.CancelWrite(1)
		in.CancelRead(2)
		settled()
		var transportErr *quic.TransportError
		require.ErrorAs(t, context.Cause(rs.Context()), &transportErr, "quic-go has mended the final size of a reset that replaces another")
		require.Equal(t, quic.FinalSizeError, transportErr.ErrorCode)
	})
	// TestReleaseAfterQueuedWriteKeepsConnectionAlive shows that the defect is
	// absent here.
}

// If a RESET_STREAM_AT arrives after CancelRead, with reliable data that was
// not read, that data takes up the connection's window forever. quiclife cannot
// change that: quic-go no longer has the stream.
func TestDefectPartialResetKeepsCredit(t *testing.T) {
	conf := &quic.Config{EnableStreamResetPartialDelivery: true, InitialConnectionReceiveWindow: 10_000, MaxConnectionReceiveWindow: 10_000}
	synctest.Test(t, func(t *testing.T) {
		rc, rs := quictest.Net{}.Pair(t, conf, conf)
		for range 9 {
			s, err := rc.OpenUniStream()
			require.NoError(t, err)
			_, err = s.Write(make([]byte, 1000))
			require.NoError(t, err)
			in, err := rs.AcceptUniStream(t.Context())
			require.NoError(t, err)
			s.SetReliableBoundary()
			s.CancelWrite(1) // crosses with the STOP_SENDING
			in.CancelRead(1)
			settled()
		}
		s, err := rc.OpenUniStream()
		require.NoError(t, err)
		require.Equal(t, quic.ErrWouldBlock, s.TryWriteAll(make([]byte, 2000)), "quic-go has mended the credit of a reset that is partly reliable")
	})
}
