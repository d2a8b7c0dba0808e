package quiclife

import (
	"errors"
	"io"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
)

// scriptedReceiver is a receive half whose Reads return what the script says,
// each after some time. After the script they return the deadline's error.
type scriptedReceiver struct {
	receiver
	script    []scriptedRead
	deadlines []time.Duration // the deadlines that were set, relative to the time of the call
}

type scriptedRead struct {
	n     int
	err   error
	takes time.Duration
}

func (r *scriptedReceiver) StreamID() quic.StreamID { return 2 }

func (r *scriptedReceiver) SetReadDeadline(t time.Time) error {
	r.deadlines = append(r.deadlines, time.Until(t))
	return nil
}

func (r *scriptedReceiver) Read([]byte) (int, error) {
	if len(r.script) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	next := r.script[0]
	r.script = r.script[1:]
	time.Sleep(next.takes)
	return next.n, next.err
}

func drainedStream(c *Conn, script ...scriptedRead) (*streamState, *scriptedReceiver) {
	raw := &scriptedReceiver{script: script}
	st := &streamState{conn: c, kind: incoming, raw: raw, receiveHalf: HalfOpen, sendHalf: HalfFinished}
	st.finalSize.Store(sizeUnknown)
	st.draining.Store(true)
	c.kinds[incoming].streams.add(st)
	c.kinds[incoming].stats = StreamStats{Open: 1, Opened: 1}
	return st, raw
}

// TestDrainReadsWhatThereIs: until nothing has come for a millisecond, the half
// has ended, or it takes too long.
func TestDrainReadsWhatThereIs(t *testing.T) {
	for _, c := range []struct {
		name   string
		script []scriptedRead
		found  bool
		reads  int
		half   HalfState
	}{
		{"nothing", nil, false, 1, HalfOpen},
		{"a byte", []scriptedRead{{n: 1}}, true, 2, HalfOpen},
		{"a byte with the deadline", []scriptedRead{{n: 1, err: os.ErrDeadlineExceeded}}, true, 1, HalfOpen},
		{"a byte, then the deadline", []scriptedRead{{n: 1}, {err: os.ErrDeadlineExceeded}}, true, 2, HalfOpen},
		{"the end", []scriptedRead{{err: io.EOF}}, true, 1, HalfFinished},
		{"a reset", []scriptedRead{{err: errors.New("reset")}}, true, 1, HalfAborted},
		{"more and more", []scriptedRead{{n: 1, takes: 19 * time.Millisecond}, {n: 1, takes: 1 * time.Millisecond}, {n: 1}}, true, 2, HalfOpen},
	} {
		synctest.Test(t, func(t *testing.T) {
			conn := restingConn(t)
			conn.ended = true // so that an end of the stream wakes nobody
			st, raw := drainedStream(conn, c.script...)
			require.Equal(t, c.found, st.drain(make([]byte, 10)), "%s: found", c.name)
			require.Len(t, raw.deadlines, c.reads, "%s: Reads", c.name)
			for _, d := range raw.deadlines {
				require.Equal(t, time.Millisecond, d, "%s: a Read waits for", c.name)
			}
			require.Equal(t, c.half.String(), st.receiveHalf.String(), "%s: the receive half", c.name)
		})
	}
}

// TestDrainingBecomesRareWhileNothingComes: when something has come, it is done
// once a second again.
func TestDrainingBecomesRareWhileNothingComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := restingConn(t)
		time.Sleep(10 * time.Second)
		data := []scriptedRead{{n: 1}}
		for i, round := range []struct {
			scripts [2][]scriptedRead
			after   time.Duration
		}{
			{[2][]scriptedRead{}, time.Second},
			{[2][]scriptedRead{}, 2 * time.Second},
			{[2][]scriptedRead{}, 4 * time.Second},
			{[2][]scriptedRead{data, nil}, time.Second},
			{[2][]scriptedRead{}, time.Second},
			{[2][]scriptedRead{}, 2 * time.Second},
			{[2][]scriptedRead{nil, data}, time.Second},
		} {
			first, _ := drainedStream(c, round.scripts[0]...)
			second, _ := drainedStream(c, round.scripts[1]...)
			c.discarding, c.sweepAt = true, 0
			now := c.now()
			c.discard([]*streamState{first, second})
			require.Equal(t, now+round.after, c.drainAt, "drained again, after round %d", i)
			require.Equal(t, c.drainAt, c.sweepAt, "looked at again, after round %d", i)
			require.False(t, c.discarding, "round %d goes on", i)
			time.Sleep(time.Second)
		}
	})
}

// TestStreamIsDrainedAtOnceWhenItsDrainingStarts: however rarely others are
// drained.
func TestStreamIsDrainedAtOnceWhenItsDrainingStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := restingConn(t)
		st, _ := drainedStream(c)
		st.draining.Store(false)
		time.Sleep(10 * time.Second)
		c.drainPace.Failed(c.now())
		c.drainAt = time.Hour
		st.startDraining(7)
		require.Equal(t, &quic.StreamError{StreamID: 2, ErrorCode: 7}, st.drained())
		require.Zero(t, c.drainAt, "drained later")
		require.Equal(t, 10*time.Second, c.sweepAt, "looked at later")
		require.Equal(t, c.now(), c.drainPace.Next(), "the next time is as rare as before")
	})
}

// TestWhenASweepDrains: not too early, not during another drain, and not during
// a look, where other connections would wait for it.
func TestWhenASweepDrains(t *testing.T) {
	const now = 10 * time.Second
	for _, c := range []struct {
		name   string
		set    func(*Conn, *streamState, *sweep)
		drains bool
		next   time.Duration
	}{
		{"time has come", func(c *Conn, _ *streamState, _ *sweep) { c.drainAt = now }, true, 0},
		{"too early", func(c *Conn, _ *streamState, _ *sweep) { c.drainAt = now + 1 }, false, now + 1},
		{"under way", func(c *Conn, _ *streamState, _ *sweep) { c.discarding = true }, false, 0},
		{"right after a collection", func(_ *Conn, _ *streamState, s *sweep) { s.looked = true }, false, now},
		{"half has ended", func(_ *Conn, st *streamState, _ *sweep) { st.receiveHalf = HalfFinished }, false, 0},
		{"not drained", func(_ *Conn, st *streamState, _ *sweep) { st.draining.Store(false) }, false, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			conn := restingConn(t)
			conn.guard.HalfCloseTimeout = -1
			time.Sleep(now)
			st, _ := drainedStream(conn)
			s := &sweep{conn: conn, now: now}
			c.set(conn, st, s)
			under := conn.discarding
			s.plan(0)
			require.Equal(t, c.drains, len(s.drains) == 1, "%s: drained", c.name)
			require.Equal(t, c.drains || under, conn.discarding, "%s: under way", c.name)
			require.Equal(t, c.next, s.next, "%s: looked at again", c.name)
			require.Equal(t, c.next, conn.sweepAt, "%s: looked at again", c.name)
			require.Equal(t, now+minSpare, conn.spare, "%s: looking is a waste until then", c.name)
		})
	}
}

// TestWhichDroppedStreamsASweepStartsToDrain: incoming unidirectional ones,
// once the peer has ended them, in a stall, and while Shutdown waits.
func TestWhichDroppedStreamsASweepStartsToDrain(t *testing.T) {
	for _, c := range []struct {
		name   string
		set    func(*Conn, *streamState)
		drains bool
	}{
		{"no need", func(*Conn, *streamState) {}, false},
		{"ended by the peer", func(_ *Conn, st *streamState) { st.finalSize.Store(5) }, true},
		{"stalled", func(c *Conn, _ *streamState) { c.stalled = true }, true},
		{"Shutdown", func(c *Conn, _ *streamState) { c.drain() }, true},
		{"bidirectional", func(c *Conn, st *streamState) { c.stalled, st.kind = true, incoming; c.guard.AbandonGrace = time.Hour }, false},
		{"ReportOnly", func(c *Conn, _ *streamState) { c.stalled, c.guard.ReportOnly = true, true }, false},
		{"held by the program", func(c *Conn, st *streamState) { c.stalled = true; st.dropped.Store(false) }, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			conn := restingConn(t)
			conn.guard.Codes.Abandoned = 9
			time.Sleep(time.Second)
			st, _ := drainedStream(conn)
			st.draining.Store(false)
			st.kind = incomingUni
			st.dropped.Store(true)
			conn.drainAt = time.Hour
			c.set(conn, st)
			(&sweep{conn: conn, now: time.Second}).plan(0)
			require.Equal(t, c.drains, st.draining.Load(), "%s: drained", c.name)
			require.Equal(t, c.drains, conn.drainAt == 0, "%s: drained at once", c.name)
			if c.drains {
				require.Equal(t, &quic.StreamError{StreamID: 2, ErrorCode: 9}, st.drained(), c.name)
				drained := st.drained()
				conn.drainAt = time.Hour
				(&sweep{conn: conn, now: time.Second}).plan(0)
				require.Same(t, drained, st.drained(), "%s: started twice", c.name)
				require.Equal(t, time.Hour, conn.drainAt, "%s: started twice", c.name)
			}
		})
	}
}

// TestLookFindsWhatHasLostItsHandle: if something is found, the next collection
// need not wait. If a collection was asked for and nothing is found, the next
// waits longer.
func TestLookFindsWhatHasLostItsHandle(t *testing.T) {
	held := &handle{}
	for _, c := range []struct {
		name    string
		set     func(*Conn)
		dropped int64
		next    time.Duration // time until the next collection is allowed
	}{
		{"nothing", func(*Conn) {}, 0, -time.Second + 200*time.Millisecond},
		{"nothing, though it was asked for", func(c *Conn) { c.asked = true }, 0, 400 * time.Millisecond},
		{"one that is held", func(c *Conn) {
			c.asked = true
			c.kinds[incomingUni].streams.add(&streamState{conn: c, kind: incomingUni, old: weak.Make(held)})
		}, 0, 400 * time.Millisecond},
		{"one", func(c *Conn) { c.kinds[incomingUni].streams.add(&streamState{conn: c, kind: incomingUni}) }, 1, 0},
		{"one that is known", func(c *Conn) {
			st := &streamState{conn: c, kind: incomingUni}
			st.dropped.Store(true)
			c.kinds[incomingUni].streams.add(st)
			c.kinds[incomingUni].dropped = 1
			c.asked = true
		}, 1, 400 * time.Millisecond},
		{"two", func(c *Conn) {
			for range 2 {
				c.kinds[incomingUni].streams.add(&streamState{conn: c, kind: incomingUni})
			}
			c.asked = true
		}, 2, 0},
		{"one that owes its credit", func(c *Conn) {
			c.guard.ReportOnly = true
			c.owing.add(&streamState{conn: c, kind: incoming, raw: &calledHalf{}})
		}, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			conn := restingConn(t)
			conn.raw, _ = quictest.Net{}.Pair(t, nil, nil)
			conn.start = time.Now()
			for range 2 {
				conn.asking.Failed(conn.now())
			}
			time.Sleep(time.Second)
			c.set(conn)
			for st := conn.kinds[incomingUni].streams.first; st != nil; st = st.next {
				st.finalSize.Store(sizeUnknown)
			}
			conn.look()
			require.Equal(t, c.dropped, conn.kinds[incomingUni].dropped, "%s: dropped", c.name)
			require.Equal(t, c.next, conn.asking.Next()-conn.now(), "%s: the next collection", c.name)
			require.False(t, conn.asked, "%s: there is an answer", c.name)
		})
	}
	runtime.KeepAlive(held)
}

// TestWhatBecomesOfADroppedStream: during the grace, what was written may still
// arrive, and a closed send half may still be answered. All other streams are
// ended at once. Either way the slot will come back.
func TestWhatBecomesOfADroppedStream(t *testing.T) {
	const dropped, grace = 5 * time.Second, time.Second
	for _, c := range []struct {
		name            string
		set             func(*streamState)
		now             time.Duration
		ended, reported bool
		next            time.Duration
	}{
		{"nothing under way", func(*streamState) {}, dropped, true, false, 0},
		{"written to", func(st *streamState) { st.written.Store(1) }, dropped, false, true, dropped + grace},
		{"written to, and reported", func(st *streamState) { st.written.Store(1); st.reported = true }, dropped, false, false, dropped + grace},
		{"written to, a nanosecond before", func(st *streamState) { st.written.Store(1) }, dropped + grace - 1, false, true, dropped + grace},
		{"written to, in the end", func(st *streamState) { st.written.Store(1) }, dropped + grace, true, false, 0},
		{"closed", func(st *streamState) { st.sendHalf = HalfFinished }, dropped, false, false, dropped + grace},
		{"closed, and all is read", func(st *streamState) { st.sendHalf = HalfFinished; st.finalSize.Store(3); st.read.Store(3) }, dropped, false, false, dropped + grace},
		{"closed, and not all is read", func(st *streamState) { st.sendHalf = HalfFinished; st.finalSize.Store(3) }, dropped, true, false, 0},
		{"closed, in the end", func(st *streamState) { st.sendHalf = HalfFinished }, dropped + grace, true, false, 0},
		{"written to and closed, both have ended", func(st *streamState) {
			st.written.Store(1)
			st.sendHalf, st.receiveHalf = HalfFinished, HalfFinished
		}, dropped, true, false, 0},
	} {
		for _, reportOnly := range []bool{false, true} {
			conn := &Conn{guard: &Guard{ReportOnly: reportOnly}}
			s := &sweep{conn: conn, now: c.now}
			s.grace[incoming] = grace
			st := &streamState{conn: conn, kind: incoming, sendHalf: HalfOpen, receiveHalf: HalfOpen}
			st.finalSize.Store(sizeUnknown)
			st.dropped.Store(true)
			st.extraLocked().droppedAt = dropped
			c.set(st)
			s.droppedLocked(st, &conn.kinds[incoming])
			require.Equal(t, c.ended, len(s.ends) == 1, "%s: ended", c.name)
			require.Equal(t, c.reported, len(s.reports) == 1, "%s: reported", c.name)
			require.Equal(t, c.next, s.next, "%s: looked at again", c.name)
			require.Equal(t, !reportOnly, s.coming[incoming], "%s: a slot is coming back", c.name)
		}
	}
	conn := &Conn{guard: &Guard{NoStopSending: true}}
	st, _ := drainedStream(conn)
	st.extraLocked().droppedAt = dropped
	s := &sweep{conn: conn, now: time.Hour}
	s.droppedLocked(st, &conn.kinds[incoming])
	require.Empty(t, s.ends, "drained, and ended as far as it can be")
	require.False(t, s.coming[incoming], "its slot is not coming back")
	st.draining.Store(false)
	s.droppedLocked(st, &conn.kinds[incoming])
	require.Len(t, s.ends, 1, "not yet drained")
}
