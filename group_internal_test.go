package quiclife

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/heap"
	"github.com/quiclife/quiclife/internal/pace"
)

// TestHeapAtItsLimit: a heap of exactly MaxHeap is allowed.
func TestHeapAtItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := liveHeap
		defer func() { liveHeap = before }()
		liveHeap = &heap.Gauge{Read: func() int64 { return 1000 }}
		for limit, want := range map[int64]int64{999: 1000, 1000: 0, 1001: 0, 0: 0, -1: 0} {
			if got := (&Guard{MaxHeap: limit}).heapAbove(); got != want {
				t.Errorf("at a limit of %d: %d above it, expected %d", limit, got, want)
			}
		}
	})
}

// TestStreamsAreShortAfterALimitThatTheyCountAgainst: for a second. MaxConns
// does not count streams.
func TestStreamsAreShortAfterALimitThatTheyCountAgainst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for scope, short := range map[LimitScope]bool{LimitStreams: true, LimitHeap: true, LimitConns: false} {
			g := &Guard{Logger: slog.New(slog.DiscardHandler)}
			require.False(t, g.short(), "before any limit was reached")
			g.refuse(&LimitError{Scope: scope})
			require.Equal(t, short, g.short(), "short at the limit of %v", scope)
			time.Sleep(shortFor - 1)
			require.Equal(t, short, g.short(), "short at the limit of %v, in the same second", scope)
			time.Sleep(time.Nanosecond)
			require.False(t, g.short(), "short at the limit of %v, a second later", scope)
			synctest.Wait()
		}
	})
}

// TestConnectionsAreLookedAtOncePerSecondAtALimit: however many streams are
// refused meanwhile.
func TestConnectionsAreLookedAtOncePerSecondAtALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Guard{Logger: slog.New(slog.DiscardHandler)}
		c := restingConn(t)
		g.add(c)
		for i, looked := range []bool{true, false, true} {
			c.sweepAt = 0
			g.refuse(&LimitError{Scope: LimitHeap})
			synctest.Wait()
			require.Equal(t, looked, c.sweepAt > 0, "looked at, after refusal %d", i)
			time.Sleep(shortFor / 2)
		}
	})
}

// TestGarbageIsCollectedForMaxHeapNowAndThen: only above MaxHeap, and less
// often if it does not help.
func TestGarbageIsCollectedForMaxHeapNowAndThen(t *testing.T) {
	before, tries := liveHeap, heapTries
	defer func() { liveHeap, heapTries = before, tries }()
	liveHeap = &heap.Gauge{Read: func() int64 { return 2 }}
	for _, limit := range []int64{0, 2} {
		heapTries = &pace.Tries{First: time.Hour, Most: time.Hour, Share: 1}
		(&Guard{MaxHeap: limit}).heapAbove()
		require.True(t, heapTries.Take(time.Now()), "something was tried, at a limit of %d", limit)
	}
	heapTries = &pace.Tries{First: time.Hour, Most: time.Hour, Share: 1e-12}
	now := time.Now()
	(&Guard{MaxHeap: 1}).heapAbove()
	require.Eventually(t, func() bool {
		now = now.Add(2 * time.Hour)
		return !heapTries.Take(now) // a collection cost so much that the next is allowed in years
	}, 20*time.Second, time.Millisecond, "nothing was collected")
}
