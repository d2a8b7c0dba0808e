package quiclife_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// acceptOnce accepts a unidirectional stream, reads its first message, and
// drops the stream.
//
//go:noinline
func acceptOnce(ctx context.Context, c *quiclife.Conn) error {
	s, err := c.AcceptUniStream(ctx)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(s, make([]byte, len("settings")))
	return err
}

// readToTheError is a peer whose application behaves well.
func readToTheError(c *quiclife.Conn) {
	for {
		s, err := c.AcceptUniStream(context.Background())
		if err != nil {
			return
		}
		go func() {
			io.Copy(io.Discard, s)
			s.Release()
		}()
	}
}

// controlStreams counts the open streams among the first three of each kind.
func controlStreams(c *quiclife.Conn) (n int) {
	for info := range c.Streams() {
		if info.ID>>2 < 3 {
			n++
		}
	}
	return n
}

// TestLeakedUniStreamsNeverBlockOpens: a program that opens, writes and drops
// unidirectional streams at a limit of 100 is not blocked.
func TestLeakedUniStreamsNeverBlockOpens(t *testing.T) {
	e := setup{guard: quiclife.OwnCollector(&quiclife.Guard{})}.onLoopback(t)
	go readToTheError(e.server)
	const n = 500
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	start := time.Now()
	for i := range n {
		require.NoError(t, dropUni(ctx, e.client), "stream %d", i)
	}
	t.Logf("%.0f streams a second", float64(n)/time.Since(start).Seconds())
	var stats quiclife.StreamStats
	eventually(t, func() bool { // the peer may have given a slot back before we have noted that its stream has ended
		stats = e.client.Stats().OutgoingUni
		return stats.Open <= 100
	}, "more streams open than the peer allows")
	require.Equal(t, stats.Opened-stats.Open, stats.Reclaimed)
	e.client.CloseWithError(0, "")
}

// TestServerThatDropsEveryStreamServesOn: it answers and drops each stream, at
// a limit of 100.
func TestServerThatDropsEveryStreamServesOn(t *testing.T) {
	e := setup{guard: quiclife.OwnCollector(&quiclife.Guard{})}.onLoopback(t)
	go handleEach(e.server, func(s *quiclife.Stream) {
		io.ReadAll(s)
		s.Write([]byte("answer"))
	})
	const n = 1000
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	start := time.Now()
	request := func() error {
		s, err := e.client.OpenStreamSync(ctx)
		if err != nil {
			return err
		}
		defer s.Release()
		s.Write([]byte("request"))
		s.Close()
		_, err = io.ReadFull(s, make([]byte, len("answer")))
		return err
	}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for range n / 100 {
				if err := request(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%.0f streams a second", float64(n)/time.Since(start).Seconds())
	e.client.CloseWithError(0, "")
}

// TestOpenAtTheLimitGetsTheSlotOfADroppedStream: a program that leaks up to a
// limit gets slots back. So does one whose peer leaks. It does not matter when
// the streams are dropped and how the program opens new ones.
func TestOpenAtTheLimitGetsTheSlotOfADroppedStream(t *testing.T) {
	const limit = 20
	for _, c := range []struct {
		name     string
		own      bool          // this side's limit, not the peer's
		accepter bool          // the accepter leaks
		after    time.Duration // when the streams are dropped, after the open has begun to wait
		within   time.Duration // how long the open may take from then on
		poll     bool          // opens by polling with OpenStream
		rounds   int
	}{
		{name: "OpenStreamSync at once", within: time.Second, rounds: 1},
		{name: "OpenStream only", within: time.Second, poll: true, rounds: 1},
		{name: "own limit", own: true, within: time.Second, rounds: 1},
		{name: "dropped later", after: 2500 * time.Millisecond, within: 4 * time.Second, rounds: 1},
		{name: "accepter drops", accepter: true, within: time.Second, rounds: 1},
		{name: "accepter drops later", accepter: true, after: 2500 * time.Millisecond, within: 4 * time.Second, rounds: 1},
		{name: "again and again", within: time.Second, rounds: 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			guard, conf := &quiclife.Guard{AbandonGrace: time.Millisecond}, &quic.Config{MaxIncomingStreams: limit}
			if c.own {
				guard.MaxOutgoingStreams, conf.MaxIncomingStreams = limit, 50*limit
			}
			setup{serverConf: conf, guard: guard}.in(t, func(t *testing.T, e ends) {
				if !c.accepter {
					go handleEach(e.server, readAllAndRelease)
				}
				for range c.rounds {
					var held []*quiclife.Stream
					for range limit {
						s := openWithin(t, e.client, c.within, false)
						write(t, s, "x")
						if c.accepter {
							p, err := e.server.AcceptStream(t.Context())
							require.NoError(t, err)
							s.Release()
							s = p
						}
						held = append(held, s)
					}
					if c.after == 0 {
						held = nil
					} else {
						time.AfterFunc(c.after, func() { held = nil })
					}
					openWithin(t, e.client, c.after+c.within, c.poll).Release()
				}
			})
		})
	}
}

// openWithin opens a stream at a limit within a time, by polling or by waiting.
func openWithin(t *testing.T, c *quiclife.Conn, within time.Duration, poll bool) *quiclife.Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if !poll {
		s, err := c.OpenStreamSync(ctx)
		require.NoError(t, err)
		return s
	}
	for {
		s, err := c.OpenStream()
		if err == nil {
			return s
		}
		require.NoError(t, ctx.Err(), "%v", err)
		time.Sleep(time.Millisecond)
	}
}

// TestDroppedControlStreamsLive: a unidirectional stream that was written or
// read once and then dropped stays open through collections, as long as no slot
// is short.
func TestDroppedControlStreamsLive(t *testing.T) {
	var found leaks
	setup{guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
		for range 5 {
			require.NoError(t, dropUni(t.Context(), e.client))
			require.NoError(t, dropUni(t.Context(), e.server))
			require.NoError(t, acceptOnce(t.Context(), e.client))
			require.NoError(t, acceptOnce(t.Context(), e.server))
		}
		for range 10 {
			collectAndLook(e.client, e.server)
			for _, c := range []*quiclife.Conn{e.client, e.server} {
				for info := range c.Streams() {
					require.True(t, info.Dropped, "%v", info)
				}
				stats := c.Stats()
				require.EqualValues(t, 5, stats.OutgoingUni.Open)
				require.EqualValues(t, 5, stats.IncomingUni.Open)
			}
			settled()
		}
		found.require(t)
		require.NoError(t, context.Cause(e.client.Context()))
	})
}

// TestDroppedUniStreamsThatThePeerHasEnded: nobody needs them any more, so they
// are ended without a shortage.
func TestDroppedUniStreamsThatThePeerHasEnded(t *testing.T) {
	setup{guard: &quiclife.Guard{}}.in(t, func(t *testing.T, e ends) {
		require.NoError(t, dropUni(t.Context(), e.client))
		stopped, err := e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		stopped.Release()
		for _, end := range []func(*quiclife.SendStream){
			func(s *quiclife.SendStream) { s.Close() },
			func(s *quiclife.SendStream) { s.CancelWrite(1) },
		} {
			s, err := e.server.OpenUniStream()
			require.NoError(t, err)
			write(t, s, "settings, and more that nobody reads")
			require.NoError(t, acceptOnce(t.Context(), e.client))
			end(s)
		}
		settled()
		for range 3 {
			collectAndLook(e.client)
			settled()
		}
		e.requireNothingLeft(t)
	})
}

// TestDroppedControlStreamsAreEndedLast: in a shortage, all dropped streams
// except the first three are ended. These three are ended only if that did not
// help.
func TestDroppedControlStreamsAreEndedLast(t *testing.T) {
	conf := &quic.Config{MaxIncomingUniStreams: 10}
	const wait = 10 * time.Second
	drop10 := func(t *testing.T, e ends) {
		for range 10 {
			require.NoError(t, dropUni(t.Context(), e.client))
		}
	}
	t.Run("the peer lets the others go", func(t *testing.T) {
		setup{serverConf: conf}.in(t, func(t *testing.T, e ends) {
			drop10(t, e)
			go readToTheError(e.server)
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			require.NoError(t, dropUni(ctx, e.client))
			require.Equal(t, 3, controlStreams(e.client), "control streams that are open")
			require.NoError(t, shutdown(e.client, wait))
		})
	})
	t.Run("the peer keeps them", func(t *testing.T) {
		setup{serverConf: conf}.in(t, func(t *testing.T, e ends) {
			drop10(t, e)
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			require.ErrorIs(t, dropUni(ctx, e.client), context.DeadlineExceeded)
			require.Zero(t, controlStreams(e.client), "control streams that are open")
		})
	})
}

// TestControlStreamsLiveWhileOpensWaitForSlowOnes: if an open waits because the
// peer or the program is slow, no control stream is ended.
func TestControlStreamsLiveWhileOpensWaitForSlowOnes(t *testing.T) {
	for _, c := range []struct {
		name string
		wait time.Duration
		held bool // the program holds the streams; else they have ended here
	}{
		{"slow peer", 3 * time.Second, false},
		{"held by the program", time.Minute, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := &quic.Config{MaxIncomingUniStreams: 10, MaxIdleTimeout: time.Hour}
			setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
				for range 3 {
					require.NoError(t, dropUni(t.Context(), e.client))
				}
				var held []*quiclife.SendStream
				for range 7 {
					s, err := e.client.OpenUniStream()
					require.NoError(t, err)
					write(t, s, "data")
					held = append(held, s)
					if !c.held {
						s.Close()
					}
				}
				time.AfterFunc(c.wait, func() {
					for _, s := range held {
						s.Close()
					}
					readToTheError(e.server)
				})
				s, err := e.client.OpenUniStreamSync(t.Context())
				require.NoError(t, err)
				s.Release()
				require.Equal(t, 3, controlStreams(e.client), "control streams that are open")
				e.client.CloseWithError(0, "")
			})
		})
	}
}

// TestCrowdedIncomingUniStreamsAreEnded: once three quarters of the slots are
// taken, dropped incoming streams are ended, so that the peer can go on.
func TestCrowdedIncomingUniStreamsAreEnded(t *testing.T) {
	var found leaks
	guard := &quiclife.Guard{OnLeak: found.add}
	setup{guard: guard, serverConf: &quic.Config{MaxIncomingUniStreams: 8}}.in(t, func(t *testing.T, e ends) {
		var held []*quiclife.SendStream
		open := func() {
			s, err := e.client.OpenUniStreamSync(t.Context())
			require.NoError(t, err)
			write(t, s, "settings")
			held = append(held, s)
			require.NoError(t, acceptOnce(t.Context(), e.server))
		}
		for range 5 {
			open()
		}
		collectAndLook(e.server)
		require.EqualValues(t, 5, e.server.Stats().IncomingUni.Open)
		settled()
		found.require(t)
		open()
		settled()
		require.NotEmpty(t, found.list(), "6 of 8 are taken")
		for range 20 {
			open()
			settled()
			for len(held) > 3 && held[3].Context().Err() != nil { // it has got STOP_SENDING
				held[3].Release()
				held = append(held[:3], held[4:]...)
			}
		}
		require.LessOrEqual(t, e.server.Stats().IncomingUni.Open, int64(8))
		require.Equal(t, 3, controlStreams(e.server), "control streams that are open")
		for _, s := range held {
			s.Release()
		}
	})
}

// TestCrowdedSlotsComeBackAtOnce: if the accepter drops streams, they are ended
// without waiting for a timer.
func TestCrowdedSlotsComeBackAtOnce(t *testing.T) {
	setup{serverConf: &quic.Config{MaxIncomingStreams: 4}}.in(t, func(t *testing.T, e ends) {
		go func() {
			for {
				if _, err := e.server.AcceptStream(context.Background()); err != nil {
					return
				}
			}
		}()
		start := time.Now()
		for range 40 {
			s, err := e.rawClient.OpenStreamSync(t.Context())
			require.NoError(t, err)
			s.Write([]byte("x"))
			s.CancelWrite(1)
			s.CancelRead(1)
		}
		require.Less(t, time.Since(start), time.Second)
		e.server.CloseWithError(0, "")
	})
}

// TestCrowdedConnectionAtRestLooksRarely: streams in use take most slots for
// hours.
func TestCrowdedConnectionAtRestLooksRarely(t *testing.T) {
	conf := &quic.Config{MaxIdleTimeout: 2 * time.Hour, MaxIncomingStreams: 4}
	setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		for range 3 {
			client, server := e.stream(t)
			keep(t, client)
			go server.Read(make([]byte, 1))
		}
		time.Sleep(time.Minute)
		looks := 0
		last := quiclife.LastLook(e.server)
		for range 3600 {
			time.Sleep(time.Second)
			if look := quiclife.LastLook(e.server); look != last {
				last = look
				looks++
			}
		}
		require.LessOrEqual(t, looks, 200)
		e.server.CloseWithError(0, "")
	})
}

// TestControlStreamsOfHTTP3LiveThroughCollections: as in quic-go's http3, both
// ends write or read control and QPACK streams once and drop them. The
// connection must survive a request of one second with constant collections.
// Either end closes the connection when a control stream ends.
func TestControlStreamsOfHTTP3LiveThroughCollections(t *testing.T) {
	e := setup{guard: &quiclife.Guard{AbandonGrace: -1}}.onLoopback(t)
	collectConstantly(t)
	const closedCriticalStream = 0x104
	control := func(c *quiclife.Conn) {
		for range 3 { // control, QPACK encoder, QPACK decoder
			if err := dropUni(context.Background(), c); err != nil {
				t.Error(err)
			}
		}
		first := true
		for {
			s, err := c.AcceptUniStream(context.Background())
			if err != nil {
				return
			}
			go func(watched bool) {
				io.ReadFull(s, make([]byte, len("settings")))
				if !watched {
					return // http3 reads no more than this from a QPACK stream
				}
				_, err := s.Read(make([]byte, 1))
				if _, ended := errors.AsType[*quiclife.ApplicationError](err); !ended { // only the stream has ended
					t.Errorf("control stream ended: %v", err)
					c.CloseWithError(closedCriticalStream, "")
				}
			}(first)
			first = false
		}
	}
	go control(e.client)
	go control(e.server)
	go handleEach(e.server, func(s *quiclife.Stream) {
		io.ReadAll(s)
		time.Sleep(time.Second)
		s.Write([]byte("answer"))
		s.Close()
	})
	s, err := e.client.OpenStreamSync(t.Context())
	require.NoError(t, err)
	write(t, s, "request")
	s.Close()
	b, err := io.ReadAll(s)
	require.NoError(t, err)
	require.Equal(t, "answer", string(b))
	s.Release()
	for _, c := range []*quiclife.Conn{e.client, e.server} {
		require.NoError(t, context.Cause(c.Context()))
		require.EqualValues(t, 3, c.Stats().OutgoingUni.Open)
		require.EqualValues(t, 3, c.Stats().IncomingUni.Open)
	}
	e.client.CloseWithError(0, "")
}

// TestDroppedStreamsAtOwnLimitComeBack: dropped streams are looked for at this
// side's own limits too, even if the program only polls.
func TestDroppedStreamsAtOwnLimitComeBack(t *testing.T) {
	for _, c := range []struct {
		name  string
		guard *quiclife.Guard
	}{
		{"MaxOutgoingStreams", &quiclife.Guard{MaxOutgoingStreams: 10}},
		{"MaxStreams", &quiclife.Guard{MaxStreams: 10}},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup{guard: c.guard}.in(t, func(t *testing.T, e ends) {
				for range 10 {
					drop(t, e.client, func(*quiclife.Stream) {})
				}
				for range 5000 {
					s, err := e.client.OpenStream()
					if err == nil {
						s.Release()
						return
					}
					require.ErrorAs(t, err, new(*quiclife.LimitError))
					time.Sleep(time.Millisecond)
				}
				require.Fail(t, "no stream came back in 5 s")
			})
		})
	}
}

// TestDroppedUncreditedStreamsComeBack: streams that have ended but whose
// credit was not returned hold slots too, so a collection is asked for when
// slots are short.
func TestDroppedUncreditedStreamsComeBack(t *testing.T) {
	conf := &quic.Config{MaxIncomingStreams: 4, RequireStreamCreditRelease: true}
	guard := &quiclife.Guard{}
	setup{guard: guard, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		for range 4 {
			func() {
				client, server := e.stream(t)
				client.Release()
				server.Close()
				io.ReadAll(server)
			}()
		}
		require.Zero(t, e.server.Stats().Open())
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		s, err := e.client.OpenStreamSync(ctx)
		require.NoError(t, err)
		s.Release()
	})
}

// TestGraceIsShortInAShortage: an open does not wait for AbandonGrace, and yet
// what was written arrives, even if a packet is lost.
func TestGraceIsShortInAShortage(t *testing.T) {
	var lose atomic.Bool
	net := quictest.Net{Latency: 10 * time.Millisecond, Drop: func(simnet.Packet) bool { return lose.CompareAndSwap(true, false) }}
	guard := &quiclife.Guard{MaxOutgoingStreams: 1, AbandonGrace: time.Minute}
	setup{net: net, guard: guard}.in(t, func(t *testing.T, e ends) {
		settled()
		lose.Store(true)
		drop(t, e.client, func(s *quiclife.Stream) { s.Write([]byte("message")) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s, err := e.client.OpenStreamSync(ctx)
		require.NoError(t, err)
		s.Release()
		in, err := e.server.AcceptStream(t.Context())
		require.NoError(t, err)
		expect(t, in, "message")
		in.Release()
	})
}

// TestStreamsDroppedAfterLongUseComeBackSoon: a call that was blocked for a
// long time has returned, and the stream was dropped.
func TestStreamsDroppedAfterLongUseComeBackSoon(t *testing.T) {
	const window, size = 20_000, 60_000
	for _, c := range []struct {
		name    string
		block   func(*quiclife.Stream)
		unblock func(peer *quiclife.Stream)
	}{
		{"Read", func(s *quiclife.Stream) { s.Read(make([]byte, 1)) }, func(peer *quiclife.Stream) { peer.Write([]byte("x")) }},
		{"Write", func(s *quiclife.Stream) { s.Write(make([]byte, size)) }, func(peer *quiclife.Stream) { io.ReadFull(peer, make([]byte, size)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := &quic.Config{MaxIdleTimeout: 2 * time.Hour, MaxIncomingStreams: 4, InitialStreamReceiveWindow: window, MaxStreamReceiveWindow: window}
			setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
				for range 4 {
					peer, s := e.stream(t)
					go c.block(s)
					time.AfterFunc(20*time.Minute, func() {
						c.unblock(peer)
						peer.Close()
						peer.CancelRead(0)
					})
				}
				time.Sleep(20 * time.Minute)
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				raw, err := e.rawClient.OpenStreamSync(ctx)
				require.NoError(t, err)
				raw.CancelWrite(0)
				e.server.CloseWithError(0, "")
			})
		})
	}
}

// TestShutdownDoesNotWaitForDroppedControlStreams: nobody will end them.
func TestShutdownDoesNotWaitForDroppedControlStreams(t *testing.T) {
	var found leaks
	setup{guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
		for _, c := range []*quiclife.Conn{e.client, e.server} {
			for range 3 {
				require.NoError(t, dropUni(t.Context(), c))
			}
		}
		for range 3 {
			require.NoError(t, acceptOnce(t.Context(), e.client))
			require.NoError(t, acceptOnce(t.Context(), e.server))
		}
		settled()
		start := time.Now()
		require.NoError(t, e.client.Shutdown(t.Context(), 0, ""))
		require.Less(t, time.Since(start), time.Second)
		found.require(t)
	})
}

// TestShutdownErrorNamesNoDroppedControlStreams: they do not count as cut.
func TestShutdownErrorNamesNoDroppedControlStreams(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		require.NoError(t, dropUni(t.Context(), e.client))
		client, _ := e.stream(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var cut *quiclife.ShutdownError
		require.ErrorAs(t, e.client.Shutdown(ctx, 0, ""), &cut)
		require.Len(t, cut.Streams, 1)
		require.Equal(t, client.StreamID(), cut.Streams[0].ID)
	})
}
