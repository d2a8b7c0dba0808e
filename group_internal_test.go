package quiclife

import (
	"testing"
	"testing/synctest"

	"github.com/quiclife/quiclife/internal/heap"
)

// TestHeapAtItsLimit: MaxHeap is the last heap that is allowed.
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
