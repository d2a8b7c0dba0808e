package slots_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/slots"
)

func given(turn chan struct{}) bool {
	select {
	case <-turn:
		return true
	default:
		return false
	}
}

func TestSlotsGoToWhoeverHasWaitedLongest(t *testing.T) {
	q := slots.Queue{Limit: 2}
	require.Nil(t, q.Take())
	require.True(t, q.TryTake(), "the second of two")
	require.False(t, q.TryTake(), "a third of two")
	first, second := q.Take(), q.Take()
	require.Equal(t, 2, q.Waiting())

	q.Release()
	require.True(t, given(first), "the first that waits")
	require.False(t, given(second), "the second that waits")
	q.Release()
	require.True(t, given(second), "the second that waits")
	require.Zero(t, q.Waiting())

	q.Release()
	q.Release()
	require.True(t, q.TryTake(), "all are back")
	require.True(t, q.TryTake(), "all are back")
	require.False(t, q.TryTake(), "one more than all")
}

func TestNobodyOvertakesThoseWhoWait(t *testing.T) {
	q := slots.Queue{Limit: 1}
	require.True(t, q.TryTake())
	first, second := q.Take(), q.Take()
	q.Leave(first)
	require.False(t, q.TryTake(), "while another waits")
	q.Release()
	require.False(t, given(first), "who has left")
	require.True(t, given(second), "the next in line")
}

func TestSlotOfWhoLeavesTooLateIsPassedOn(t *testing.T) {
	q := slots.Queue{Limit: 1}
	require.True(t, q.TryTake())
	first, second := q.Take(), q.Take()
	q.Release()
	q.Leave(first) // it was just given the slot
	require.True(t, given(second), "the next in line")
	q.Leave(second)
	require.True(t, q.TryTake(), "nobody waits any more")
}

func TestWithoutLimitNobodyWaits(t *testing.T) {
	var q slots.Queue
	for range 1000 {
		require.True(t, q.TryTake())
	}
	require.Nil(t, q.Take())
}
