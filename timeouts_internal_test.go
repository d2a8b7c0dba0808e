package quiclife

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestEndedConnSetsNoTimer: a timer would keep the connection alive until it
// fires.
func TestEndedConnSetsNoTimer(t *testing.T) {
	c := endedConn()
	c.mayStall()
	c.watchSoon(time.Second)
	require.Nil(t, c.timer)
}

// TestTimeoutsAreLookedAtFourTimes: so that they are at most a quarter late.
func TestTimeoutsAreLookedAtFourTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := restingConn(t)
		c.guard.IdleTimeout = time.Hour
		st := &streamState{conn: c, kind: outgoingUni}
		st.written.Store(7)
		s := &sweep{conn: c, now: time.Second}
		s.timeoutsLocked(st)
		require.Equal(t, watch{due: time.Second + time.Hour, mark: 7}, st.extra.idle)
		require.Equal(t, time.Second+15*time.Minute, s.next)
	})
}

// TestSweepSeesWhichStreamsAreInNobodysUse: such streams may have been dropped.
func TestSweepSeesWhichStreamsAreInNobodysUse(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*streamState)
		idle bool
	}{
		{"held", func(st *streamState) {}, true},
		{"a Read waits", func(st *streamState) { st.readers.Store(1) }, false},
		{"a Write waits", func(st *streamState) { st.writing = blocking }, false},
		{"both wait", func(st *streamState) { st.readers.Store(1); st.writing = blocking }, false},
		{"known as dropped", func(st *streamState) { st.dropped.Store(true) }, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			conn := restingConn(t)
			st, _ := drainedStream(conn)
			st.draining.Store(false)
			c.set(st)
			s := &sweep{conn: conn, now: conn.now()}
			s.plan(0)
			require.Equal(t, [numKinds]bool{incoming: c.idle}, s.idle, c.name)
		})
	}
}

// TestWakeIsAtTheEarliestTime: of those that were asked for.
func TestWakeIsAtTheEarliestTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := restingConn(t)
		c.wakeLocked(0)
		require.EqualValues(t, 1, c.sweepAt, "0 is never")
		for _, w := range []struct{ before, at, want time.Duration }{
			{0, time.Hour, time.Hour},
			{time.Hour, 2 * time.Hour, time.Hour},
			{2 * time.Hour, time.Hour, time.Hour},
			{1, time.Hour, 1},
		} {
			c.sweepAt = w.before
			c.wakeLocked(w.at)
			require.Equal(t, w.want, c.sweepAt, "asked for %v, then %v", w.before, w.at)
		}
		var s sweep
		for _, at := range []time.Duration{3, 2, 4} {
			s.at(at)
		}
		require.EqualValues(t, 2, s.next)

		c = restingConn(t)
		c.timer = nil
		wake := func(at time.Duration) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.wakeLocked(at)
		}
		due := func() time.Duration {
			synctest.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.sweepAt
		}
		time.Sleep(5 * time.Second)
		wake(10 * time.Second) // makes the timer
		wake(7 * time.Second)  // sets it
		time.Sleep(2*time.Second - 1)
		require.Equal(t, 7*time.Second, due(), "the timer has fired too early")
		time.Sleep(time.Nanosecond)
		require.Zero(t, due(), "the timer has not fired")
		wake(8 * time.Second)
		time.Sleep(time.Second)
		require.Zero(t, due(), "the timer has not fired again")
	})
}
