package quiclife_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// seeOneStream accepts a stream and returns what the application sees of it. It
// answers a question, and may take some time before it ends its own half.
func seeOneStream(c *quiclife.Conn, holds time.Duration) <-chan string {
	seen := make(chan string, 1)
	see := func() (all []string) {
		s, err := c.AcceptStream(c.Context())
		if err != nil {
			return []string{"nothing"}
		}
		defer s.Release()
		b := make([]byte, 100)
		for {
			n, err := s.Read(b)
			if n > 0 {
				all = append(all, string(b[:n]))
			}
			if string(b[:n]) == "?" {
				s.Write([]byte("answer"))
			}
			switch err := err.(type) {
			case nil:
			case *quiclife.StreamError:
				return append(all, fmt.Sprint("reset ", err.ErrorCode))
			default:
				time.Sleep(holds)
				s.Close()
				return append(all, err.Error())
			}
		}
	}
	go func() { seen <- strings.Join(see(), ", ") }()
	return seen
}

// TestDroppedStreamIsReportedAndEnded: at once if it is certainly a leak. If
// data can still arrive, or the stream can still end by itself, it gets
// AbandonGrace for that.
func TestDroppedStreamIsReportedAndEnded(t *testing.T) {
	for _, c := range []struct {
		name             string
		do               func(*quiclife.Stream)
		peerHolds        time.Duration
		atOnce, reported int // leaks reported right after the collection, and at the end
		openFor          time.Duration
		atPeer           string
	}{
		{"not used", func(s *quiclife.Stream) {}, 0, 1, 1, 0, "reset 9"},
		{"written to", func(s *quiclife.Stream) { s.Write([]byte("message")) }, 0, 1, 1, time.Second, "message, reset 9"},
		{"written to and closed", func(s *quiclife.Stream) { s.Write([]byte("message")); s.Close() }, 0, 0, 0, 0, "message, EOF"},
		{"written to and reset", func(s *quiclife.Stream) { s.Write([]byte("message")); settled(); s.CancelWrite(5) }, 0, 0, 0, 0, "message, reset 5"},
		{"closed, the peer does not end its half", func(s *quiclife.Stream) { s.Write([]byte("hold")); s.Close() }, 5 * time.Second, 0, 1, time.Second, "hold, EOF"},
		{"only not read", func(s *quiclife.Stream) { s.Write([]byte("?")); s.Close(); settled() }, 0, 1, 1, 0, "?, EOF"},
		{"answer not read", func(s *quiclife.Stream) { s.Write([]byte("?")); settled() }, 0, 1, 1, time.Second, "?, reset 9"},
		{"Released", func(s *quiclife.Stream) { s.Write([]byte("message")); s.Close(); s.Release() }, 0, 0, 0, 0, "message, EOF"},
		{"Detached", func(s *quiclife.Stream) { raw := s.Detach(); raw.CancelRead(0); raw.Close() }, 0, 0, 0, 0, "EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var found leaks
			var log logged
			guard := &quiclife.Guard{Codes: quiclife.Codes{Abandoned: 9}, OnLeak: found.add, Logger: log.logger()}
			setup{guard: guard}.in(t, func(t *testing.T, e ends) {
				seen := seeOneStream(e.server, c.peerHolds)
				drop(t, e.client, c.do)
				settled()
				settled()
				collectAndLook(e.client)
				require.Len(t, found.list(), c.atOnce, "leaks reported at once")
				if c.openFor > 0 {
					time.Sleep(c.openFor - time.Millisecond)
					require.EqualValues(t, 1, e.client.Stats().Open(), "streams open after %v", c.openFor)
				}
				settled()
				stats := e.client.Stats().Outgoing
				require.Zero(t, stats.Open)
				require.EqualValues(t, c.reported, stats.Reclaimed)
				require.Len(t, found.list(), c.reported, "leaks reported in the end")
				require.Equal(t, c.reported, strings.Count(log.String(), "stream leaked"), "records in %s", log.String())
				require.Equal(t, c.atPeer, <-seen, "seen by the peer")
				settled()
				e.requireNothingLeft(t)
				collectAndLook(e.client)
				require.Len(t, found.list(), c.reported, "reported once")
			})
		})
	}
}

// TestGraceThatIsMeantToBeForEverDoesNotOverflow: otherwise what was written
// would be lost at once.
func TestGraceThatIsMeantToBeForEverDoesNotOverflow(t *testing.T) {
	guard := &quiclife.Guard{AbandonGrace: math.MaxInt64, HalfCloseTimeout: -1}
	setup{guard: guard, clientConf: longConf, serverConf: longConf}.in(t, func(t *testing.T, e ends) {
		drop(t, e.client, func(s *quiclife.Stream) { write(t, s, "x") })
		settled()
		collectAndLook(e.client)
		require.EqualValues(t, 1, e.client.Stats().Outgoing.Open)
		require.NoError(t, e.client.CloseWithError(0, ""))
	})
}

// TestUnwrittenStreamIsEndedAtOnce: a dropped stream without data in flight
// gets no grace.
func TestUnwrittenStreamIsEndedAtOnce(t *testing.T) {
	var found leaks
	setup{guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
		drop(t, e.client, func(*quiclife.Stream) {})
		collectAndLook(e.client)
		require.Zero(t, e.client.Stats().Open())
		found.require(t, quiclife.LeakDropped)
		require.Same(t, e.client, found.list()[0].Conn)
	})
}

// TestStreamDroppedAfterAnExactReadIsNoLeak: a program that has closed the
// stream and read all it wants may drop it before the FIN comes.
func TestStreamDroppedAfterAnExactReadIsNoLeak(t *testing.T) {
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
		collectAndLook(e.client)
		require.EqualValues(t, 1, e.client.Stats().Open())
		settled()
		e.requireNothingLeft(t)
		found.require(t)
		require.EqualValues(t, 1, e.client.Stats().Outgoing.Finished)
	})
}

// TestDroppedStreamWhoseEndIsBeingConsumedIsNoLeak: its final size has just
// become known.
func TestDroppedStreamWhoseEndIsBeingConsumedIsNoLeak(t *testing.T) {
	var found leaks
	setup{guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
		looked := false
		drop(t, e.client, func(s *quiclife.Stream) {
			s.SetReceiveFinalSizeCallback(func(int64) { // called before the end is consumed
				collectAndLook(e.client)
				looked = true
			})
			write(t, s, "x")
			s.CancelWrite(1)
		})
		s, err := e.server.AcceptStream(t.Context())
		require.NoError(t, err)
		s.Release()
		settled()
		require.True(t, looked, "the end has not become known")
		found.require(t)
		e.requireNothingLeft(t)
	})
}

// TestDroppedStreamGivesBackItsCredit: with RequireStreamCreditRelease, a
// stream that was dropped before its credit was returned would hold its slot
// forever, whether it ended before the drop or after.
func TestDroppedStreamGivesBackItsCredit(t *testing.T) {
	for _, c := range []struct {
		name      string
		endsLater bool
		reported  []quiclife.LeakReason
	}{
		{"ended before", false, []quiclife.LeakReason{quiclife.LeakUncredited}},
		{"ends after", true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var found leaks
			conf := &quic.Config{MaxIncomingStreams: 1, RequireStreamCreditRelease: true}
			setup{serverConf: conf, guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
				func() {
					client, server := e.stream(t)
					server.Close()
					if c.endsLater {
						time.AfterFunc(20*time.Millisecond, client.Release)
					} else {
						client.Release()
						io.ReadAll(server)
					}
				}()
				collectAndLook(e.server)
				settled()
				e.requireNothingLeft(t)
				found.require(t, c.reported...)
				_, err := e.client.OpenStream()
				require.NoError(t, err)
			})
		})
	}
}

// TestUncreditedStreamIsNoLeakOnceTheConnectionHasEnded: then there is no
// credit to return.
func TestUncreditedStreamIsNoLeakOnceTheConnectionHasEnded(t *testing.T) {
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
		settled() // the EOF may have been consumed during ReadAll
		require.Zero(t, e.server.Stats().Open())
		e.server.CloseWithError(0, "")
		collectAndLook(e.server)
		found.require(t)
	})
}

// TestStreamDroppedAfterItsCreditWasReturnedIsNoLeak: the program had nothing
// left to do.
func TestStreamDroppedAfterItsCreditWasReturnedIsNoLeak(t *testing.T) {
	var found leaks
	conf := &quic.Config{RequireStreamCreditRelease: true}
	setup{serverConf: conf, guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
		func() {
			client, server := e.stream(t)
			server.Close()
			client.Close()
			io.ReadAll(client)
			io.ReadAll(server)
			settled() // as above
			require.Zero(t, e.server.Stats().Open(), "it owes its credit")
			server.ReleaseStreamCredit()
		}()
		collectAndLook(e.server)
		found.require(t)
	})
}

// TestReportOnlyEndsNothing: leaks are reported and left as they are.
func TestReportOnlyEndsNothing(t *testing.T) {
	var found leaks
	setup{guard: &quiclife.Guard{OnLeak: found.add, AbandonGrace: -1, ReportOnly: true}}.in(t, func(t *testing.T, e ends) {
		drop(t, e.client, func(s *quiclife.Stream) { s.Write([]byte("x")) })
		drop(t, e.client, func(s *quiclife.Stream) { s.Close() })
		drop(t, e.client, func(s *quiclife.Stream) {})
		collectAndLook(e.client)
		require.EqualValues(t, 3, e.client.Stats().Open())
		settled()
		found.require(t, quiclife.LeakDropped, quiclife.LeakDropped, quiclife.LeakDropped)
		require.EqualValues(t, 3, e.client.Stats().Open())
	})
}

// TestReportOnlyReportsUncreditedStreamThatEndedLater: it was found dropped
// before it ended by itself, and nobody returns its credit.
func TestReportOnlyReportsUncreditedStreamThatEndedLater(t *testing.T) {
	var found leaks
	conf := &quic.Config{MaxIncomingStreams: 1, RequireStreamCreditRelease: true}
	setup{serverConf: conf, guard: &quiclife.Guard{OnLeak: found.add, ReportOnly: true}}.in(t, func(t *testing.T, e ends) {
		func() {
			client, server := e.stream(t)
			server.Close()
			time.AfterFunc(20*time.Millisecond, client.Release)
		}()
		collectAndLook(e.server)
		require.EqualValues(t, 1, e.server.Stats().Incoming.Open)
		settled()
		require.Zero(t, e.server.Stats().Open())
		found.require(t, quiclife.LeakUncredited)
		_, err := e.client.OpenStream()
		require.ErrorIs(t, err, &quiclife.StreamLimitReachedError{})
		e.server.Stats()
		found.require(t, quiclife.LeakUncredited)
	})
}

// TestLeakIsReportedOnceThoughForSeveralReasons: the stream is dropped, and
// then idle.
func TestLeakIsReportedOnceThoughForSeveralReasons(t *testing.T) {
	var found leaks
	guard := &quiclife.Guard{OnLeak: found.add, AbandonGrace: -1, IdleTimeout: time.Second}
	setup{guard: guard}.in(t, func(t *testing.T, e ends) {
		drop(t, e.client, func(s *quiclife.Stream) { s.Write([]byte("x")) })
		collectAndLook(e.client)
		settled()
		settled()
		found.require(t, quiclife.LeakDropped)
	})
}

// TestStreamFoundAgainWhileItIsReclaimedCountsAsReclaimed: a second sweep may
// come while the first is ending a dropped stream.
func TestStreamFoundAgainWhileItIsReclaimedCountsAsReclaimed(t *testing.T) {
	var found leaks
	setup{guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
		drop(t, e.client, func(s *quiclife.Stream) {
			quiclife.BeforeCancelWrite(s, func() { e.client.Stats() })
		})
		collectAndLook(e.client)
		stats := e.client.Stats().Outgoing
		require.EqualValues(t, 1, stats.Reclaimed, "%+v", stats)
		found.require(t, quiclife.LeakDropped)
	})
}

// TestStreamDetachedBeforeItsReclaimIsNotDrained: with NoStopSending too, we do
// not end detached streams.
func TestStreamDetachedBeforeItsReclaimIsNotDrained(t *testing.T) {
	serverGuard := &quiclife.Guard{NoStopSending: true, IdleTimeout: time.Second, Logger: slog.New(slog.DiscardHandler)}
	setup{}.in(t, func(t *testing.T, e ends) {
		e.server = serverGuard.Wrap(e.rawServer, nil)
		_, first := e.stream(t)
		client, second := e.stream(t)
		quiclife.BeforeCancelWrite(first, func() { second.Detach() }) // both time out at once
		time.Sleep(2 * time.Second)
		require.Equal(t, quiclife.HalfAborted.String(), first.Info().Send.String(), "the send half of the first")
		require.EqualValues(t, 1, e.server.Stats().Incoming.Detached)
		write(t, client, "x")
		expect(t, second, "x")
		second.Detach().CancelRead(0)
		first.Release()
	})
}

// TestLeakTellsWhereItsStreamWasOpened: or accepted, if CaptureStacks is set.
func TestLeakTellsWhereItsStreamWasOpened(t *testing.T) {
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
			"quiclife_test.ends.stream ":                                {client.Info(), server.Info()},
			"quiclife_test.TestLeakTellsWhereItsStreamWasOpened.func1 ": {uni.Info(), r.Info(), try.Info()},
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

// TestStreamInUseIsNeverTakenForDropped: even if the call itself is the only
// reference. No data is lost.
func TestStreamInUseIsNeverTakenForDropped(t *testing.T) {
	guard := &quiclife.Guard{OnLeak: func(l quiclife.Leak) { t.Error("reported:", l.Stream) }, AbandonGrace: time.Nanosecond}
	e := setup{guard: guard}.onLoopback(t)
	collectConstantly(t)
	data := randomBytes(256 << 10)
	go handleEach(e.server, func(s *quiclife.Stream) {
		io.Copy(s, s)
		s.Close()
	})
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
			_, err = io.Copy(&back, s)
			if !bytes.Equal(data, back.Bytes()) {
				t.Errorf("%d bytes of %d came back, or not the same, then %v", back.Len(), len(data), err)
			}
		})
	}
	wg.Wait()
	e.client.CloseWithError(0, "")
}

// handOver runs call with s. Nothing else refers to s from then on.
func handOver[S any](wg *sync.WaitGroup, s S, call func(S)) {
	ch := make(chan S, 1)
	ch <- s
	wg.Go(func() { call(<-ch) })
}

// TestBlockedCallKeepsItsStreamAlive: even if nothing else refers to the
// stream. This tests the KeepAlive in each call.
func TestBlockedCallKeepsItsStreamAlive(t *testing.T) {
	var found leaks
	setup{serverConf: matrixConf, clientConf: matrixConf, guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
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
			keep(t, s)
			write(t, s, "x")
			r, err := e.client.AcceptUniStream(t.Context())
			require.NoError(t, err)
			expect(t, r, "x")
			return r
		}
		limit := func(n int) int { return n }
		var wg sync.WaitGroup
		handOver(&wg, open(), func(s *quiclife.Stream) { s.Read(make([]byte, 1)) })
		handOver(&wg, open(), func(s *quiclife.Stream) { s.Peek(make([]byte, 1)) })
		handOver(&wg, open(), func(s *quiclife.Stream) { s.Write(large) })
		handOver(&wg, open(), func(s *quiclife.Stream) { s.WriteWithLimit(large, limit) })
		handOver(&wg, uni(), func(s *quiclife.SendStream) { s.Write(large) })
		handOver(&wg, uni(), func(s *quiclife.SendStream) { s.WriteWithLimit(large, limit) })
		handOver(&wg, receive(), func(s *quiclife.ReceiveStream) { s.Peek(make([]byte, 1)) })
		handOver(&wg, receive(), func(s *quiclife.ReceiveStream) { s.Read(make([]byte, 1)) })
		settled()
		collectAndLook(e.client)
		for info := range e.client.Streams() {
			require.False(t, info.Dropped, "taken for dropped: %v", info)
		}
		require.EqualValues(t, 8, e.client.Stats().Open())
		found.require(t)
		e.client.CloseWithError(0, "")
		wg.Wait()
	})
}
