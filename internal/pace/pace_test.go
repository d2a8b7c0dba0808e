package pace_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/pace"
)

func TestBudgetKeepsWorkWithinItsShare(t *testing.T) {
	var b pace.Budget
	now := time.Now()
	require.Zero(t, b.Wait(now, 0.05), "nothing spent yet")
	b.Spent(now, 10*time.Millisecond)
	require.Equal(t, 200*time.Millisecond, b.Wait(now, 0.05))
	require.Equal(t, 2*time.Second, b.Wait(now, 0.005))
	require.Equal(t, 50*time.Millisecond, b.Wait(now.Add(150*time.Millisecond), 0.05))
	require.Zero(t, b.Wait(now.Add(time.Minute), 0.05))
	require.Zero(t, b.Wait(now.Add(-time.Hour), 0.05), "another clock")
}

func TestBackoffDoublesUntilThereIsHope(t *testing.T) {
	b := pace.Backoff{First: 100 * time.Millisecond, Most: time.Second}
	require.Zero(t, b.Next())
	at := time.Minute
	for _, want := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		b.Failed(at)
		require.Equal(t, at+want*time.Millisecond, b.Next())
	}
	b.Hope()
	require.Equal(t, at+100*time.Millisecond, b.Next())
	b.Failed(at)
	require.Equal(t, at+200*time.Millisecond, b.Next())
	b.Reset(at)
	require.Equal(t, at, b.Next())
	b.Hope()
	require.Equal(t, at, b.Next(), "hope delays nothing")
}

func TestTriesThatDoNotHelpGetRare(t *testing.T) {
	tries := pace.Tries{First: time.Second, Most: 4 * time.Second, Share: 0.05}
	start := time.Now()
	var at []time.Duration
	run := func(from, to time.Duration, helped bool) {
		for d := from; d < to; d += 100 * time.Millisecond {
			if tries.Take(start.Add(d)) {
				at = append(at, d)
				tries.Spent(start.Add(d), time.Millisecond, helped)
			}
		}
	}
	run(0, 12*time.Second, false)
	require.Equal(t, []time.Duration{0, 2 * time.Second, 6 * time.Second, 10 * time.Second}, at, "in vain")
	at = nil
	run(12*time.Second, 17*time.Second, true)
	require.Equal(t, []time.Duration{14 * time.Second, 15 * time.Second, 16 * time.Second}, at, "of use")
}

func TestTriesKeepWithinTheirShare(t *testing.T) {
	tries := pace.Tries{First: time.Second, Most: 4 * time.Second, Share: 0.05}
	now := time.Now()
	require.True(t, tries.Take(now))
	tries.Spent(now, time.Second, true)
	require.False(t, tries.Take(now.Add(19*time.Second)), "before it has paid for itself")
	require.True(t, tries.Take(now.Add(20*time.Second)))
}

func TestElapsedIsOncePerPeriod(t *testing.T) {
	now := time.Now()
	var last time.Time
	require.True(t, pace.Elapsed(&last, now, time.Second), "the first time")
	require.False(t, pace.Elapsed(&last, now, time.Second), "at the same time")
	require.False(t, pace.Elapsed(&last, now.Add(time.Second-1), time.Second), "before the period has passed")
	require.True(t, pace.Elapsed(&last, now.Add(time.Second), time.Second), "when it has")
	require.Equal(t, now.Add(time.Second), last)
	require.True(t, pace.Elapsed(&last, now, time.Second), "another clock")
}
