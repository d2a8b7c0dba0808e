package quiclife_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// TestFinalSizeCallbackIsCalledOnce: as in quic-go, whether it is set before or
// after the size is known, and before or after Close. Close sets our own
// callback, and quic-go takes only one.
func TestFinalSizeCallbackIsCalledOnce(t *testing.T) {
	t.Parallel()
	for _, steps := range [][]string{
		{"set", "fin"}, {"fin", "set"},
		{"set", "close", "fin"}, {"close", "set", "fin"}, {"close", "fin", "set"}, {"set", "fin", "close"},
		{"set", "set", "close", "fin"}, {"set", "clear", "close", "fin"}, {"set", "close", "clear", "fin"},
	} {
		setup{}.in(t, func(t *testing.T, e ends) {
			client, server := e.stream(t)
			var sizes []int64
			want, set := []int64(nil), false
			for _, step := range steps {
				switch step {
				case "set":
					client.SetReceiveFinalSizeCallback(func(n int64) { sizes = append(sizes, n) })
					set = true
				case "clear":
					client.SetReceiveFinalSizeCallback(nil)
					set = false
				case "close":
					client.Close()
				case "fin":
					write(t, server, "12345")
					server.Close()
				}
				settled()
			}
			if set {
				want = []int64{5}
			}
			require.Equal(t, want, sizes, "%v", steps)
			client.SetReceiveFinalSizeCallback(nil)
			e.requireNothingLeftOf(t, client, server)
		})
	}
}

// TestConsumedEOFIsStillThereToRead: after we have consumed the EOF, Read, Peek
// and CancelRead do what they would do without that.
func TestConsumedEOFIsStillThereToRead(t *testing.T) {
	t.Parallel()
	type stream interface {
		io.ReadWriteCloser
		Peek([]byte) (int, error)
		CancelRead(quic.StreamErrorCode)
		CancelWrite(quic.StreamErrorCode)
		SetReadDeadline(time.Time) error
	}
	byte1 := make([]byte, 1)
	for name, read := range map[string]func(s stream) []error{
		"a deadline that has passed": func(s stream) (errs []error) {
			s.SetReadDeadline(time.Now().Add(-time.Second))
			_, err := s.Read(byte1)
			_, err2 := s.Peek(byte1)
			s.SetReadDeadline(time.Now().Add(time.Second))
			_, err3 := s.Read(byte1)
			s.SetReadDeadline(time.Now().Add(-time.Second))
			_, err4 := s.Read(byte1)
			return []error{err, err2, err3, err4}
		},
		"nothing to read into": func(s stream) (errs []error) {
			_, err := s.Read(nil)
			_, err2 := s.Peek(nil)
			_, err3 := s.Read(byte1)
			_, err4 := s.Read(nil)
			return []error{err, err2, err3, err4}
		},
		"CancelRead": func(s stream) (errs []error) {
			s.CancelRead(3)
			s.CancelRead(4)
			_, err := s.Read(byte1)
			_, err2 := s.Peek(byte1)
			_, err3 := s.Read(nil)
			return []error{err, err2, err3}
		},
		"CancelRead after the EOF": func(s stream) (errs []error) {
			_, err := s.Read(byte1)
			s.CancelRead(3)
			_, err2 := s.Read(byte1)
			return []error{err, err2}
		},
	} {
		t.Run(name, func(t *testing.T) {
			setup{}.in(t, func(t *testing.T, e ends) {
				var plain []error
				for _, wrapped := range []bool{false, true} {
					var s stream
					var err error
					if wrapped {
						s, err = e.client.OpenStream()
					} else {
						s, err = e.rawClient.OpenStream()
					}
					require.NoError(t, err)
					write(t, s, "x")
					require.NoError(t, s.Close())
					peer, err := e.rawServer.AcceptStream(t.Context())
					require.NoError(t, err)
					peer.Write([]byte("y"))
					settled()
					expect(t, s, "y")
					peer.Close()
					settled() // so that the FIN comes in a separate frame
					errs := read(s)
					if !wrapped {
						plain = errs
						continue
					}
					for i := range plain {
						if errors.Is(plain[i], os.ErrDeadlineExceeded) {
							require.ErrorIs(t, errs[i], os.ErrDeadlineExceeded, "call %d", i)
						} else {
							require.Equal(t, fmt.Sprintf("%T", plain[i]), fmt.Sprintf("%T", errs[i]), "call %d", i)
							require.Equal(t, plain[i] == nil, errs[i] == nil, "call %d", i)
							require.Equal(t, plain[i] == io.EOF, errs[i] == io.EOF, "call %d: %v", i, errs[i])
						}
					}
					require.EqualValues(t, 1, e.client.Stats().Outgoing.Finished)
				}
			})
		})
	}
}

// TestCalledFinalSizeCallbackIsForgotten: a callback that refers to its stream
// would keep the stream from being found dropped.
func TestCalledFinalSizeCallbackIsForgotten(t *testing.T) {
	var found leaks
	setup{guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
		func() {
			s, peer := e.stream(t)
			s.SetReceiveFinalSizeCallback(func(int64) { s.Info() })
			peer.Close()
			settled()
			peer.Release()
		}()
		settled()
		collectAndLook(e.client)
		settled()
		require.Len(t, found.list(), 1, "leaks found")
	})
}

// TestReaderThatPollsIsReading: HalfCloseTimeout spares a stream if the program
// polls it with Reads that time out.
func TestReaderThatPollsIsReading(t *testing.T) {
	t.Parallel()
	conf := &quic.Config{MaxIdleTimeout: time.Hour}
	setup{guard: &quiclife.Guard{HalfCloseTimeout: 10 * time.Second}, clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		s.Close()
		for range 60 {
			s.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			s.Read(make([]byte, 1))
			time.Sleep(time.Second)
		}
		requireHalves(t, s, quiclife.HalfFinished, quiclife.HalfOpen)
		s.Release()
		peer.Release()
	})
}

// TestPeekOfTheLastByteConsumesNothing: the error that comes with the byte does
// not count as read.
func TestPeekOfTheLastByteConsumesNothing(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		write(t, client, "y")
		client.Close()
		for range 2 {
			b := make([]byte, 2)
			n, err := server.Peek(b)
			require.Equal(t, io.EOF, err)
			require.Equal(t, "y", string(b[:n]))
		}
		expectAll(t, server, "y")
		client.Release()
		server.Release()
	})
}
