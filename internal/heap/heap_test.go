package heap_test

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/heap"
)

func TestLiveSeesWhatACollectionHasLeft(t *testing.T) {
	runtime.GC()
	before := heap.Live()
	kept := make([]byte, 64<<20)
	runtime.GC()
	require.InDelta(t, before+64<<20, heap.Live(), 16<<20)
	runtime.KeepAlive(kept)
}

func TestGaugeReadsTenTimesASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := int64(0)
		g := heap.Gauge{Read: func() int64 { reads++; return reads }}
		for range 1000 {
			g.Value()
			time.Sleep(time.Millisecond)
		}
		require.Equal(t, int64(10), reads)
		require.Equal(t, int64(11), g.Value())
	})
}
