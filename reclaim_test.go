package quiclife_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// leaks collects what OnLeak is told.
type leaks struct {
	mu  sync.Mutex
	all []quiclife.Leak
}

func (l *leaks) add(leak quiclife.Leak) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, leak)
}

func (l *leaks) list() []quiclife.Leak {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

// drop opens a stream, does something with it, and forgets it.
//
//go:noinline
func drop(t *testing.T, c *quiclife.Conn, do func(*quiclife.Stream)) {
	s, err := c.OpenStream()
	require.NoError(t, err)
	do(s)
}

// TestDropped: what becomes of a dropped stream, in fake time. It is reported
// at once where it is a leak for sure, and what can still arrive or end by
// itself is left AbandonGrace to do so.
func TestDropped(t *testing.T) {
	for _, c := range []struct {
		name             string
		do               func(*quiclife.Stream)
		atOnce, reported int // leaks reported right after the collection, and in the end
		openAfter        time.Duration
		atPeer           string
	}{
		{"not used", func(s *quiclife.Stream) {}, 1, 1, 0, "nothing"},
		{"written to", func(s *quiclife.Stream) { s.Write([]byte("message")) }, 1, 1, time.Second, "message, reset 9"},
		{"written to and closed", func(s *quiclife.Stream) { s.Write([]byte("message")); s.Close() }, 0, 0, 0, "message, EOF"},
		{"written to and reset", func(s *quiclife.Stream) { s.Write([]byte("message")); settled(); s.CancelWrite(5) }, 0, 0, 0, "message, reset 5"},
		{"closed, the peer does not end its half", func(s *quiclife.Stream) { s.Write([]byte("hold")); s.Close() }, 0, 1, time.Second, "hold, EOF"},
		{"only not read", func(s *quiclife.Stream) { s.Write([]byte("?")); s.Close(); settled() }, 1, 1, 0, "?, EOF, answered"},
		{"answer not read", func(s *quiclife.Stream) { s.Write([]byte("?")); settled() }, 1, 1, time.Second, "?, reset 9"},
		{"Released", func(s *quiclife.Stream) { s.Write([]byte("message")); s.Close(); s.Release() }, 0, 0, 0, "message, EOF"},
		{"Detached", func(s *quiclife.Stream) { raw := s.Detach(); raw.CancelRead(0); raw.Close() }, 0, 0, 0, "EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var found leaks
			var log logged
			guard := &quiclife.Guard{Codes: quiclife.Codes{Abandoned: 9}, OnLeak: found.add, Logger: log.logger()}
			setup{guard: guard}.in(t, func(t *testing.T, e ends) {
				atPeer := "nothing"
				seen := make(chan struct{})
				go func() {
					defer close(seen)
					s, err := e.server.AcceptStream(e.server.Context())
					if err != nil {
						return
					}
					defer s.Release()
					b := make([]byte, 100)
					if n, err := s.Read(b); n > 0 {
						atPeer = string(b[:n]) + ", "
						if string(b[:n]) == "?" {
							s.Write([]byte("answer"))
						}
					} else if err != nil {
						atPeer = ""
						if err == io.EOF {
							atPeer = "EOF"
							return
						}
					}
					_, err = s.Read(b)
					if strings.HasPrefix(atPeer, "hold") {
						time.Sleep(5 * time.Second)
					}
					switch err := err.(type) {
					case *quiclife.StreamError:
						atPeer = strings.TrimPrefix(atPeer, "nothing") + fmt.Sprint("reset ", err.ErrorCode)
					default:
						atPeer += "EOF"
						if strings.HasPrefix(atPeer, "?") {
							atPeer += ", answered"
							s.Close()
						}
					}
				}()
				drop(t, e.client, c.do)
				settled()
				settled()
				runtime.GC()
				e.client.Stats() // inside a bubble, this is when we look
				require.Len(t, found.list(), c.atOnce)
				if c.openAfter > 0 {
					time.Sleep(c.openAfter - time.Millisecond)
					require.EqualValues(t, 1, e.client.Stats().Open())
				}
				settled()
				require.Zero(t, e.client.Stats().Open())
				require.Len(t, found.list(), c.reported)
				require.EqualValues(t, c.reported, e.client.Stats().Outgoing.Reclaimed)
				require.Equal(t, c.reported, strings.Count(log.String(), "stream leaked"))
				if c.atPeer != "nothing" {
					<-seen
					settled()
					settled()
					require.Equal(t, c.atPeer, atPeer)
					e.requireNothingLeft(t)
				}
				runtime.GC()
				e.client.Stats()
				require.Len(t, found.list(), c.reported, "reported once")
			})
		})
	}
}

// TestDroppedExactRead: a program that has read all that it wanted and closed
// may drop the stream before the FIN comes. That is no leak.
func TestDroppedExactRead(t *testing.T) {
	var found leaks
	setup{guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
		func() {
			client, err := e.client.OpenStream()
			require.NoError(t, err)
			write(t, client, "request")
			client.Close()
			go func() {
				s, err := e.server.AcceptStream(context.Background())
				if err != nil {
					return
				}
				io.ReadAll(s)
				s.Write([]byte("answer"))
				time.Sleep(100 * time.Millisecond)
				s.Close()
			}()
			expect(t, client, "answer")
		}()
		runtime.GC()
		require.EqualValues(t, 1, e.client.Stats().Open())
		settled()
		e.requireNothingLeft(t)
		require.Empty(t, found.list())
		require.EqualValues(t, 1, e.client.Stats().Outgoing.Finished)
	})
}

// TestDroppedWithoutCredit: with RequireStreamCreditRelease, a stream that has
// ended and is dropped without its credit being returned would hold its slot
// for ever, whether it ended before it was dropped or after.
func TestDroppedWithoutCredit(t *testing.T) {
	for _, endsLater := range []bool{false, true} {
		var found leaks
		conf := &quic.Config{MaxIncomingStreams: 1, RequireStreamCreditRelease: true}
		setup{serverConf: conf, guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
			func() {
				client, server := e.stream(t)
				server.Close()
				if endsLater {
					time.AfterFunc(20*time.Millisecond, client.Release)
				} else {
					client.Release()
					io.ReadAll(server)
				}
			}()
			runtime.GC()
			e.server.Stats()
			settled()
			e.requireNothingLeft(t)
			if endsLater {
				require.Empty(t, found.list())
			} else {
				require.Len(t, found.list(), 1)
				require.Equal(t, quiclife.Uncredited, found.list()[0].Reason)
			}
			_, err := e.client.OpenStream()
			require.NoError(t, err)
		})
	}
}

// TestUncreditedAtEnd: once the connection has ended, a stream whose credit
// was not returned is no leak.
func TestUncreditedAtEnd(t *testing.T) {
	var found leaks
	conf := &quic.Config{RequireStreamCreditRelease: true}
	setup{serverConf: conf, guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
		func() {
			client, server := e.stream(t)
			server.Close()
			client.Close()
			io.ReadAll(client)
			io.ReadAll(server)
		}()
		require.Zero(t, e.server.Stats().Open())
		e.server.CloseWithError(0, "")
		runtime.GC()
		e.server.Stats()
		require.Empty(t, found.list())
	})
}

// TestReportOnlyEndsNothing: leaks are reported, and left as they are.
func TestReportOnlyEndsNothing(t *testing.T) {
	var found leaks
	setup{guard: &quiclife.Guard{OnLeak: found.add, AbandonGrace: -1, ReportOnly: true}}.in(t, func(t *testing.T, e ends) {
		drop(t, e.client, func(s *quiclife.Stream) { s.Write([]byte("x")) })
		drop(t, e.client, func(s *quiclife.Stream) { s.Close() })
		drop(t, e.client, func(s *quiclife.Stream) {})
		runtime.GC()
		require.EqualValues(t, 3, e.client.Stats().Open())
		settled()
		require.Len(t, found.list(), 3)
		require.EqualValues(t, 3, e.client.Stats().Open())
	})
}

// TestCaptureStacks: a leak is reported with the place where its stream was
// opened or accepted.
func TestCaptureStacks(t *testing.T) {
	setup{guard: &quiclife.Guard{CaptureStacks: true}}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		uni, err := e.client.OpenUniStreamSync(t.Context())
		require.NoError(t, err)
		write(t, uni, "x")
		r, err := e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		try, err := e.client.OpenStream()
		require.NoError(t, err)
		for caller, infos := range map[string][]quiclife.StreamInfo{
			"quiclife_test.ends.stream ":             {client.Info(), server.Info()},
			"quiclife_test.TestCaptureStacks.func1 ": {uni.Info(), r.Info(), try.Info()},
		} {
			for _, info := range infos {
				first, _, _ := strings.Cut(info.Stack, "\n")
				require.Contains(t, first, caller, info.Stack)
				require.Contains(t, info.Stack, "reclaim_test.go:")
			}
		}
		for _, s := range []interface{ Release() }{client, server, uni, r, try} {
			s.Release()
		}
	})
	setup{}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		require.Empty(t, client.Info().Stack+server.Info().Stack)
		client.Release()
		server.Release()
	})
}

// TestReclaimInRealTime: the sentinel finds dropped streams without any call
// to us, of all three types, on both ends. It ends those in somebody's way.
func TestReclaimInRealTime(t *testing.T) {
	var found leaks
	e := setup{guard: &quiclife.Guard{OnLeak: found.add, CaptureStacks: true, AbandonGrace: 10 * time.Millisecond}}.onLoopback(t)
	const n = 20
	func() {
		for range n {
			e.stream(t)
			uni, err := e.client.OpenUniStream()
			require.NoError(t, err)
			write(t, uni, "x")
			r, err := e.server.AcceptUniStream(t.Context())
			require.NoError(t, err)
			expect(t, r, "x")
		}
	}()
	dropped := func(c *quiclife.Conn) (uni int) {
		for info := range c.Streams() {
			if info.Dropped && info.Unidirectional {
				uni++
			}
		}
		return uni
	}
	eventually(t, func() bool {
		runtime.GC() // more than one: a sentinel made during a collection sees the next
		return dropped(e.client) == n && dropped(e.server) == n &&
			e.client.Stats().Outgoing.Open+e.server.Stats().Incoming.Open == 0
	})
	// The peer's reset may have ended a stream before it was reported.
	for _, leak := range found.list() {
		require.Equal(t, quiclife.Dropped, leak.Reason)
		require.Contains(t, leak.Stream.Stack, "reclaim_test.go:")
	}
	require.GreaterOrEqual(t, len(found.list()), n)
	e.client.CloseWithError(0, "")
}

// TestInUse: a stream that is in use is never taken for dropped, though the
// only reference may be the call itself, and loses nothing.
func TestInUse(t *testing.T) {
	guard := &quiclife.Guard{OnLeak: func(l quiclife.Leak) { t.Error("reported:", l.Stream) }, AbandonGrace: time.Nanosecond}
	e := setup{guard: guard}.onLoopback(t)
	collectConstantly(t)
	data := randomBytes(2 << 20)
	go func() {
		for {
			s, err := e.server.AcceptStream(context.Background())
			if err != nil {
				return
			}
			go func() {
				io.Copy(s, s)
				s.Close()
			}()
		}
	}()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s, err := e.client.OpenStream()
			if err != nil {
				t.Error(err)
				return
			}
			wg.Go(func() {
				io.Copy(s, bytes.NewReader(data))
				s.Close()
			})
			var back bytes.Buffer
			io.Copy(&back, s)
			if !bytes.Equal(data, back.Bytes()) {
				t.Error("lost data")
			}
		})
	}
	wg.Wait()
	e.client.CloseWithError(0, "")
}

// TestKeepAlive: while a call blocks, its stream is not dropped, also if
// nothing else refers to it. This is for the KeepAlives of all the calls.
func TestKeepAlive(t *testing.T) {
	var found leaks
	setup{serverConf: matrixConf, clientConf: matrixConf, guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
		var wg sync.WaitGroup
		open := func() *quiclife.Stream {
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			return s
		}
		uni := func() *quiclife.SendStream {
			s, err := e.client.OpenUniStream()
			require.NoError(t, err)
			return s
		}
		receive := func() *quiclife.ReceiveStream {
			s, err := e.server.OpenUniStream()
			require.NoError(t, err)
			s.Write([]byte("x"))
			wg.Go(func() { time.Sleep(5 * time.Second); s.Close() })
			r, err := e.client.AcceptUniStream(t.Context())
			require.NoError(t, err)
			expect(t, r, "x")
			return r
		}
		limit := func(n int) int { return n }
		calls := []func(){
			func() { open().Read(make([]byte, 1)) },
			func() { open().Peek(make([]byte, 1)) },
			func() { open().Write(large) },
			func() { open().WriteWithLimit(large, limit) },
			func() { uni().Write(large) },
			func() { uni().WriteWithLimit(large, limit) },
			func() { receive().Peek(make([]byte, 1)) },
			func() { receive().Read(make([]byte, 1)) },
		}
		for _, call := range calls {
			wg.Go(call)
		}
		settled()
		runtime.GC()
		require.EqualValues(t, len(calls), e.client.Stats().Open())
		require.Empty(t, found.list())
		e.client.CloseWithError(0, "")
		wg.Wait()
	})
}

// TestHalfCloseTimeout: a receive half that nobody reads is cancelled.
func TestHalfCloseTimeout(t *testing.T) {
	const timeout = 8 * time.Second
	for _, c := range []struct {
		name  string
		use   func(s, peer *quiclife.Stream) // after Close
		after time.Duration                  // when it is cancelled, 0 never
	}{
		{"not read", func(s, peer *quiclife.Stream) {}, timeout},
		{"data not read", func(s, peer *quiclife.Stream) { peer.Write([]byte("unread")); peer.Close() }, timeout},
		{"reset not read", func(s, peer *quiclife.Stream) { peer.Write([]byte("x")); time.Sleep(time.Second); peer.CancelWrite(1) }, timeout},
		{"read once", func(s, peer *quiclife.Stream) { peer.Write([]byte("y")); s.Read(make([]byte, 1)) }, timeout + timeout/4},
		{"being read", func(s, peer *quiclife.Stream) { go s.Read(make([]byte, 1)) }, 0},
		{"ended", func(s, peer *quiclife.Stream) { peer.Close(); io.ReadAll(s) }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var found leaks
			guard := &quiclife.Guard{HalfCloseTimeout: timeout, OnLeak: found.add, Codes: quiclife.Codes{HalfClosed: 13}}
			conf := &quic.Config{MaxIdleTimeout: time.Hour}
			setup{guard: guard, clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
				s, peer := e.stream(t)
				keep(t, s)
				keep(t, peer)
				s.Close()
				start := time.Now()
				c.use(s, peer)
				if c.after == 0 {
					time.Sleep(10 * timeout)
					require.Empty(t, found.list())
				} else {
					time.Sleep(time.Until(start.Add(timeout - time.Millisecond)))
					require.Empty(t, found.list())
					for len(found.list()) == 0 && time.Since(start) < 10*timeout {
						time.Sleep(10 * time.Millisecond)
					}
					require.LessOrEqual(t, time.Since(start), c.after+50*time.Millisecond)
					require.Equal(t, quiclife.HalfClosed, found.list()[0].Reason)
					require.Equal(t, quiclife.HalfAborted, s.Info().Receive)
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
				require.LessOrEqual(t, len(found.list()), 1)
			})
		})
	}
	t.Run("never", func(t *testing.T) {
		conf := &quic.Config{MaxIdleTimeout: 10 * time.Hour}
		setup{guard: &quiclife.Guard{HalfCloseTimeout: -1}, clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
			s, peer := e.stream(t)
			s.Close()
			time.Sleep(time.Hour)
			require.Equal(t, quiclife.HalfOpen, s.Info().Receive)
			s.Release()
			peer.Release()
		})
	})
	t.Run("many, one after the other", func(t *testing.T) {
		var found leaks
		conf := &quic.Config{MaxIdleTimeout: time.Hour}
		setup{guard: &quiclife.Guard{HalfCloseTimeout: timeout, OnLeak: found.add}, clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
			for range 50 {
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				s.Close()
				keep(t, s)
				time.Sleep(timeout / 20)
				require.LessOrEqual(t, e.client.Stats().Open(), int64(22))
			}
			time.Sleep(timeout)
			require.Zero(t, e.client.Stats().Open())
			require.Len(t, found.list(), 50)
		})
	})
}

// TestLongTimeoutHoldsUpShortOne: IdleTimeout and HalfCloseTimeout share a timer,
// and each stream ends at its own time, whichever is the longer, and however
// many other streams start theirs meanwhile.
func TestLongTimeoutHoldsUpShortOne(t *testing.T) {
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
		conf := &quic.Config{MaxIdleTimeout: time.Hour, MaxIncomingStreams: 1000}
		setup{guard: c.guard, clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
			time.Sleep(10 * time.Second) // the connection's age is no matter
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
				aborted := first.Info().Receive == quiclife.HalfAborted
				switch since := time.Since(start); {
				case since < time.Second:
					require.False(t, aborted, "%s: after %v", c.name, since)
				case since > 1250*time.Millisecond:
					require.True(t, aborted, "%s: after %v", c.name, since)
				}
			}
		})
	}
}

// TestHealsAtLimit: a program that leaks up to the limit and then waits for a
// slot gets one, as a collection is asked for; so does one whose peer leaks.
func TestHealsAtLimit(t *testing.T) {
	conf := &quic.Config{MaxIncomingStreams: 20}
	for _, c := range []struct {
		name string
		leak func(t *testing.T, e ends)
	}{
		{"opener leaks", func(t *testing.T, e ends) {
			go func() { // a peer that does as it should
				for {
					s, err := e.server.AcceptStream(context.Background())
					if err != nil {
						return
					}
					go func() { io.ReadAll(s); s.Release() }()
				}
			}()
			for range 20 {
				drop(t, e.client, func(s *quiclife.Stream) { s.Write([]byte("x")) })
			}
		}},
		{"accepter leaks", func(t *testing.T, e ends) {
			for range 20 {
				client, _ := e.stream(t)
				client.Release()
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := setup{clientConf: conf, serverConf: conf, guard: &quiclife.Guard{AbandonGrace: time.Millisecond}}.onLoopback(t)
			quiclife.ForgetCollections()
			c.leak(t, e)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			s, err := e.client.OpenStreamSync(ctx)
			require.NoError(t, err)
			s.Release()
			e.client.CloseWithError(0, "")
		})
	}
}

// TestAccepterDropsAtItsLimit: an accepter that takes all of its slots and drops
// the streams later has them collected. Below three quarters of its limit it
// asks for no collection.
func TestAccepterDropsAtItsLimit(t *testing.T) {
	forced := func() uint32 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NumForcedGC
	}
	for _, c := range []struct {
		limit   int64
		streams int
		full    bool
	}{
		{1, 1, true},
		{2, 2, true},
		{4, 4, true},
		{3, 2, false},
		{8, 5, false},
	} {
		conf := &quic.Config{MaxIncomingStreams: c.limit, MaxIdleTimeout: time.Hour}
		guard := &quiclife.Guard{AbandonGrace: time.Millisecond}
		setup{serverConf: conf, clientConf: conf, guard: guard}.in(t, func(t *testing.T, e ends) {
			quiclife.ForgetCollections()
			before := forced()
			func() {
				held := make(map[*quiclife.Stream]bool)
				for range c.streams {
					s, err := e.rawClient.OpenStream()
					require.NoError(t, err)
					write(t, s, "x")
					s.Close()
					s.CancelRead(1)
					accepted, err := e.server.AcceptStream(t.Context())
					require.NoError(t, err)
					held[accepted] = true
				}
				time.Sleep(2500 * time.Millisecond)
				for s := range held {
					require.Equal(t, quiclife.HalfOpen, s.Info().Receive)
				}
			}()
			if !c.full {
				time.Sleep(10 * time.Second)
				require.Equal(t, before, forced(), "%+v: collections asked for", c)
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			s, err := e.rawClient.OpenStreamSync(ctx) // plain: it asks for no collection itself
			require.NoError(t, err, "%+v", c)
			s.CancelWrite(1)
		})
	}
}

// TestStreamFoundAgainWhileItIsReclaimedCountsAsReclaimed: a second look may come
// while the first is ending a dropped stream.
func TestStreamFoundAgainWhileItIsReclaimedCountsAsReclaimed(t *testing.T) {
	var found leaks
	setup{guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
		drop(t, e.client, func(s *quiclife.Stream) {
			quiclife.BeforeCancelWrite(s, func() { e.client.Stats() })
		})
		runtime.GC()
		stats := e.client.Stats().Outgoing
		require.EqualValues(t, 1, stats.Reclaimed, "%+v", stats)
		require.Len(t, found.list(), 1)
	})
}

// TestStreamDetachedBeforeItsReclaimIsNotDrained: with NoStopSending too, a
// stream that is given away is not ours to end.
func TestStreamDetachedBeforeItsReclaimIsNotDrained(t *testing.T) {
	serverGuard := &quiclife.Guard{NoStopSending: true, IdleTimeout: time.Second}
	setup{}.in(t, func(t *testing.T, e ends) {
		e.server = serverGuard.Wrap(e.rawServer, nil)
		_, first := e.stream(t)
		client, second := e.stream(t)
		quiclife.BeforeCancelWrite(first, func() { second.Detach() }) // both time out at once
		time.Sleep(2 * time.Second)
		require.Equal(t, quiclife.HalfAborted, first.Info().Send)
		require.EqualValues(t, 1, e.server.Stats().Incoming.Detached)
		write(t, client, "x")
		expect(t, second, "x")
		second.Detach().CancelRead(0)
		first.Release()
	})
}

// TestReportOnlyReportsUncreditedStreamThatEndedLater: nobody returns its credit
// then, though it was found dropped before it ended by itself.
func TestReportOnlyReportsUncreditedStreamThatEndedLater(t *testing.T) {
	var found leaks
	conf := &quic.Config{MaxIncomingStreams: 1, RequireStreamCreditRelease: true}
	setup{serverConf: conf, guard: &quiclife.Guard{OnLeak: found.add, ReportOnly: true}}.in(t, func(t *testing.T, e ends) {
		func() {
			client, server := e.stream(t)
			server.Close()
			time.AfterFunc(20*time.Millisecond, client.Release)
		}()
		runtime.GC()
		require.EqualValues(t, 1, e.server.Stats().Incoming.Open)
		settled()
		require.Zero(t, e.server.Stats().Open())
		require.Len(t, found.list(), 1)
		require.Equal(t, quiclife.Uncredited, found.list()[0].Reason)
		_, err := e.client.OpenStream()
		require.ErrorIs(t, err, &quiclife.StreamLimitReachedError{})
		e.server.Stats()
		require.Len(t, found.list(), 1, "reported once")
	})
}
