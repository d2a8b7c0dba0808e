package quiclife_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// We look for dropped streams after each garbage collection. In real time that
// needs no call to us. If dropped streams block others, and only then, we ask
// for a collection.

// TestDroppedStreamsAreFoundWithoutACallToUs: of all three types, on both ends.
// Those that block somebody are ended.
func TestDroppedStreamsAreFoundWithoutACallToUs(t *testing.T) {
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
		runtime.GC() // several times: a sentinel made during a collection sees only the next
		return dropped(e.client) == n && dropped(e.server) == n &&
			e.client.Stats().Outgoing.Open+e.server.Stats().Incoming.Open == 0 &&
			len(found.list()) >= n // the peer's reset may have ended a stream before it was reported
	}, "dropped streams were not found, or not ended")
	for _, leak := range found.list() {
		require.Equal(t, quiclife.LeakDropped, leak.Reason)
		require.Contains(t, leak.Stream.Stack, "collect_test.go:")
	}
	e.client.CloseWithError(0, "")
}

// TestConnectionsAreLookedAtAfterEachCollection: not only after the first. This
// also holds for connections made after all others of the process have ended.
func TestConnectionsAreLookedAtAfterEachCollection(t *testing.T) {
	var found leaks
	guard := &quiclife.Guard{OnLeak: found.add}
	n := 0
	for range 2 {
		e := setup{guard: guard}.onLoopback(t)
		for range 3 {
			drop(t, e.client, func(*quiclife.Stream) {})
			n++
			eventually(t, func() bool { runtime.GC(); return len(found.list()) == n }, "stream %d was not found", n)
		}
		e.client.CloseWithError(0, "")
		e.server.CloseWithError(0, "")
		for range 10 { // the sentinel dies, and is not replaced
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
	}
}

// TestCollectionsAreAskedForInRealTime: an open at the limit gets the slot of a
// dropped stream, whichever end has dropped it.
func TestCollectionsAreAskedForInRealTime(t *testing.T) {
	conf := &quic.Config{MaxIncomingStreams: 20}
	for _, c := range []struct {
		name string
		leak func(t *testing.T, e ends)
	}{
		{"by the opener", func(t *testing.T, e ends) {
			go handleEach(e.server, readAllAndRelease)
			for range 20 {
				drop(t, e.client, func(s *quiclife.Stream) { s.Write([]byte("x")) })
			}
		}},
		{"by the accepter", func(t *testing.T, e ends) {
			for range 20 {
				client, _ := e.stream(t)
				client.Release()
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := setup{clientConf: conf, serverConf: conf, guard: quiclife.OwnCollector(&quiclife.Guard{AbandonGrace: time.Millisecond})}.onLoopback(t)
			c.leak(t, e)
			openWithin(t, e.client, 20*time.Second, false).Release()
			e.client.CloseWithError(0, "")
		})
	}
}

// TestYoungStreamIsFoundByOneCollectionThatIsAskedFor: however young it is.
func TestYoungStreamIsFoundByOneCollectionThatIsAskedFor(t *testing.T) {
	setup{guard: &quiclife.Guard{MaxOutgoingStreams: 1, AbandonGrace: -1}}.in(t, func(t *testing.T, e ends) {
		drop(t, e.client, func(*quiclife.Stream) {})
		s, err := e.client.OpenStreamSync(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, quiclife.CollectionsAsked(e.client), "collections asked for")
		s.Release()
	})
}

// takeSlots makes the server accept n streams, and holds them. The client is
// plain quic-go. It has ended its halves, and asks for no collections.
func takeSlots(t *testing.T, e ends, n int) {
	t.Helper()
	var held []*quiclife.Stream
	for range n {
		s, err := e.rawClient.OpenStream()
		require.NoError(t, err)
		write(t, s, "x")
		s.Close()
		s.CancelRead(1)
		accepted, err := e.server.AcceptStream(t.Context())
		require.NoError(t, err)
		held = append(held, accepted)
	}
	time.Sleep(2500 * time.Millisecond)
	for _, s := range held {
		require.Equal(t, quiclife.HalfOpen.String(), s.Info().Receive.String(), "the receive half of a stream that is held")
	}
}

// TestSlotsThatTheAccepterDropsComeBack: it accepts streams until no slot is
// left, and drops them later.
func TestSlotsThatTheAccepterDropsComeBack(t *testing.T) {
	for _, limit := range []int{1, 2, 4} {
		conf := &quic.Config{MaxIncomingStreams: int64(limit), MaxIdleTimeout: time.Hour}
		setup{serverConf: conf, clientConf: conf, guard: &quiclife.Guard{AbandonGrace: time.Millisecond}}.in(t, func(t *testing.T, e ends) {
			takeSlots(t, e, limit)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			s, err := e.rawClient.OpenStreamSync(ctx)
			require.NoError(t, err, "at a limit of %d", limit)
			s.CancelWrite(1)
		})
	}
}

// TestNoCollectionBelowThreeQuartersOfTheSlots: the accepter has dropped
// streams, but no slot is short.
func TestNoCollectionBelowThreeQuartersOfTheSlots(t *testing.T) {
	for taken, limit := range map[int]int64{2: 3, 5: 8} {
		conf := &quic.Config{MaxIncomingStreams: limit, MaxIdleTimeout: time.Hour}
		setup{serverConf: conf, clientConf: conf}.in(t, func(t *testing.T, e ends) {
			takeSlots(t, e, taken)
			time.Sleep(10 * time.Second)
			require.Zero(t, quiclife.CollectionsAsked(e.server), "collections asked for, with %d of %d slots taken", taken, limit)
		})
	}
}

// TestNoCollectionOnceNobodyWantsAStream: an open at a limit has failed, and
// the program does not try again.
func TestNoCollectionOnceNobodyWantsAStream(t *testing.T) {
	for _, c := range []struct {
		name  string
		conf  *quic.Config
		guard *quiclife.Guard
	}{
		{"the peer's limit", &quic.Config{MaxIncomingStreams: 1, MaxIdleTimeout: time.Hour}, &quiclife.Guard{}},
		{"own limit", longConf, &quiclife.Guard{MaxOutgoingStreams: 1}},
	} {
		for how, open := range map[string]func(*quiclife.Conn) error{
			"OpenStream": func(c *quiclife.Conn) error { _, err := c.OpenStream(); return err },
			"OpenStreamSync": func(c *quiclife.Conn) error {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
				defer cancel()
				_, err := c.OpenStreamSync(ctx)
				return err
			},
		} {
			t.Run(c.name+", "+how, func(t *testing.T) {
				setup{clientConf: longConf, serverConf: c.conf, guard: c.guard}.in(t, func(t *testing.T, e ends) {
					s, err := e.client.OpenStream()
					require.NoError(t, err)
					keep(t, s)
					var limit *quiclife.LimitError
					require.ErrorAs(t, open(e.client), &limit)
					time.Sleep(1500 * time.Millisecond)
					before := quiclife.CollectionsAsked(e.client)
					require.Positive(t, before, "collections asked for at first")
					time.Sleep(10 * time.Minute)
					require.Equal(t, before, quiclife.CollectionsAsked(e.client), "collections asked for")
				})
			})
		}
	}
}

// TestNoCollectionWhileAllStreamsAreInUse: it could free no slot.
func TestNoCollectionWhileAllStreamsAreInUse(t *testing.T) {
	setup{serverConf: &quic.Config{MaxIncomingStreams: 1}}.in(t, func(t *testing.T, e ends) {
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		go s.Read(make([]byte, 1))
		settled()
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		_, err = e.client.OpenStreamSync(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Zero(t, quiclife.CollectionsAsked(e.client), "collections asked for")
		e.client.CloseWithError(0, "")
	})
}

// TestOpenThatWaitsAsksForFewCollections: if they find nothing, they become
// rare.
func TestOpenThatWaitsAsksForFewCollections(t *testing.T) {
	conf := &quic.Config{MaxIncomingStreams: 1, MaxIdleTimeout: time.Hour}
	guard := &quiclife.Guard{}
	setup{serverConf: conf, clientConf: conf, guard: guard}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		keep(t, client)
		keep(t, server)
		go e.client.OpenStreamSync(context.Background())
		time.Sleep(time.Minute)
		require.EqualValues(t, quiclife.CollectionsAsked(e.client)+quiclife.CollectionsAsked(e.server), guard.Stats().Collections)
		for _, c := range []*quiclife.Conn{e.client, e.server} {
			n := quiclife.CollectionsAsked(c)
			require.Positive(t, n)
			require.LessOrEqual(t, n, 12, "after 0.1, 0.2, 0.4 ... s")
		}
		e.client.CloseWithError(0, "")
	})
}
