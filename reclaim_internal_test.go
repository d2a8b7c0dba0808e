package quiclife

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestCollector: how often a collection is asked for.
func TestCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cs collectorState
		want := func(ok bool) {
			t.Helper()
			if cs.take() != ok {
				t.Errorf("take is %v", !ok)
			}
		}
		want(true)
		want(false)
		time.Sleep(time.Second)
		want(false)
		time.Sleep(time.Second)
		want(true) // after 2
		time.Sleep(4*time.Second - 1)
		want(false)
		time.Sleep(1)
		want(true)
		time.Sleep(8 * time.Second)
		want(true)
		time.Sleep(10 * time.Second)
		want(true)
		time.Sleep(10 * time.Second)
		want(true)
		cs.foundSome()
		time.Sleep(time.Second)
		want(true)
		cs.last = time.Now().Add(time.Hour) // another clock
		want(true)
	})
}
