package quiclife_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// TestNothingLost tests promise 2: data of any size, split in any way, written
// with any of the three calls, closed, answered and read to EOF on both sides,
// arrives byte for byte. This holds even with a small window, and with every
// tenth packet lost.
func TestNothingLost(t *testing.T) {
	t.Parallel()
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

// TestNothingCutLooksWhole tests promise 3: a message that Write did not take
// in full never ends in io.EOF at the peer, unless it was continued.
func TestNothingCutLooksWhole(t *testing.T) {
	t.Parallel()
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
				e.requireNothingLeftOf(t, s, peer)
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
			require.Equal(t, sha256.Sum256(data), sha256.Sum256(read), "%d of %d bytes read", len(read), len(data))
			e.requireNothingLeftOf(t, s, peer)
		})
	})
}

// TestWriteAfterEndSaysHowItEnded: so do WriteWithLimit and TryWriteAll.
func TestWriteAfterEndSaysHowItEnded(t *testing.T) {
	t.Parallel()
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
					_, err = s.WriteWithLimit([]byte("x"), takeAll)
					require.ErrorIs(t, err, c.err)
					require.ErrorIs(t, s.TryWriteAll([]byte("x")), c.err)
				}
				require.EqualValues(t, 1, s.Info().BytesWritten)
				e.requireNothingLeftOf(t, s, peer)
			})
		})
	}
}

// TestConcurrentWritesDoNotMix: Writes arrive whole, in any order, and
// TryWriteAll does not wait for them.
func TestConcurrentWritesDoNotMix(t *testing.T) {
	t.Parallel()
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

// TestLoopOfWritesKeepsNoOtherFromWriting: as in quic-go, writes take turns,
// first come, first served.
func TestLoopOfWritesKeepsNoOtherFromWriting(t *testing.T) {
	t.Parallel()
	for _, size := range []int{4000, 64 << 10} {
		setup{}.in(t, func(t *testing.T, e ends) {
			s, peer := e.stream(t)
			var wg sync.WaitGroup
			wg.Go(func() { io.Copy(io.Discard, peer) })
			var loops, done atomic.Int64
			wg.Go(func() {
				for p := make([]byte, size); done.Load() == 0 && loops.Load() < 1000; loops.Add(1) {
					s.Write(p)
				}
				s.Close()
			})
			time.Sleep(30 * time.Millisecond)
			begun := loops.Load()
			write(t, s, "x")
			done.Store(1)
			require.Less(t, loops.Load()-begun, int64(100), "Writes of %d bytes while another waited", size)
			wg.Wait()
			s.Release()
			peer.Release()
		})
	}
}

// wideConf has large windows.
var wideConf = &quic.Config{InitialStreamReceiveWindow: 4 << 20, InitialConnectionReceiveWindow: 8 << 20, MaxIdleTimeout: time.Hour}

// onLossyNetwork runs f on a network that loses everything while lost is set.
func onLossyNetwork(t *testing.T, conf *quic.Config, f func(t *testing.T, e ends, lost *atomic.Bool)) {
	t.Helper()
	var lost atomic.Bool
	drop := func(simnet.Packet) bool { return lost.Load() }
	setup{clientConf: conf, serverConf: conf, net: quictest.Net{Drop: drop}}.in(t, func(t *testing.T, e ends) { f(t, e, &lost) })
}

// TestSmallWritesAreBounded: little is queued for a peer with large windows
// from which no ACK comes.
func TestSmallWritesAreBounded(t *testing.T) {
	t.Parallel()
	onLossyNetwork(t, wideConf, func(t *testing.T, e ends, lost *atomic.Bool) {
		s, _ := e.stream(t)
		settled()
		window := int64(e.client.ConnectionStats().CongestionWindow)
		lost.Store(true) // no more acknowledgements: the congestion window fills
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

// TestReleaseAfterQueuedWriteKeepsConnectionAlive: data queued after
// SetReliableBoundary must not make the final size of a reset differ from that
// of the reset that answers a later STOP_SENDING.
func TestReleaseAfterQueuedWriteKeepsConnectionAlive(t *testing.T) {
	t.Parallel()
	conf := &quic.Config{EnableStreamResetPartialDelivery: true}
	for how, write := range map[string]func(s *quiclife.Stream) error{
		"Write":       func(s *quiclife.Stream) error { _, err := s.Write([]byte("not so")); return err },
		"TryWriteAll": func(s *quiclife.Stream) error { return s.TryWriteAll([]byte("not so")) },
		"Write, TryWriteAll of a byte": func(s *quiclife.Stream) error {
			s.Write([]byte("not so")) // nothing is queued after it
			return s.TryWriteAll([]byte("n"))
		},
	} {
		for end, abort := range map[string]func(s *quiclife.Stream){
			"CancelWrite": func(s *quiclife.Stream) { s.CancelWrite(1) },
			"Release":     (*quiclife.Stream).Release,
			"Reset":       func(s *quiclife.Stream) { s.Reset(1) },
			"Detach, CancelWrite": func(s *quiclife.Stream) {
				s.Detach()
				s.CancelWrite(1)
				s.CancelRead(1)
			},
			"Detach, Close, CancelWrite": func(s *quiclife.Stream) {
				s.Detach()
				s.Close()
				s.CancelWrite(1)
				s.CancelRead(1)
			},
			"Detach, CancelWrite, Close": func(s *quiclife.Stream) {
				s.Detach()
				s.CancelWrite(1)
				s.Close()
				s.CancelRead(1)
			},
		} {
			for _, settle := range []bool{false, true} {
				t.Run(fmt.Sprint(how, ", ", end, ", boundary sent before: ", settle), func(t *testing.T) {
					setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
						s, peer := e.stream(t)
						require.NoError(t, s.TryWriteAll([]byte("reliable")))
						s.SetReliableBoundary()
						if settle {
							settled()
						}
						require.NoError(t, write(s))
						peer.CancelRead(2) // crosses
						abort(s)
						settled()
						e.requireNothingLeftOf(t, s, peer)
					})
				})
			}
		}
	}
}

// TestResetTakesBackWhatCameAfterTheBoundary: small Writes after
// SetReliableBoundary are not delivered reliably.
func TestResetTakesBackWhatCameAfterTheBoundary(t *testing.T) {
	t.Parallel()
	conf := &quic.Config{EnableStreamResetPartialDelivery: true}
	setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		write(t, s, "reliable")
		s.SetReliableBoundary()
		write(t, s, "not so")
		s.Release()
		settled() // otherwise a Read between data and reset would return unreliable data
		b, err := io.ReadAll(peer)
		require.ErrorIs(t, err, &quiclife.StreamError{StreamID: s.StreamID(), Remote: true})
		require.Equal(t, "reliable", string(b))
		peer.Release()
		settled()
		e.requireNothingLeft(t)

		s, peer = e.stream(t)
		require.NoError(t, s.TryWriteAll([]byte("not so, without a boundary")))
		s.Release()
		settled()
		b, err = io.ReadAll(peer)
		require.ErrorIs(t, err, &quiclife.StreamError{StreamID: s.StreamID(), Remote: true})
		require.Empty(t, string(b))
		peer.Release()
	})
}

// TestCancelWriteBesideTryWriteAllWaitsForIt: data that is just being queued
// after the boundary counts.
func TestCancelWriteBesideTryWriteAllWaitsForIt(t *testing.T) {
	t.Parallel()
	conf := &quic.Config{EnableStreamResetPartialDelivery: true}
	setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		_, err := s.WriteWithLimit([]byte("reliable"), takeAll) // with nothing queued after it
		require.NoError(t, err)
		s.SetReliableBoundary()
		quiclife.AfterTryWriteAll(s, func() {
			go s.CancelWrite(1)
			synctest.Wait()
		})
		require.NoError(t, s.TryWriteAll([]byte("not so")))
		peer.CancelRead(2)
		settled()
		e.requireNothingLeftOf(t, s, peer)
	})
}

// TestBoundaryBesideWritesKeepsConnectionAlive: whatever the interleaving of
// the calls on the send half.
func TestBoundaryBesideWritesKeepsConnectionAlive(t *testing.T) {
	conf := &quic.Config{EnableStreamResetPartialDelivery: true, MaxIncomingStreams: 1000}
	e := setup{clientConf: conf, serverConf: conf}.onLoopback(t)
	for i := range 1000 {
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		write(t, s, "x")
		p, err := e.server.AcceptStream(t.Context())
		require.NoError(t, err)
		if i%4 < 2 {
			s.SetReliableBoundary()
		}
		together(
			func() { s.SetReliableBoundary(); s.TryWriteAll([]byte("queued")) },
			func() {
				s.Write([]byte("small"))
				if i%2 == 0 {
					s.Close()
				}
				s.CancelWrite(1)
				p.CancelRead(1)
			})
		s.Release()
		p.Release()
	}
	eventually(t, func() bool { return quictest.Held(e.rawClient)+quictest.Held(e.rawServer) == 0 })
	e.requireNothingLeft(t)
	e.client.CloseWithError(0, "")
}

// TestCloseBesideWritesThatDoNotBlockCutsNothing: a Write concurrent with Close
// either takes everything, which then arrives, or comes too late and takes
// nothing. Small Writes are queued. The barriers between them, and Writes
// larger than the queue, are in progress when Close comes.
func TestCloseBesideWritesThatDoNotBlockCutsNothing(t *testing.T) {
	const window = 1 << 30 // a full one would be a reason to cut
	conf := &quic.Config{InitialStreamReceiveWindow: window, InitialConnectionReceiveWindow: window}
	for name, c := range map[string]struct {
		rounds int
		size   int
		write  func(s *quiclife.SendStream, p []byte) (int, error)
	}{ // if the rest of a Write is not queued, round 1 or 2 fails
		"TryWriteAll":   {20, 100, func(s *quiclife.SendStream, p []byte) (int, error) { return len(p), s.TryWriteAll(p) }},
		"small Writes":  {60, 100, (*quiclife.SendStream).Write},
		"larger Writes": {60, 6000, (*quiclife.SendStream).Write},
	} {
		t.Run(name, func(t *testing.T) {
			e := setup{clientConf: conf, serverConf: conf}.onLoopback(t)
			for i := range c.rounds {
				s, err := e.client.OpenUniStreamSync(t.Context())
				require.NoError(t, err)
				var taken [2]int
				var failed [2]error
				var wg sync.WaitGroup
				for w := range taken {
					wg.Go(func() {
						for p := make([]byte, c.size); ; {
							n, err := c.write(s, p)
							if err == quiclife.ErrWouldBlock { // the other has the turn
								runtime.Gosched()
								continue
							}
							if err != nil {
								if n > 0 && n < len(p) {
									t.Errorf("cut after %d bytes", n)
								}
								failed[w] = err
								return
							}
							taken[w] += n
						}
					})
				}
				time.Sleep(time.Duration(i%30) * 20 * time.Microsecond)
				closed := s.Close()
				wg.Wait()
				require.NoError(t, closed, "after %d bytes", taken)
				require.Equal(t, [2]error{quiclife.ErrStreamClosed, quiclife.ErrStreamClosed}, failed)
				in, err := e.server.AcceptUniStream(t.Context())
				require.NoError(t, err)
				n, err := io.Copy(io.Discard, in)
				require.NoError(t, err)
				require.EqualValues(t, taken[0]+taken[1], n)
				require.Equal(t, n, s.Info().BytesWritten)
			}
			e.client.CloseWithError(0, "")
		})
	}
}

// TestCloseCompletesWritesThatTheNetworkHoldsUp: Close completes a Write that
// waits for the network and not for the peer, and also one that waits for its
// turn behind it.
func TestCloseCompletesWritesThatTheNetworkHoldsUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sizes []int // the first is queued, the second blocks, the others wait for their turn
		cut   bool
	}{
		{[]int{10_000, 10_000, 500, 500, 500, 500, 500, 500, 500, 500}, false},
		{[]int{10_000, 10_000, 50_000}, true}, // too much to be queued
		{[]int{10_000, 50_000, 500, 500, 500, 500, 500, 500, 500, 500}, true},
	} {
		onLossyNetwork(t, wideConf, func(t *testing.T, e ends, lost *atomic.Bool) {
			s, peer := e.stream(t)
			settled()
			lost.Store(true)
			s.SetWriteDeadline(time.Now().Add(time.Second))
			whole, err := s.Write(make([]byte, 1<<20)) // fills the congestion window
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			s.SetWriteDeadline(time.Time{})
			errs := make(chan error, len(c.sizes))
			for _, n := range c.sizes {
				whole += n
				go func() { _, err := s.Write(make([]byte, n)); errs <- err }()
				settled()
			}
			closed := s.Close()
			for range c.sizes {
				if err := <-errs; !c.cut {
					require.NoError(t, err)
				}
			}
			lost.Store(false)
			read, err := io.Copy(io.Discard, peer)
			if c.cut {
				require.Equal(t, quiclife.ErrWriteCut, closed)
				require.ErrorIs(t, err, &quiclife.StreamError{StreamID: peer.StreamID(), Remote: true})
			} else {
				require.NoError(t, closed)
				require.NoError(t, err)
				require.EqualValues(t, whole, read)
			}
			e.requireNothingLeftOf(t, s, peer)
		})
	}
}

// TestClosesBesideBlockedWriteAgree: a second Close waits for the result of the
// first, and moving the deadline meanwhile does not prolong the wait.
func TestClosesBesideBlockedWriteAgree(t *testing.T) {
	t.Parallel()
	setup{serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
		for range 100 {
			s, peer := e.stream(t)
			var wg sync.WaitGroup
			wg.Go(func() { s.Write(large) })
			settled()
			var errs [4]error
			for i := range errs {
				wg.Go(func() { errs[i] = s.Close() })
				wg.Go(func() { s.SetWriteDeadline(time.Now().Add(time.Hour)) })
			}
			start := time.Now()
			wg.Wait()
			require.Equal(t, [4]error{quiclife.ErrWriteCut, quiclife.ErrWriteCut, quiclife.ErrWriteCut, quiclife.ErrWriteCut}, errs)
			require.Zero(t, time.Since(start))
			s.Release()
			peer.Release()
			settled()
		}
		e.requireNothingLeft(t)
	})
}

// TestStalledPeerPinsLittle: if the peer has large windows but takes nothing,
// little is queued for all streams together.
func TestStalledPeerPinsLittle(t *testing.T) {
	const most = 600 << 10 // 256 KiB, what is in flight, and the buffers around it
	for _, streams := range []int{100, 1000, 5000} {
		if streams == 5000 && testing.Short() {
			continue
		}
		conf := &quic.Config{MaxIncomingStreams: 10_000, InitialStreamReceiveWindow: 1 << 20, InitialConnectionReceiveWindow: 1 << 30, MaxIdleTimeout: time.Hour}
		onLossyNetwork(t, conf, func(t *testing.T, e ends, lost *atomic.Bool) {
			strs := make([]*quiclife.Stream, streams)
			for i := range strs {
				var err error
				strs[i], err = e.client.OpenStream()
				require.NoError(t, err)
			}
			write(t, strs[streams-1], "x") // makes all of them known to the peer
			settled()
			lost.Store(true)
			message := make([]byte, 500)
			before := quictest.HeapAlloc()
			for i, s := range strs {
				s.SetWriteDeadline(time.Now().Add(time.Millisecond))
				var err error
				for n := 0; err == nil && (i%2 == 1 || n < 16); n++ {
					_, err = s.Write(message)
				}
				if err == nil {
					require.NoError(t, s.Close()) // what is queued stays so after Close
				} else {
					require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				}
			}
			pinned := int64(quictest.HeapAlloc()) - int64(before)
			t.Logf("%d streams pin %d kB, %d B each", streams, pinned>>10, pinned/int64(streams))
			require.Less(t, pinned, int64(most+300*streams), "of %d streams", streams)

			lost.Store(false)
			strs[1].SetWriteDeadline(time.Time{})
			_, err := strs[1].Write(message)
			require.NoError(t, err)
			for _, s := range strs {
				s.Release()
			}
		})
	}
}

// TestQueueEmptiesAsItIsSent: data that was sent long ago takes no room in the
// queue.
func TestQueueEmptiesAsItIsSent(t *testing.T) {
	t.Parallel()
	deadNetwork(t, func(t *testing.T, e ends, s *quiclife.Stream, die func()) {
		for range 2000 {
			_, err := s.Write(make([]byte, 500))
			require.NoError(t, err)
		}
		die()
		s.SetWriteDeadline(time.Now().Add(time.Second))
		_, err := s.Write(make([]byte, 500))
		require.NoError(t, err)
	})
}

// TestWriteWhoseDeadlineHasPassedQueuesNothing: even if the deadline is the
// very start of the connection's clock.
func TestWriteWhoseDeadlineHasPassedQueuesNothing(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		start := time.Now()
		s, peer := e.stream(t)
		for _, deadline := range []time.Time{time.Unix(1, 0), time.Now().Add(-time.Hour), start, time.Now()} {
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

// TestReadWriteAndPeekAllocateNoMoreThanQuicGos: on average.
func TestReadWriteAndPeekAllocateNoMoreThanQuicGos(t *testing.T) {
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
		return testing.AllocsPerRun(500, func() {
			local.Write(buf)
			peer.Peek(buf)
			peer.Read(buf)
		})
	}
	var more []float64
	for range 5 {
		plain, err := e.rawClient.OpenStream()
		require.NoError(t, err)
		write(t, plain, "x")
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

// TestTryWriteAllBesideBlockedWriteDoesNotHideIt: Close sees that the Write was
// cut.
func TestTryWriteAllBesideBlockedWriteDoesNotHideIt(t *testing.T) {
	t.Parallel()
	setup{serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		done := make(chan error)
		go func() { _, err := s.Write(large); done <- err }()
		settled()
		require.Equal(t, quiclife.ErrWouldBlock, s.TryWriteAll([]byte("x")))
		require.Equal(t, quiclife.ErrWriteCut, s.Close())
		require.Error(t, <-done)
		_, err := io.ReadAll(peer)
		require.ErrorIs(t, err, &quiclife.StreamError{StreamID: peer.StreamID(), Remote: true})
		s.Release()
		peer.Release()
	})
}

// TestCloseCutsSecondOfTwoBlockedWrites: even though the first was complete.
func TestCloseCutsSecondOfTwoBlockedWrites(t *testing.T) {
	t.Parallel()
	setup{serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		done := make(chan error, 2)
		for range 2 {
			go func() { _, err := s.Write(make([]byte, 30_000)); done <- err }()
			settled()
		}
		io.ReadFull(peer, make([]byte, 32_000))
		settled()
		require.NoError(t, <-done)
		require.Equal(t, quiclife.ErrWriteCut, s.Close())
		require.Error(t, <-done)
		_, err := io.ReadAll(peer)
		require.ErrorIs(t, err, &quiclife.StreamError{StreamID: peer.StreamID(), Remote: true})
		s.Release()
		peer.Release()
	})
}

// nilLimit writes with WriteWithLimit(p, nil).
type nilLimit struct{ *quiclife.Stream }

func (s nilLimit) Write(p []byte) (int, error) { return s.WriteWithLimit(p, nil) }

// TestCancelledWriteWithoutLimiterIsLetGo: a nil limiter does not mean
// quic-go's plain Write.
func TestCancelledWriteWithoutLimiterIsLetGo(t *testing.T) {
	t.Parallel()
	setup{serverConf: windowConf}.in(t, func(t *testing.T, e ends) {
		ours, err := e.client.OpenStream()
		require.NoError(t, err)
		cancelBlockedWrite(t, nilLimit{ours})
		require.Zero(t, quictest.Held(e.rawClient), "bidirectional streams held")
	})
	setup{serverConf: windowConf}.in(t, func(t *testing.T, e ends) {
		ours, err := e.client.OpenUniStream()
		require.NoError(t, err)
		ours.WriteWithLimit(make([]byte, 10_000), nil)
		settled()
		done := make(chan struct{})
		go func() {
			ours.WriteWithLimit(make([]byte, 1400), nil)
			ours.WriteWithLimit(make([]byte, 100), nil)
			close(done)
		}()
		settled()
		ours.CancelWrite(1)
		<-done
		settled()
		require.Zero(t, quictest.Held(e.rawClient), "unidirectional streams held")
	})
}

// TestTryWriteAllCompletesCutMessage: then Close ends it with a FIN.
func TestTryWriteAllCompletesCutMessage(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		_, err := s.WriteWithLimit([]byte("0123456789"), func(most int) int { return min(most, 4) })
		require.Equal(t, quiclife.ErrWriteLimitReached, err)
		require.NoError(t, s.TryWriteAll([]byte("456789")))
		require.NoError(t, s.Close())
		b, err := io.ReadAll(peer)
		require.NoError(t, err)
		require.Equal(t, "0123456789", string(b))
		s.Release()
	})
}

// deadNetwork runs f with a stream. After a call of die, the network loses
// everything, and another stream has filled the congestion window.
func deadNetwork(t *testing.T, f func(t *testing.T, e ends, s *quiclife.Stream, die func())) {
	onLossyNetwork(t, wideConf, func(t *testing.T, e ends, lost *atomic.Bool) {
		s, _ := e.stream(t)
		other, _ := e.stream(t)
		settled()
		f(t, e, s, func() {
			settled()
			lost.Store(true)
			other.SetWriteDeadline(time.Now().Add(5 * time.Second))
			_, err := other.WriteWithLimit(make([]byte, 2<<20), takeAll)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		})
	})
}

// queueUntilFull writes small pieces until a Write has blocked for a second,
// and returns how many bytes were taken.
func queueUntilFull(t *testing.T, s *quiclife.Stream) int64 {
	t.Helper()
	before := s.Info().BytesWritten
	for {
		s.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := s.Write(make([]byte, 500)); err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			return s.Info().BytesWritten - before
		}
	}
}

const mostQueued = 16 << 10 // between two barriers

// TestQueueingStartsAnewAfterBarrier: a Write that waited until it was sent is
// a barrier, since nothing before it is queued any more.
func TestQueueingStartsAnewAfterBarrier(t *testing.T) {
	t.Parallel()
	for name, barrier := range map[string]func(s *quiclife.Stream) (int, error){
		"a large Write":  func(s *quiclife.Stream) (int, error) { return s.Write(make([]byte, 20_000)) },
		"WriteWithLimit": func(s *quiclife.Stream) (int, error) { return s.WriteWithLimit(make([]byte, 100), takeAll) },
	} {
		t.Run(name, func(t *testing.T) {
			deadNetwork(t, func(t *testing.T, e ends, s *quiclife.Stream, die func()) {
				for range 32 { // as much as may be queued
					_, err := s.Write(make([]byte, 512))
					require.NoError(t, err)
				}
				settled()
				_, err := barrier(s)
				require.NoError(t, err)
				die()
				require.InDelta(t, mostQueued, queueUntilFull(t, s), 600, "bytes queued")
			})
		})
	}
}

func takeAll(most int) int { return most }

// TestFailedWriteIsNoBarrier: data queued before it is still queued.
func TestFailedWriteIsNoBarrier(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(s *quiclife.Stream) (int, error){
		"Write":          func(s *quiclife.Stream) (int, error) { return s.Write(make([]byte, 500)) },
		"WriteWithLimit": func(s *quiclife.Stream) (int, error) { return s.WriteWithLimit(make([]byte, 500), takeAll) },
	} {
		t.Run(name, func(t *testing.T) {
			deadNetwork(t, func(t *testing.T, e ends, s *quiclife.Stream, die func()) {
				die()
				var queued int64
				for range 5 {
					queued += queueUntilFull(t, s)
					s.SetWriteDeadline(time.Now().Add(time.Second))
					n, err := fail(s)
					require.ErrorIs(t, err, os.ErrDeadlineExceeded)
					require.Zero(t, n)
				}
				require.LessOrEqual(t, queued, int64(mostQueued), "bytes queued")
			})
		})
	}
}

// TestTryWriteAllCountsAsQueued: Writes after it block, although it does not
// block itself.
func TestTryWriteAllCountsAsQueued(t *testing.T) {
	t.Parallel()
	deadNetwork(t, func(t *testing.T, e ends, s *quiclife.Stream, die func()) {
		die()
		for range 40 {
			require.NoError(t, s.TryWriteAll(make([]byte, 500)))
		}
		require.Zero(t, queueUntilFull(t, s), "bytes queued by Write")
	})
}

// TestSmallWriteIsQueuedWithoutDeadline: it returns at once, even if nothing
// can be sent.
func TestSmallWriteIsQueuedWithoutDeadline(t *testing.T) {
	t.Parallel()
	deadNetwork(t, func(t *testing.T, e ends, s *quiclife.Stream, die func()) {
		die()
		s.SetWriteDeadline(time.Time{})
		start := time.Now()
		write(t, s, "x")
		require.Zero(t, time.Since(start), "how long Write took")
		s.Release()
	})
}

// TestWriteInTheMiddleOfAnAbortFails: a Write of some bytes never returns 0
// without an error, even if quic-go does not know of the abort yet.
func TestWriteInTheMiddleOfAnAbortFails(t *testing.T) {
	t.Parallel()
	for name, abort := range map[string]func(*quiclife.Stream){
		"CancelWrite": func(s *quiclife.Stream) { s.CancelWrite(1) },
		"Release":     (*quiclife.Stream).Release,
		"Reset":       func(s *quiclife.Stream) { s.Reset(1) },
	} {
		setup{}.in(t, func(t *testing.T, e ends) {
			s, peer := e.stream(t)
			quiclife.BeforeCancelWrite(s, func() {
				for _, p := range [][]byte{[]byte("x"), large} {
					n, err := s.Write(p)
					require.Equal(t, quiclife.ErrStreamClosed, err, "Write of %d bytes in %s", len(p), name)
					require.Zero(t, n, name)
				}
				require.Equal(t, quiclife.ErrStreamClosed, s.TryWriteAll([]byte("x")), name)
			})
			abort(s)
			s.Release()
			peer.Release()
		})
	}
}

// TestCancelWriteBesideCloseAfterBoundaryKeepsConnectionAlive: the two must not
// announce different final sizes.
func TestCancelWriteBesideCloseAfterBoundaryKeepsConnectionAlive(t *testing.T) {
	conf := &quic.Config{EnableStreamResetPartialDelivery: true, MaxIncomingStreams: 1000}
	e := setup{clientConf: conf, serverConf: conf}.onLoopback(t)
	for range 500 {
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		s.Write([]byte("reliable"))
		s.SetReliableBoundary()
		s.Write([]byte("not so"))
		var closed error
		together(func() { closed = s.Close() }, func() { s.CancelWrite(1) })
		require.NoError(t, closed)
		s.Release()
		p, err := e.server.AcceptStream(t.Context())
		require.NoError(t, err)
		p.Release()
	}
	eventually(t, func() bool { return quictest.Held(e.rawClient)+quictest.Held(e.rawServer) == 0 })
	e.requireNothingLeft(t)
	e.client.CloseWithError(0, "")
}

// TestWholeWriteAtItsDeadlineSucceeds: a Write that has taken all of its data
// succeeds, even if its deadline passes at that moment. Otherwise a program
// might give up and close, and the message would end cleanly although the
// program believes it incomplete.
func TestWholeWriteAtItsDeadlineSucceeds(t *testing.T) {
	t.Parallel()
	const size = 100_000
	big := make([]byte, size)
	for name, write := range map[string]func(*quiclife.Stream) (int, error){
		"Write": func(s *quiclife.Stream) (int, error) { return s.Write(big) },
		"WriteWithLimit": func(s *quiclife.Stream) (int, error) {
			return s.WriteWithLimit(big, takeAll)
		},
	} {
		// First we measure how long the Write takes. Then that is the deadline,
		// which races with the end of the Write.
		var took time.Duration
		for n := range 60 { // when broken, it failed within 25 rounds
			setup{}.in(t, func(t *testing.T, e ends) {
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				defer s.Release()
				start := time.Now()
				if took > 0 {
					s.SetWriteDeadline(start.Add(took))
				}
				wrote, err := write(s)
				if n == 0 {
					took = time.Since(start)
					require.Positive(t, took)
				}
				if wrote == size {
					require.NoError(t, err, "%s took all", name)
				} else {
					require.ErrorIs(t, err, os.ErrDeadlineExceeded, "%s took %d of %d bytes", name, wrote, size)
				}
			})
		}
	}
}

// TestWriteTakesNoMoreThanItsLimiterAllows: even with an IdleTimeout, which
// counts the bytes as they go.
func TestWriteTakesNoMoreThanItsLimiterAllows(t *testing.T) {
	t.Parallel()
	setup{guard: &quiclife.Guard{IdleTimeout: time.Hour}}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		for _, most := range []int{0, -1, 2} {
			n, err := client.WriteWithLimit([]byte("xyz"), func(int) int { return most })
			require.Equal(t, quic.ErrWriteLimitReached, err)
			require.Equal(t, max(most, 0), n, "taken, at a limit of %d", most)
		}
		require.EqualValues(t, 1+2, client.Info().BytesWritten)
		expect(t, server, "xy")
		client.Release()
		server.Release()
	})
}
