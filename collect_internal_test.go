package quiclife

import (
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// endedConn returns a connection without streams that a collector can look at.
func endedConn() *Conn { return &Conn{guard: &Guard{}, ended: true} }

// TestCollectionsKeepWithinTheirShare: a collection that is asked for during or
// after another waits until the budget allows it. The largest share asked for
// counts.
func TestCollectionsKeepWithinTheirShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		k := &collector{conns: map[*Conn]struct{}{endedConn(): {}}}
		k.collect = func() time.Duration {
			at = append(at, time.Since(start))
			time.Sleep(time.Second)
			return 100 * time.Millisecond
		}
		k.ask(forSlots)
		synctest.Wait()
		k.ask(forSlots)
		k.ask(forStalls)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []time.Duration{0, 3 * time.Second}, at)
	})
}

// TestEachCollectionIsLookedAtOnce: although both a sentinel and run call look.
func TestEachCollectionIsLookedAtOnce(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	c := endedConn()
	k := &collector{conns: map[*Conn]struct{}{c: {}}}
	for { // until no other collection has come in between
		runtime.GC()
		c.asked = true
		k.look()
		require.False(t, c.asked, "not looked at after a collection")
		c.asked = true
		k.look()
		if collections() == k.looked {
			break
		}
	}
	require.True(t, c.asked, "taken for an answer to what was asked since")
}

// TestOneSentinelWatchesForTheNextCollection: however many connections there
// are.
func TestOneSentinelWatchesForTheNextCollection(t *testing.T) {
	k := &collector{}
	for range 2 {
		c := endedConn()
		k.add(c)
		require.True(t, k.watching, "another connection would have another sentinel")
		k.remove(c)
	}
}
