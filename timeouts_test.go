package quiclife_test

import (
	"io"
	"log/slog"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// eachTimeout is the timeout in tests of a single timeout.
const eachTimeout = 8 * time.Second

// TestHalfCloseTimeout: a receive half that nobody reads is aborted.
func TestHalfCloseTimeout(t *testing.T) {
	for _, c := range []struct {
		name  string
		use   func(s, peer *quiclife.Stream) // after Close
		spare bool                           // it is never aborted
	}{
		{"not read", func(s, peer *quiclife.Stream) {}, false},
		{"data not read", func(s, peer *quiclife.Stream) { peer.Write([]byte("unread")); peer.Close() }, false},
		{"reset not read", func(s, peer *quiclife.Stream) { peer.Write([]byte("x")); time.Sleep(time.Second); peer.CancelWrite(1) }, false},
		{"read once", func(s, peer *quiclife.Stream) { peer.Write([]byte("y")); s.Read(make([]byte, 1)) }, false},
		{"being read", func(s, peer *quiclife.Stream) { go s.Read(make([]byte, 1)) }, true},
		{"ended", func(s, peer *quiclife.Stream) { peer.Close(); io.ReadAll(s) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var found leaks
			guard := &quiclife.Guard{HalfCloseTimeout: eachTimeout, OnLeak: found.add, Codes: quiclife.Codes{HalfClosed: 13}}
			setup{guard: guard, clientConf: longConf, serverConf: longConf}.in(t, func(t *testing.T, e ends) {
				s, peer := e.stream(t)
				keep(t, s)
				keep(t, peer)
				s.Close()
				start := time.Now()
				c.use(s, peer)
				if c.spare {
					time.Sleep(10 * eachTimeout)
					found.require(t)
				} else {
					time.Sleep(time.Until(start.Add(eachTimeout - time.Millisecond)))
					found.require(t)
					time.Sleep(time.Until(start.Add(eachTimeout + eachTimeout/4 + 50*time.Millisecond)))
					found.require(t, quiclife.LeakUnread)
					requireHalves(t, s, quiclife.HalfFinished, quiclife.HalfAborted)
					require.EqualValues(t, 1, e.client.Stats().Outgoing.Reclaimed)
					settled()
					if peer.Info().Send == quiclife.HalfOpen {
						_, err := peer.Write([]byte("x"))
						require.ErrorIs(t, err, &quiclife.StreamError{StreamID: peer.StreamID(), ErrorCode: 13, Remote: true})
					}
				}
				s.Release()
				peer.Release()
				settled()
				e.requireNothingLeft(t)
				require.LessOrEqual(t, len(found.list()), 1, "leaks that were reported")
			})
		})
	}
}

func TestHalfCloseTimeoutIsFiveMinutesUnlessSet(t *testing.T) {
	setup{clientConf: longConf, serverConf: longConf}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		s.Close()
		time.Sleep(5*time.Minute - time.Second)
		requireHalves(t, s, quiclife.HalfFinished, quiclife.HalfOpen)
		time.Sleep(time.Minute)
		requireHalves(t, s, quiclife.HalfFinished, quiclife.HalfAborted)
		peer.Release()
	})
}

func TestNegativeHalfCloseTimeoutIsNever(t *testing.T) {
	setup{guard: &quiclife.Guard{HalfCloseTimeout: -1}, clientConf: longConf, serverConf: longConf}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		s.Close()
		time.Sleep(time.Hour)
		requireHalves(t, s, quiclife.HalfFinished, quiclife.HalfOpen)
		s.Release()
		peer.Release()
	})
}

// TestHalfCloseTimeoutCountsFromTheLastRead: a Read before Close does not
// prolong it. There are four sweeps within the timeout.
func TestHalfCloseTimeoutCountsFromTheLastRead(t *testing.T) {
	const atClose = -1
	for _, c := range []struct {
		name string
		read time.Duration // when, after Close
	}{
		{"before Close", atClose},
		{"in the middle", eachTimeout / 2},
		{"late", eachTimeout * 9 / 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			guard := &quiclife.Guard{HalfCloseTimeout: eachTimeout}
			setup{guard: guard, clientConf: longConf, serverConf: longConf}.in(t, func(t *testing.T, e ends) {
				s, peer := e.stream(t)
				write(t, peer, "ab")
				var last time.Duration // when it was read
				if c.read == atClose {
					expect(t, s, "a")
				}
				s.Close()
				start := time.Now()
				if c.read > 0 {
					time.Sleep(c.read)
					expect(t, s, "a")
					last = c.read
				}
				time.Sleep(time.Until(start.Add(last + eachTimeout - time.Millisecond)))
				requireHalves(t, s, quiclife.HalfFinished, quiclife.HalfOpen)
				time.Sleep(time.Until(start.Add(last + eachTimeout + eachTimeout/4 + 50*time.Millisecond)))
				requireHalves(t, s, quiclife.HalfFinished, quiclife.HalfAborted)
				peer.Release()
			})
		})
	}
}

// TestBlockedPeekCountsAsReading: one that has returned does not.
func TestBlockedPeekCountsAsReading(t *testing.T) {
	setup{guard: &quiclife.Guard{HalfCloseTimeout: eachTimeout}, clientConf: longConf, serverConf: longConf}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		s.Close()
		done := make(chan struct{})
		go func() { s.Peek(make([]byte, 1)); close(done) }()
		time.Sleep(10 * eachTimeout)
		requireHalves(t, s, quiclife.HalfFinished, quiclife.HalfOpen)
		write(t, peer, "x")
		<-done
		time.Sleep(2 * eachTimeout)
		requireHalves(t, s, quiclife.HalfFinished, quiclife.HalfAborted)
		peer.Release()
	})
}

// TestHalfCloseTimeoutSparesStreamsThatMaySend: only streams whose send half
// has ended time out, one after the other.
func TestHalfCloseTimeoutSparesStreamsThatMaySend(t *testing.T) {
	var found leaks
	guard := &quiclife.Guard{HalfCloseTimeout: eachTimeout, OnLeak: found.add}
	setup{guard: guard, clientConf: longConf, serverConf: longConf}.in(t, func(t *testing.T, e ends) {
		live, peer := e.stream(t)
		for n := range 2 {
			s, p := e.stream(t)
			s.Close()
			time.Sleep(eachTimeout + eachTimeout/4 + 50*time.Millisecond)
			requireHalves(t, s, quiclife.HalfFinished, quiclife.HalfAborted)
			require.Len(t, found.list(), n+1)
			time.Sleep(5 * eachTimeout)
			p.Release()
		}
		write(t, live, "alive")
		expect(t, peer, "alive")
		write(t, peer, "alive")
		expect(t, live, "alive")
		live.Release()
		peer.Release()
	})
}

// TestEachHalfClosedStreamEndsAtItsOwnTime: of many that were closed one after
// the other.
func TestEachHalfClosedStreamEndsAtItsOwnTime(t *testing.T) {
	var found leaks
	guard := &quiclife.Guard{HalfCloseTimeout: eachTimeout, OnLeak: found.add}
	setup{guard: guard, clientConf: longConf, serverConf: longConf}.in(t, func(t *testing.T, e ends) {
		for range 50 {
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			s.Close()
			keep(t, s)
			time.Sleep(eachTimeout / 20)
			require.LessOrEqual(t, e.client.Stats().Open(), int64(22), "streams open, of 20 whose time is not up")
		}
		time.Sleep(eachTimeout)
		require.Zero(t, e.client.Stats().Open(), "streams open when the time of all is up")
		require.Len(t, found.list(), 50)
	})
}

// TestLongTimeoutHoldsUpNoShortOne: IdleTimeout and HalfCloseTimeout share a
// timer. Each stream ends at its own time, whichever timeout is longer, and
// however many other streams start theirs meanwhile.
func TestLongTimeoutHoldsUpNoShortOne(t *testing.T) {
	for _, c := range []struct {
		name  string
		guard *quiclife.Guard
		alone bool
	}{
		{"long IdleTimeout", &quiclife.Guard{IdleTimeout: time.Minute, HalfCloseTimeout: time.Second}, false},
		{"long IdleTimeout, alone", &quiclife.Guard{IdleTimeout: time.Minute, HalfCloseTimeout: time.Second}, true},
		{"long HalfCloseTimeout", &quiclife.Guard{IdleTimeout: time.Second, HalfCloseTimeout: 12 * time.Second}, false},
		{"long HalfCloseTimeout, alone", &quiclife.Guard{IdleTimeout: time.Second, HalfCloseTimeout: 12 * time.Second}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := &quic.Config{MaxIdleTimeout: time.Hour, MaxIncomingStreams: 1000}
			setup{guard: c.guard, clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
				time.Sleep(10 * time.Second) // the connection's age does not matter
				first, err := e.client.OpenStream()
				require.NoError(t, err)
				first.Close()
				start := time.Now()
				for range 20 {
					time.Sleep(100 * time.Millisecond)
					if !c.alone {
						s, err := e.client.OpenStream()
						require.NoError(t, err)
						keep(t, s)
						s.Close()
					}
					switch since := time.Since(start); {
					case since < time.Second:
						requireHalves(t, first, quiclife.HalfFinished, quiclife.HalfOpen, "after %v", since)
					case since > 1250*time.Millisecond:
						requireHalves(t, first, quiclife.HalfFinished, quiclife.HalfAborted, "after %v", since)
					}
				}
			})
		})
	}
}

// TestIdleTimeout: a stream without a byte in either direction is reset.
func TestIdleTimeout(t *testing.T) {
	for _, c := range []struct {
		name  string
		use   func(s, peer *quiclife.Stream)
		after time.Duration // when it is reset at the latest; 0 means never
	}{
		{"not used", func(s, peer *quiclife.Stream) {}, eachTimeout + eachTimeout/4},
		{"blocked Read", func(s, peer *quiclife.Stream) { go s.Read(make([]byte, 1)) }, eachTimeout + eachTimeout/4},
		{"blocked Write", func(s, peer *quiclife.Stream) { go s.Write(large) }, eachTimeout + eachTimeout/4},
		{"written to for a while", func(s, peer *quiclife.Stream) {
			for range 3 {
				time.Sleep(eachTimeout / 2)
				s.Write([]byte("x"))
			}
		}, 3*eachTimeout/2 + eachTimeout + eachTimeout/4},
		{"a slow large Write", func(s, peer *quiclife.Stream) {
			go func() {
				b := make([]byte, 1000)
				for range 100 {
					if _, err := peer.Read(b); err != nil {
						return
					}
					time.Sleep(eachTimeout / 20)
				}
			}()
			s.Write(large[:100_000])
			time.Sleep(2 * eachTimeout / 3)
			s.Close()
			s.CancelRead(0)
		}, 0},
		{"read from", func(s, peer *quiclife.Stream) {
			for range 20 {
				time.Sleep(eachTimeout / 2)
				peer.Write([]byte("x"))
				s.Read(make([]byte, 1))
			}
			s.Release()
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var found leaks
			guard := &quiclife.Guard{IdleTimeout: eachTimeout, HalfCloseTimeout: -1, Logger: slog.New(slog.DiscardHandler), OnLeak: found.add, Codes: quiclife.Codes{Idle: 14}}
			conf := matrixConf.Clone()
			conf.MaxIdleTimeout = time.Hour
			setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
				e.client = guard.Wrap(e.rawClient, conf)
				s, peer := e.stream(t)
				start := time.Now()
				c.use(s, peer)
				for s.Info().Send == quiclife.HalfOpen && time.Since(start) < 20*eachTimeout {
					time.Sleep(10 * time.Millisecond)
				}
				took := time.Since(start)
				synctest.Wait() // leaks are reported after the streams were ended
				if c.after == 0 {
					found.require(t)
				} else {
					require.LessOrEqual(t, took, c.after+100*time.Millisecond, "until it was reset")
					require.GreaterOrEqual(t, took, c.after-eachTimeout/4-100*time.Millisecond, "until it was reset")
					found.require(t, quiclife.LeakIdle)
					require.EqualValues(t, 1, e.client.Stats().Outgoing.Reclaimed)
					_, err := io.Copy(io.Discard, peer)
					require.ErrorIs(t, err, &quiclife.StreamError{StreamID: peer.StreamID(), ErrorCode: 14, Remote: true})
				}
				s.Release()
				peer.Release()
				settled()
				e.requireNothingLeft(t)
			})
		})
	}
}

// TestIdleTimeoutSparesWriteWhoseBytesMove: a stream is not idle while a slow
// peer takes a Write of any size piece by piece, even though Write does not
// return.
func TestIdleTimeoutSparesWriteWhoseBytesMove(t *testing.T) {
	const size = 60_000
	for name, write := range map[string]func(s *quiclife.Stream, p []byte) (int, error){
		"Write": (*quiclife.Stream).Write,
		"WriteWithLimit": func(s *quiclife.Stream, p []byte) (int, error) {
			return s.WriteWithLimit(p, func(n int) int { return n })
		},
		"WriteWithLimit, a limiter that returns more than it was asked for": func(s *quiclife.Stream, p []byte) (int, error) {
			return s.WriteWithLimit(p, func(n int) int { return n + 1 })
		},
	} {
		t.Run(name, func(t *testing.T) {
			guard := &quiclife.Guard{IdleTimeout: time.Second}
			setup{serverConf: matrixConf, guard: guard}.in(t, func(t *testing.T, e ends) {
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				var wg sync.WaitGroup
				var failed error
				wg.Go(func() {
					_, failed = write(s, make([]byte, size))
					s.Close()
				})
				peer, err := e.rawServer.AcceptStream(t.Context())
				require.NoError(t, err)
				read, buf := 0, make([]byte, 1000)
				for err == nil { // 10 kB/s
					time.Sleep(100 * time.Millisecond)
					var n int
					n, err = peer.Read(buf)
					read += n
				}
				wg.Wait()
				require.NoError(t, failed, "of the Write")
				require.Equal(t, io.EOF, err)
				require.Equal(t, size, read)
				require.EqualValues(t, size, s.Info().BytesWritten)
				s.Release()
			})
		})
	}
}

// TestTimeoutThatIsMeantToBeNeverDoesNotOverflow: nor does it hold up the other
// timeout.
func TestTimeoutThatIsMeantToBeNeverDoesNotOverflow(t *testing.T) {
	const never = math.MaxInt64
	for _, c := range []struct {
		name  string
		guard *quiclife.Guard
		leak  []quiclife.LeakReason
	}{
		{"all", &quiclife.Guard{IdleTimeout: never, HalfCloseTimeout: never}, nil},
		{"IdleTimeout", &quiclife.Guard{IdleTimeout: never, HalfCloseTimeout: time.Minute}, []quiclife.LeakReason{quiclife.LeakUnread}},
		{"HalfCloseTimeout", &quiclife.Guard{IdleTimeout: time.Minute, HalfCloseTimeout: never}, []quiclife.LeakReason{quiclife.LeakIdle}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var found leaks
			c.guard.OnLeak = found.add
			c.guard.Logger = slog.New(slog.DiscardHandler)
			setup{clientConf: longConf, serverConf: longConf}.in(t, func(t *testing.T, e ends) {
				client := c.guard.Wrap(e.rawClient, longConf)
				s, err := client.OpenStream()
				require.NoError(t, err)
				write(t, s, "x")
				require.NoError(t, s.Close())
				for range 100 {
					time.Sleep(2 * time.Second)
					client.Stats() // Stats causes a sweep
				}
				found.require(t, c.leak...)
				s.Release()
			})
		})
	}
}

// TestTinyTimeouts: a quarter of them rounds to zero.
func TestTinyTimeouts(t *testing.T) {
	for name, guard := range map[string]*quiclife.Guard{
		"IdleTimeout":      {IdleTimeout: 1, HalfCloseTimeout: -1},
		"HalfCloseTimeout": {HalfCloseTimeout: 2},
	} {
		t.Run(name, func(t *testing.T) {
			setup{guard: guard, clientConf: longConf, serverConf: longConf}.in(t, func(t *testing.T, e ends) {
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				require.NoError(t, s.Close())
				settled()
				requireHalves(t, s, quiclife.HalfFinished, quiclife.HalfAborted)
			})
		})
	}
}
