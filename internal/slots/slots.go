// Package slots has slots that are given out in the order in which they were
// asked for.
package slots

import "slices"

// A Queue is some slots, and those who wait for one. The zero value has no
// limit. It does not lock.
type Queue struct {
	Limit int64 // 0 is none

	taken   int64
	waiting []chan struct{} // first come, first served
}

// TryTake takes a slot, if there is one. While somebody waits there is none:
// Release gives it away at once.
func (q *Queue) TryTake() bool {
	if q.Limit > 0 && q.taken >= q.Limit {
		return false
	}
	q.taken++
	return true
}

// Take takes a slot. If it returns a channel, the slot is the caller's only
// once that is closed, and whoever does not wait for it any more calls Leave.
func (q *Queue) Take() chan struct{} {
	if q.TryTake() {
		return nil
	}
	turn := make(chan struct{})
	q.waiting = append(q.waiting, turn)
	return turn
}

// Leave gives up what Take returned, also if it was closed since.
func (q *Queue) Leave(turn chan struct{}) {
	if i := slices.Index(q.waiting, turn); i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	} else {
		q.Release()
	}
}

// Release gives a slot to whoever has waited longest, or back.
func (q *Queue) Release() {
	if len(q.waiting) == 0 {
		q.taken--
		return
	}
	close(q.waiting[0])
	q.waiting = slices.Delete(q.waiting, 0, 1)
}

// Waiting is how many wait for a slot.
func (q *Queue) Waiting() int { return len(q.waiting) }
