package quiclife

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// stallingStream returns a stream of c that nobody reads, except that c may
// drain it.
func stallingStream(c *Conn, draining bool) *streamState {
	st := &streamState{conn: c, kind: incoming, receiveHalf: HalfOpen}
	if draining {
		st.draining.Store(true)
	}
	c.kinds[incoming].streams.add(st)
	return st
}

// TestTrafficSeesWhoIsBlocked: and whether there is a receive half that nobody
// reads.
func TestTrafficSeesWhoIsBlocked(t *testing.T) {
	type traffic struct{ blocked, unread, drained bool }
	for _, c := range []struct {
		name string
		set  func(*Conn, *streamState)
		want traffic
	}{
		{"nobody reads", func(*Conn, *streamState) {}, traffic{unread: true}},
		{"drained", func(_ *Conn, st *streamState) { st.draining.Store(true) }, traffic{drained: true}},
		{"a Read waits", func(_ *Conn, st *streamState) { st.readers.Store(1) }, traffic{blocked: true}},
		{"an Accept waits", func(c *Conn, st *streamState) { c.accepting.Store(1) }, traffic{blocked: true, unread: true}},
		{"a Write waits", func(_ *Conn, st *streamState) { st.writing = blocking }, traffic{blocked: true, unread: true}},
		{"a write is queued", func(_ *Conn, st *streamState) { st.writing = queueing }, traffic{unread: true}},
		{"the receive half has ended", func(_ *Conn, st *streamState) { st.receiveHalf = HalfFinished }, traffic{}},
		{"a Read waits on one, and another is not read", func(c *Conn, st *streamState) {
			st.readers.Store(1)
			stallingStream(c, false)
		}, traffic{blocked: true, unread: true}},
		{"not read, then drained", func(c *Conn, st *streamState) { stallingStream(c, true) }, traffic{unread: true, drained: true}},
		{"drained, then not read", func(c *Conn, st *streamState) {
			st.draining.Store(true)
			stallingStream(c, false)
		}, traffic{unread: true, drained: true}},
	} {
		conn := &Conn{}
		c.set(conn, stallingStream(conn, false))
		var got traffic
		_, got.blocked, got.unread, got.drained = conn.trafficLocked()
		require.Equal(t, c.want, got, c.name)
	}
}

// TestTrafficCountsAllThatMoves: bytes, and streams that are opened or end.
func TestTrafficCountsAllThatMoves(t *testing.T) {
	c := &Conn{}
	r := &c.kinds[incoming]
	st := stallingStream(c, false)
	moved, _, _, _ := c.trafficLocked()
	for name, move := range map[string]func(){
		"a stream came": func() { r.stats.Opened++; r.stats.Open++ },
		"a stream went": func() { r.stats.Open-- },
		"read":          func() { st.read.Add(3) },
		"written":       func() { st.written.Add(3) },
	} {
		move()
		now, _, _, _ := c.trafficLocked()
		require.Greater(t, now, moved, name)
		moved = now
	}
}

// TestLookForStall: what the look finds, and when the next one is.
func TestLookForStall(t *testing.T) {
	const now = 10 * time.Second
	type outcome struct {
		stalled, watched bool
		stallAt, next    time.Duration
		ask              float64
		drains           bool
	}
	for _, c := range []struct {
		name string
		set  func(*Conn)
		want outcome
	}{
		{"nobody has asked", func(c *Conn) { c.stallAt = 0 }, outcome{watched: true}},
		{"too early", func(c *Conn) { c.stallAt = now + 1 }, outcome{watched: true, stallAt: now + 1, next: now + 1}},
		{"nobody is blocked", func(c *Conn) { c.accepting.Store(0); c.stalled = true }, outcome{}},
		{"all is read", func(c *Conn) { c.kinds[incoming].streams.first.receiveHalf = HalfFinished }, outcome{}},
		{"something has moved", func(c *Conn) { c.moved, c.stalled = 7, true }, outcome{watched: true, stallAt: now + stallInterval, next: now + stallInterval}},
		{"stalled", func(c *Conn) {}, outcome{stalled: true, stallAt: now + stallInterval, next: now + stallInterval, ask: forStalls, drains: true}},
		{"stalled, all is drained", func(c *Conn) { c.kinds[incoming].streams.first.draining.Store(true) },
			outcome{stalled: true, stallAt: now + stallInterval, next: now + stallInterval, drains: true}},
		{"stalled, too early to ask again", func(c *Conn) { c.stallAsking.Reset(now + 1) }, outcome{stalled: true, stallAt: now + 1, next: now + 1}},
		{"stalled, just in time to ask again", func(c *Conn) { c.stallAsking.Reset(now) },
			outcome{stalled: true, stallAt: now + stallInterval, next: now + stallInterval, ask: forStalls, drains: true}},
		{"stalled, and looking is a waste for an hour", func(c *Conn) { c.spare = time.Hour },
			outcome{stalled: true, stallAt: time.Hour, next: time.Hour, ask: forStalls, drains: true}},
	} {
		synctest.Test(t, func(t *testing.T) {
			conn := restingConn(t)
			stallingStream(conn, false)
			conn.accepting.Store(1)
			conn.stallAt, conn.drainAt = now, time.Hour
			conn.stallWatched.Store(true)
			c.set(conn)
			s := &sweep{conn: conn, now: now}
			conn.lookForStallLocked(s)
			got := outcome{conn.stalled, conn.stallWatched.Load(), conn.stallAt, s.next, s.ask, conn.drainAt == 0}
			require.Equal(t, c.want, got, c.name)
			if got.stalled && got.drains {
				require.Equal(t, now+stallInterval, conn.stallAsking.Next(), "%s: asks again, ever more rarely", c.name)
			}
			if c.name == "something has moved" {
				require.Zero(t, conn.moved)
				require.Equal(t, now, conn.stallAsking.Next(), "%s: asks again", c.name)
			}
		})
	}
}

// TestCallThatMayBlockHasAStallLookedForOnce: within a second.
func TestCallThatMayBlockHasAStallLookedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for before, at := range map[time.Duration]time.Duration{0: 11 * time.Second, 10500 * time.Millisecond: 10500 * time.Millisecond, 12 * time.Second: 11 * time.Second} {
			c := restingConn(t)
			c.start = c.start.Add(-10 * time.Second)
			c.stallAt = before
			c.mayStall()
			require.Equal(t, at, c.stallAt, "a look was due at %v", before)
			require.Equal(t, 11*time.Second, c.sweepAt)
			require.True(t, c.stallWatched.Load())
			c.stallAt, c.sweepAt = 0, 0
			c.mayStall()
			c.mayStallLocked()
			require.Zero(t, c.stallAt+c.sweepAt, "looked for twice")
		}
	})
}

// TestCallsSayThatTheyMayBlock: Read, and AcceptStream while it waits.
func TestCallsSayThatTheyMayBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := restingConn(t)
		_, err := accept(t.Context(), c, incoming, func(context.Context) (*calledHalf, error) {
			require.EqualValues(t, 1, c.accepting.Load(), "calls of Accept")
			require.True(t, c.stallWatched.Load(), "a stall is looked for")
			return nil, context.Canceled
		})
		require.Equal(t, context.Canceled, err)
		require.Zero(t, c.accepting.Load(), "calls of Accept")

		c = restingConn(t)
		st := stallingStream(c, false)
		require.NoError(t, st.willRead())
		require.True(t, c.stallWatched.Load(), "a stall is looked for")
		require.EqualValues(t, 1, st.readers.Load(), "calls of Read")
		require.EqualValues(t, 1, st.reads.Load(), "calls of Read in all")
		c.stallWatched.Store(false)
		require.NoError(t, st.didRead(0, 1, nil))
		require.True(t, c.stallWatched.Load(), "a stall is looked for after a Read")
		require.Zero(t, st.readers.Load(), "calls of Read")
		c.stallWatched.Store(false)
		require.NoError(t, st.willRead())
		c.stallWatched.Store(false)
		require.NoError(t, st.didPeek(0, 1, nil))
		require.True(t, c.stallWatched.Load(), "a stall is looked for after a Peek")
		require.Zero(t, st.readers.Load(), "calls of Peek")
	})
}
