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
