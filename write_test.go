package quiclife_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// TestNothingLost holds promise 2: any split of any size, written with any of
// the three calls, closed, answered and read to EOF on both sides, arrives
// byte for byte; also through a small window and with every tenth packet lost.
func TestNothingLost(t *testing.T) {
	for name, s := range map[string]setup{
		"plain":        {},
		"small window": {clientConf: matrixConf, serverConf: matrixConf},
		"loss":         {net: quictest.Net{Drop: dropTenth()}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.in(t, func(t *testing.T, e ends) {
				data := randomBytes(300_000)
				go echo(e.server)
				r := rand.New(rand.NewPCG(1, 2))
				for _, size := range []int{0, 1, 2, 100, 1451, 1452, 1453, 16 << 10, 16<<10 + 1, 100_000, 300_000} {
					for _, most := range []int{1 << 20, 40_000, 3000, 1 + size/50} {
						str, err := e.client.OpenStreamSync(t.Context())
						require.NoError(t, err)
						answer := make(chan []byte)
						go func() {
							b, err := io.ReadAll(str)
							if err != nil {
								t.Error(err)
							}
							answer <- b
						}()
						for p := data[:size]; len(p) > 0; {
							n := min(len(p), 1+r.IntN(most))
							writeSomehow(t, str, p[:n], r.IntN(4))
							p = p[n:]
						}
						require.NoError(t, str.Close())
						require.Equal(t, sha256.Sum256(data[:size]), sha256.Sum256(<-answer), "size %d, splits of up to %d", size, most)
						require.EqualValues(t, size, str.Info().BytesWritten)
						require.EqualValues(t, size, str.Info().BytesRead)
					}
				}
				settled()
				e.requireNothingLeft(t)
			})
		})
	}
}

func dropTenth() func(simnet.Packet) bool {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(3, 4))
	return func(simnet.Packet) bool {
		mu.Lock()
		defer mu.Unlock()
		return r.IntN(10) == 0
	}
}

// echo reads each stream to its end and sends it back.
func echo(c *quiclife.Conn) {
	for {
		s, err := c.AcceptStream(c.Context())
		if err != nil {
			return
		}
		go func() {
			defer s.Release()
			b, err := io.ReadAll(s)
			if err == nil {
				s.Write(b)
				s.Close()
			}
		}()
	}
}

func writeSomehow(t *testing.T, s *quiclife.Stream, p []byte, how int) {
	switch how {
	case 0:
		for { // in pieces that a limiter allows
			n, err := s.WriteWithLimit(p, func(most int) int { return min(most, 700) })
			if p = p[n:]; err == nil {
				require.Empty(t, p)
				return
			}
			require.Equal(t, quiclife.ErrWriteLimitReached, err)
		}
	case 1:
		err := s.TryWriteAll(p)
		if err == nil {
			return
		}
		require.Equal(t, quiclife.ErrWouldBlock, err)
		fallthrough
	case 2:
		n, err := s.Write(p)
		require.NoError(t, err)
		require.Equal(t, len(p), n)
	case 3:
		n, err := s.WriteWithLimit(p, nil)
		require.NoError(t, err)
		require.Equal(t, len(p), n)
	}
}

// TestNothingCutLooksWhole holds promise 3: a message that Write did not take
// in full never ends in io.EOF at the peer, and one that was continued does.
func TestNothingCutLooksWhole(t *testing.T) {
	data := randomBytes(50_000)
	deadline := func(s *quiclife.Stream) {
		s.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	}
	for _, c := range []struct {
		name  string
		do    func(t *testing.T, s *quiclife.Stream)
		whole bool
	}{
		{"Write cut by its deadline", func(t *testing.T, s *quiclife.Stream) {
			deadline(s)
			n, err := s.Write(data)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.Less(t, n, len(data))
		}, false},
		{"Write not begun for its deadline", func(t *testing.T, s *quiclife.Stream) {
			write(t, s, "message")
			s.SetWriteDeadline(time.Now())
			n, err := s.Write([]byte("x"))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.Zero(t, n)
		}, false},
		{"WriteWithLimit at its limit", func(t *testing.T, s *quiclife.Stream) {
			n, err := s.WriteWithLimit(data[:100], func(most int) int { return min(most, 10) })
			require.Equal(t, quiclife.ErrWriteLimitReached, err)
			require.Equal(t, 10, n)
		}, false},
		{"small Writes until the window is full", func(t *testing.T, s *quiclife.Stream) {
			deadline(s)
			for {
				if _, err := s.Write(data[:100]); err != nil {
					require.ErrorIs(t, err, os.ErrDeadlineExceeded)
					return
				}
			}
		}, false},
		{"Write of nothing after a cut", func(t *testing.T, s *quiclife.Stream) {
			deadline(s)
			s.Write(data)
			s.SetWriteDeadline(time.Time{})
			write(t, s, "")
		}, false},
		{"TryWriteAll that would block", func(t *testing.T, s *quiclife.Stream) {
			write(t, s, "message")
			require.Equal(t, quiclife.ErrWouldBlock, s.TryWriteAll(data))
		}, true},
		{"nothing written", func(t *testing.T, s *quiclife.Stream) {}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup{serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
				s, peer := e.stream(t)
				c.do(t, s)
				if err := s.Close(); c.whole {
					require.NoError(t, err)
				} else {
					require.Equal(t, quiclife.ErrWriteCut, err)
				}
				_, err := io.ReadAll(peer)
				if c.whole {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, &quiclife.StreamError{StreamID: peer.StreamID(), Remote: true})
				}
				s.Release()
				peer.Release()
				settled()
				e.requireNothingLeft(t)
			})
		})
	}
	t.Run("continued after its deadline", func(t *testing.T) {
		setup{serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
			s, peer := e.stream(t)
			deadline(s)
			n, err := s.Write(data)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			var read []byte
			var wg sync.WaitGroup
			wg.Go(func() { read, _ = io.ReadAll(peer) })
			s.SetWriteDeadline(time.Time{})
			_, err = s.Write(data[n:])
			require.NoError(t, err)
			require.NoError(t, s.Close())
			wg.Wait()
			require.True(t, bytes.Equal(data, read))
			s.Release()
			peer.Release()
			settled()
			e.requireNothingLeft(t)
		})
	})
}

// TestWriteAfterEnd: what Write and its siblings return once the half ended.
func TestWriteAfterEnd(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(s, peer *quiclife.Stream)
		err  error
	}{
		{"Close", func(s, peer *quiclife.Stream) { s.Close() }, quiclife.ErrStreamClosed},
		{"CancelWrite", func(s, peer *quiclife.Stream) { s.CancelWrite(3) }, &quiclife.StreamError{ErrorCode: 3}},
		{"Release", func(s, peer *quiclife.Stream) { s.Release() }, &quiclife.StreamError{}},
		{"STOP_SENDING", func(s, peer *quiclife.Stream) { peer.CancelRead(4); settled() }, &quiclife.StreamError{ErrorCode: 4, Remote: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup{}.in(t, func(t *testing.T, e ends) {
				s, peer := e.stream(t)
				c.end(s, peer)
				for range 2 {
					_, err := s.Write([]byte("x"))
					require.ErrorIs(t, err, c.err)
					_, err = s.Write(large)
					require.ErrorIs(t, err, c.err)
					_, err = s.Write(nil)
					require.ErrorIs(t, err, c.err)
					_, err = s.WriteWithLimit([]byte("x"), func(n int) int { return n })
					require.ErrorIs(t, err, c.err)
					require.ErrorIs(t, s.TryWriteAll([]byte("x")), c.err)
				}
				require.EqualValues(t, 1, s.Info().BytesWritten)
				s.Release()
				peer.Release()
				settled()
				e.requireNothingLeft(t)
			})
		})
	}
}

// TestConcurrentWrites: whole Writes follow each other, in any order, and
// TryWriteAll does not wait for them.
func TestConcurrentWrites(t *testing.T) {
	setup{serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		const writers, each, size = 8, 20, 700
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				for range each {
					s.Write(bytes.Repeat([]byte{byte(i)}, size))
				}
			})
		}
		settled() // the window is full
		require.Equal(t, quiclife.ErrWouldBlock, s.TryWriteAll([]byte("x")))
		go func() { wg.Wait(); s.Close() }()
		b, err := io.ReadAll(peer)
		require.NoError(t, err)
		count := map[byte]int{}
		for chunk := range slices.Chunk(b, size) {
			require.Equal(t, bytes.Repeat(chunk[:1], size), chunk)
			count[chunk[0]]++
		}
		require.Len(t, count, writers)
		for i, n := range count {
			require.Equal(t, each, n, "writer %d", i)
		}
	})
}

// TestSmallWritesAreBounded: what is queued for a peer that grants much but
// takes nothing stays small.
func TestSmallWritesAreBounded(t *testing.T) {
	lost := false
	conf := &quic.Config{InitialStreamReceiveWindow: 4 << 20, InitialConnectionReceiveWindow: 8 << 20, MaxIdleTimeout: time.Hour}
	drop := func(simnet.Packet) bool { return lost }
	setup{clientConf: conf, serverConf: conf, net: quictest.Net{Drop: drop}}.in(t, func(t *testing.T, e ends) {
		s, _ := e.stream(t)
		settled()
		window := int64(e.client.ConnectionStats().CongestionWindow)
		lost = true // no more acknowledgements: the congestion window fills
		s.SetWriteDeadline(time.Now().Add(10 * time.Second))
		for {
			if _, err := s.Write(make([]byte, 500)); err != nil {
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				break
			}
		}
		require.Less(t, s.Info().BytesWritten, window+20_000)
	})
}

// TestDeadlineInTime: a Write whose deadline has passed queues nothing.
func TestDeadlineInTime(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		for _, deadline := range []time.Time{time.Unix(1, 0), time.Now().Add(-time.Hour), time.Now()} {
			require.NoError(t, s.SetWriteDeadline(deadline))
			n, err := s.Write([]byte("late"))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded, "%v", deadline)
			require.Zero(t, n)
		}
		for _, deadline := range []time.Time{{}, time.Now().Add(time.Hour), time.Now().AddDate(1000, 0, 0)} {
			require.NoError(t, s.SetDeadline(deadline))
			write(t, s, "y")
			expect(t, peer, "y")
		}
		s.Release()
		peer.Release()
	})
}

// TestNoMoreAllocations: Read, Write and Peek allocate no more than quic-go's.
func TestNoMoreAllocations(t *testing.T) {
	if testing.Short() {
		t.Skip("measures")
	}
	e := setup{}.onLoopback(t)
	type stream interface {
		io.ReadWriteCloser
		Peek([]byte) (int, error)
	}
	measure := func(local, peer stream) float64 {
		write(t, local, "x")
		buf := make([]byte, 1)
		return testing.AllocsPerRun(2000, func() {
			local.Write(buf)
			peer.Peek(buf)
			peer.Read(buf)
		})
	}
	var more []float64
	for range 5 {
		plain, err := e.rawClient.OpenStream()
		require.NoError(t, err)
		_, err = plain.Write([]byte("x"))
		require.NoError(t, err)
		plainPeer, err := e.rawServer.AcceptStream(t.Context())
		require.NoError(t, err)
		ours, err := e.client.OpenStream()
		require.NoError(t, err)
		write(t, ours, "x")
		oursPeer, err := e.server.AcceptStream(t.Context())
		require.NoError(t, err)
		more = append(more, measure(ours, oursPeer)-measure(plain, plainPeer))
		oursPeer.Release()
		ours.Release()
		plain.CancelRead(0)
		plain.CancelWrite(0)
	}
	slices.Sort(more)
	require.Less(t, more[len(more)/2], 0.5, fmt.Sprint(more))
}
