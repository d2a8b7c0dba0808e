package quiclife

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCrowdHasStreamsLookedAt: there is a sweep when the peer's streams have
// taken three quarters of the slots. Streams that this side opens do not count.
func TestCrowdHasStreamsLookedAt(t *testing.T) {
	for _, c := range []struct {
		name   string
		kind   kind
		limit  int64
		looked bool
	}{
		{"crowded", incomingUni, 1, true},
		{"not crowded", incomingUni, 2, false},
		{"crowded with ours", outgoingUni, 1, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			conn := restingConn(t)
			time.Sleep(time.Second)
			conn.kinds[c.kind].stats.Limit = c.limit
			conn.register(&streamState{conn: conn, kind: c.kind, opened: conn.now()})
			require.Equal(t, c.looked, conn.sweepAt == conn.now(), "%s: looked at", c.name)
		})
	}
}

// TestNewStreamIsAReasonToHope: an open has succeeded, so the wait starts
// again, the next collection may help, and the new stream may be left unread.
func TestNewStreamIsAReasonToHope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, k := range []kind{outgoing, outgoingUni} {
			c := restingConn(t)
			time.Sleep(time.Second)
			for range 5 {
				c.asking.Failed(c.now())
			}
			r := &c.kinds[k]
			r.vain, r.stuck = 2, true
			st := &streamState{conn: c, kind: k, opened: c.now()}
			if !k.uni() {
				st.raw = &calledHalf{}
			}
			c.register(st)
			require.Equal(t, c.now()+c.asking.First, c.asking.Next(), "the next collection")
			require.Equal(t, c.now(), r.waitSince)
			require.Zero(t, r.vain)
			require.False(t, r.stuck)
			require.Equal(t, !k.uni(), c.stallWatched.Load(), "looked for a stall")
		}
	})
}

// TestStreamThatEndedBeforeItWasHandledHoldsNoTurn: otherwise nobody would give
// back its slot of MaxStreams.
func TestStreamThatEndedBeforeItWasHandledHoldsNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, late := range []bool{false, true} {
			c := restingConn(t)
			g := c.guard
			g.MaxStreams = 1
			st := &streamState{conn: c, kind: incoming}
			c.register(st)
			require.NoError(t, c.awaitHandling(t.Context()))
			if late {
				c.unregister(st, aborted)
			}
			st.handledUntilEnd()
			if !late {
				require.EqualValues(t, 1, g.handling.Taken(), "turns that are taken while it is open")
				c.unregister(st, aborted)
			}
			require.Zero(t, g.handling.Taken(), "turns that are taken after its end")
		}
	})
}
