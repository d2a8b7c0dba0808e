package quiclife

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/pace"
	"github.com/quiclife/quiclife/internal/quictest"
)

// TestCrowdedIsThreeQuartersOfTheSlots: including streams whose credit was not
// returned. Without a limit it is never crowded.
func TestCrowdedIsThreeQuartersOfTheSlots(t *testing.T) {
	for _, c := range []struct {
		limit, open, owing int64
		crowded            bool
	}{
		{0, 5, 0, false},
		{1, 0, 0, false}, {1, 1, 0, true},
		{4, 2, 0, false}, {4, 3, 0, true}, {4, 2, 1, true}, {4, 0, 3, true},
		{8, 5, 0, false}, {8, 6, 0, true},
	} {
		r := &registry{stats: StreamStats{Limit: c.limit, Open: c.open}, owing: c.owing}
		require.Equal(t, c.crowded, r.crowded(), "crowded, of %+v", c)
	}
}

// TestOpenIsInWantWhileItWaitsAndASecondAfterItFailed: and not a nanosecond
// longer.
func TestOpenIsInWantWhileItWaitsAndASecondAfterItFailed(t *testing.T) {
	for _, c := range []struct {
		blocked       int
		failedAt, now time.Duration
		wanting       bool
	}{
		{0, 0, time.Second / 2, false},
		{1, 0, time.Hour, true},
		{0, 1, time.Second / 2, true},
		{0, time.Second, 2*time.Second - 1, true},
		{0, time.Second, 2 * time.Second, false},
		{0, time.Second, time.Hour, false},
	} {
		r := &registry{blocked: c.blocked, failedAt: c.failedAt}
		require.Equal(t, c.wanting, r.wanting(c.now), "in want, of %+v", c)
	}
}

// restingConn returns a connection without streams whose timer does nothing.
// Call it in a bubble.
func restingConn(t *testing.T) *Conn {
	c := &Conn{guard: &Guard{}, start: time.Now()}
	c.draining, c.drain = context.WithCancel(context.Background())
	c.asking = pace.Backoff{First: 100 * time.Millisecond, Most: time.Minute}
	c.stallAsking = pace.Backoff{First: stallInterval, Most: time.Minute}
	c.drainPace = pace.Backoff{First: drainInterval, Most: maxDrainInterval}
	c.timer = time.NewTimer(time.Hour)
	t.Cleanup(func() { c.timer.Stop() })
	return c
}

// TestFailedOpenIsAWantAtAnyTime: even in the connection's first nanosecond. It
// starts a new wait only if there was none.
func TestFailedOpenIsAWantAtAnyTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := restingConn(t)
		r := &c.kinds[outgoing]
		r.stuck, r.vain = true, 2
		c.openFailed(outgoing)
		require.True(t, r.wanting(time.Millisecond), "in want after a failure")
		require.True(t, r.relieved, "looked at")
		require.EqualValues(t, 1, c.sweepAt, "looked at now")
		require.False(t, r.stuck, "a new want was logged before")
		require.Zero(t, r.vain)

		c.sweepAt, r.vain = 0, 1
		time.Sleep(time.Second / 2)
		c.openFailed(outgoing)
		require.Equal(t, time.Second/2, r.failedAt)
		require.Zero(t, r.waitSince, "the want has lasted from the first failure on")
		require.Equal(t, 1, r.vain)
		require.Zero(t, c.sweepAt, "looked at again for the same want")
	})
}

// TestBlockedOpenIsLoggedASecondAfterTheWantBegan: once, and even if another
// open began the wait.
func TestBlockedOpenIsLoggedASecondAfterTheWantBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := restingConn(t)
		r := &c.kinds[outgoing]
		c.spare = time.Hour // so that the wait itself causes no sweep
		r.vain = 2
		time.Sleep(time.Minute)
		first := c.block(outgoing)
		require.Equal(t, 1, r.blocked)
		require.Zero(t, r.vain, "of a want that has just begun")
		require.Equal(t, time.Minute, r.waitSince)
		require.Equal(t, time.Minute+stuckAfter, c.sweepAt)
		time.Sleep(time.Second / 2)
		c.sweepAt = 0
		second := c.block(outgoing)
		require.Equal(t, 2, r.blocked)
		require.Equal(t, time.Minute, r.waitSince)
		require.Equal(t, time.Minute+stuckAfter, c.sweepAt)
		first()
		second()
		require.Zero(t, r.blocked)
		require.EqualValues(t, time.Second/2, c.guard.totals.openWait.Load())
		r.blocked, r.stuck, c.sweepAt = 1, true, 0
		c.block(outgoing)
		require.Zero(t, c.sweepAt, "looked at, though the want was logged")
	})
}

// TestWantHasStreamsLookedAtOnce: as soon as a sweep does not cost too much.
func TestWantHasStreamsLookedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, w := range []struct {
			name         string
			dropped      int64
			spare, again time.Duration // when a sweep, and a collection, is allowed again
			at           time.Duration
		}{
			{"at once", 0, 0, 0, 10 * time.Second},
			{"just looked at", 0, 11 * time.Second, 0, 11 * time.Second},
			{"just collected", 0, 0, 12 * time.Second, 12 * time.Second},
			{"just collected, and a dropped stream is known", 1, 11 * time.Second, 12 * time.Second, 11 * time.Second},
		} {
			c := restingConn(t)
			c.spare = w.spare
			c.asking.Reset(w.again)
			r := &c.kinds[incoming]
			r.dropped = w.dropped
			c.relieveLocked(r, 10*time.Second)
			require.Equal(t, w.at, c.sweepAt, w.name)
			c.sweepAt = 0
			c.relieveLocked(r, 10*time.Second)
			require.Zero(t, c.sweepAt, "%s: looked at twice", w.name)
			r.beginWait(10 * time.Second)
			c.relieveLocked(r, 10*time.Second)
			require.Equal(t, w.at, c.sweepAt, "%s: the next want", w.name)

			c.sweepAt = 0
			c.relieve()
			require.Equal(t, max(w.spare, 1), c.sweepAt, "%s: a limit of the group", w.name)
		}
	})
}

// TestWhatIsShort: for which kinds slots are short, what grace that leaves, and
// when an open that waits is logged.
func TestWhatIsShort(t *testing.T) {
	const now, cut = 10 * time.Second, 5 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			name   string
			set    func(*Conn)
			looked bool
			short  [numKinds]bool
			next   time.Duration
			stuck  []kind
		}{
			{name: "nothing", set: func(*Conn) {}},
			{name: "an open has failed", set: func(c *Conn) { c.kinds[outgoing].failedAt = now }, short: [numKinds]bool{outgoing: true}},
			{name: "a limit of the group", set: func(c *Conn) { c.guard.refused = time.Now() }, short: [numKinds]bool{true, true, true, true}},
			{name: "crowded", set: func(c *Conn) {
				for k := range c.kinds {
					c.kinds[k].stats = StreamStats{Limit: 4, Open: 3}
				}
			}, short: [numKinds]bool{incoming: true, incomingUni: true}},
			{name: "waits for less than a second", set: func(c *Conn) { c.kinds[outgoingUni].blocked, c.kinds[outgoingUni].waitSince = 1, now-stuckAfter+1 },
				short: [numKinds]bool{outgoingUni: true}, next: now + 1},
			{name: "waits for a second", set: func(c *Conn) { c.kinds[outgoingUni].blocked, c.kinds[outgoingUni].waitSince = 1, now-stuckAfter },
				short: [numKinds]bool{outgoingUni: true}, stuck: []kind{outgoingUni}},
			{name: "waits for a second, right after a collection", set: func(c *Conn) { c.kinds[outgoingUni].blocked, c.kinds[outgoingUni].waitSince = 1, now-stuckAfter },
				looked: true, short: [numKinds]bool{outgoingUni: true}, next: now},
			{name: "was logged", set: func(c *Conn) { c.kinds[outgoingUni].blocked, c.kinds[outgoingUni].stuck = 1, true }, short: [numKinds]bool{outgoingUni: true}},
		} {
			conn := restingConn(t)
			c.set(conn)
			s := &sweep{conn: conn, now: now, looked: c.looked}
			s.shortagesLocked(cut)
			require.Equal(t, c.short, s.short, "%s: short", c.name)
			for k, short := range c.short {
				want := time.Second
				if short {
					want = cut
				}
				require.Equal(t, want, s.grace[k], "%s: the grace of kind %d", c.name, k)
			}
			require.Equal(t, c.next, s.next, "%s: looked at again", c.name)
			require.Equal(t, c.stuck, s.stuck, "%s: to be logged", c.name)
			for _, k := range c.stuck {
				require.True(t, conn.kinds[k].stuck, "%s: would be logged again", c.name)
			}
		}
		s := &sweep{conn: restingConn(t), short: [numKinds]bool{true}}
		s.conn.kinds[0].blocked = 1
		s.shortagesLocked(time.Minute)
		require.Equal(t, time.Second, s.grace[0], "a shortage makes no grace longer")
	})
}

// TestWhenAShortageAsksForACollection: and when it asks for the next sweep.
func TestWhenAShortageAsksForACollection(t *testing.T) {
	const now = 10 * time.Second
	const k = incoming
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			name         string
			set          func(*Conn, *sweep)
			next, spared time.Duration // time of the next sweep if it is allowed at once, and if it is not allowed for an hour
			ask          bool
		}{
			{name: "nothing is short", set: func(_ *Conn, s *sweep) { s.short[k], s.idle[k] = false, true }},
			{name: "Shutdown waits", set: func(c *Conn, s *sweep) { s.short[k], s.idle[k], c.drained = false, true, make(chan struct{}) }, next: now + busyInterval, spared: time.Hour, ask: true}, // for the other kinds
			{name: "was asked for", set: func(c *Conn, s *sweep) { s.idle[k], c.asked = true, true }},
			{name: "slots are coming back", set: func(c *Conn, s *sweep) { s.idle[k], s.coming[k] = true, true }, next: now + 100*time.Millisecond, spared: time.Hour},
			{name: "all are in use, and an open waits", set: func(c *Conn, s *sweep) { c.kinds[k].blocked = 1 }, next: now + shortFor, spared: time.Hour},
			{name: "all are in use", set: func(c *Conn, s *sweep) {}, next: now + busyInterval, spared: time.Hour},
			{name: "one may be dropped", set: func(c *Conn, s *sweep) { s.idle[k] = true }, ask: true},
			{name: "one may be dropped, and an open waits", set: func(c *Conn, s *sweep) { s.idle[k], c.kinds[k].blocked = true, 1 }, ask: true},
			{name: "one may be dropped, too early", set: func(c *Conn, s *sweep) { s.idle[k] = true; c.asking.Reset(now + 1) }, next: now + 1, spared: now + 1},
			{name: "one may be dropped, just in time", set: func(c *Conn, s *sweep) { s.idle[k] = true; c.asking.Reset(now) }, ask: true},
			{name: "one owes its credit", set: func(c *Conn, s *sweep) { c.owing.add(&streamState{kind: k}) }, ask: true},
			{name: "one owes its credit, and is known as dropped", set: func(c *Conn, s *sweep) {
				st := &streamState{kind: k}
				st.dropped.Store(true)
				c.owing.add(st)
			}, next: now + busyInterval, spared: time.Hour},
		} {
			for _, spare := range []time.Duration{0, time.Hour} {
				conn := restingConn(t)
				conn.spare = spare
				s := &sweep{conn: conn, now: now, short: [numKinds]bool{k: true}}
				c.set(conn, s)
				asked := conn.asked
				s.askLocked()
				next := c.next
				if spare > 0 {
					next = c.spared
				}
				require.Equal(t, next, s.next, "%s: looked at again", c.name)
				want := 0.0
				if c.ask {
					want = forSlots
				}
				require.Equal(t, want, s.ask, "%s: the share to ask for a collection with", c.name)
				require.Equal(t, asked || c.ask, conn.asked, "%s: to come", c.name)
			}
		}
	})
}

// TestCollectionsInVainAreCounted: while opens wait or fail and no slot comes
// back. The second asks for another sweep, because control streams may then be
// ended.
func TestCollectionsInVainAreCounted(t *testing.T) {
	const now = 10 * time.Second
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			looked, coming  bool
			blocked, before int
			after           int
			again           bool
		}{
			{true, false, 1, 0, 1, false},
			{true, false, 1, 1, 2, true},
			{true, false, 1, 2, 3, false},
			{false, false, 1, 1, 1, false},
			{true, true, 1, 1, 1, false},
			{true, false, 0, 1, 1, false},
		} {
			conn := restingConn(t)
			conn.asked = true // so that nothing else asks for a sweep
			r := &conn.kinds[outgoingUni]
			r.blocked, r.vain = c.blocked, c.before
			s := &sweep{conn: conn, now: now, looked: c.looked, coming: [numKinds]bool{outgoingUni: c.coming}}
			s.askLocked()
			require.Equal(t, c.after, r.vain, "%+v", c)
			require.Equal(t, c.again, s.next == now, "looked at again now: %+v", c)
		}
	})
}

// numberedReceiver is a receive half of which only the stream ID matters.
type numberedReceiver struct {
	receiver
	id quic.StreamID
}

func (n numberedReceiver) StreamID() quic.StreamID { return n.id }

type numberedSender struct {
	sender
	id      quic.StreamID
	context context.Context
}

func (n numberedSender) StreamID() quic.StreamID  { return n.id }
func (n numberedSender) Context() context.Context { return n.context }

// TestWhenDroppedUniStreamsAreInTheWay: control streams are the last, and those
// with a STOP_SENDING of the peer are at once.
func TestWhenDroppedUniStreamsAreInTheWay(t *testing.T) {
	const now = 10 * time.Second
	stopped, stop := context.WithCancelCause(t.Context())
	stop(&quic.StreamError{Remote: true})
	const control, other = 2 << 2, 3 << 2 // the last stream ID of a control stream, and the first of another
	wait := func(since time.Duration, vain int) registry {
		return registry{blocked: 1, waitSince: since, vain: vain, dropped: 3, stats: StreamStats{Open: 3}}
	}
	for _, c := range []struct {
		name  string
		st    *streamState
		short bool
		r     registry
		way   bool
		idle  bool // another collection is asked for
		next  time.Duration
	}{
		{name: "stopped by the peer", st: &streamState{kind: outgoingUni, raw: numberedSender{id: control, context: stopped}}, way: true},
		{name: "not stopped", st: &streamState{kind: outgoingUni, raw: numberedSender{id: other, context: t.Context()}}},
		{name: "nothing is short", st: &streamState{kind: incomingUni, raw: numberedReceiver{id: other}}},
		{name: "no control stream", st: &streamState{kind: incomingUni, raw: numberedReceiver{id: other}}, short: true, way: true},
		{name: "control stream, no open in want", st: &streamState{kind: incomingUni, raw: numberedReceiver{id: control}}, short: true, r: registry{dropped: 3, stats: StreamStats{Open: 3}, vain: 2}},
		{name: "control stream, others are held", st: &streamState{kind: incomingUni, raw: numberedReceiver{id: control}}, short: true, r: registry{blocked: 1, dropped: 2, stats: StreamStats{Open: 3}, vain: 2}},
		{name: "control stream, for a short time", st: &streamState{kind: incomingUni, raw: numberedReceiver{id: control}}, short: true, r: wait(now-controlWait+1, 2), next: now + 1},
		{name: "control stream, after one collection", st: &streamState{kind: incomingUni, raw: numberedReceiver{id: control}}, short: true, r: wait(now-controlWait, 1), idle: true},
		{name: "control stream, after two", st: &streamState{kind: incomingUni, raw: numberedReceiver{id: control}}, short: true, r: wait(now-controlWait, 2), way: true},
		{name: "control stream, after three", st: &streamState{kind: incomingUni, raw: numberedReceiver{id: control}}, short: true, r: wait(0, 3), way: true},
	} {
		s := &sweep{now: now}
		s.short[c.st.kind] = c.short
		require.Equal(t, c.way, s.inTheWayLocked(c.st, &c.r), c.name)
		require.Equal(t, c.idle, s.idle[c.st.kind], "%s: another collection", c.name)
		require.Equal(t, c.next, s.next, "%s: looked at again", c.name)
	}
}

// TestGraceInAShortageIsWhatALostPacketTakes: the time to send it again and for
// it to arrive.
func TestGraceInAShortageIsWhatALostPacketTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := restingConn(t)
		require.Zero(t, c.graceInShortage(), "nothing is dropped")
		c.raw, _ = quictest.Net{}.Pair(t, nil, nil)
		c.kinds[incomingUni].dropped = 1
		stats := c.raw.ConnectionStats()
		require.Positive(t, stats.MinRTT)
		require.Equal(t, c.pto()+stats.MinRTT, c.graceInShortage())
	})
}
