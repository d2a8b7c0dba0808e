// Package slots hands out slots, in the order of the requests or fairly among
// parties.
package slots

import "slices"

// A Queue hands out slots in the order of the requests. The zero value has no
// limit. It is not safe for concurrent use.
type Queue struct {
	Limit int64 // 0 means no limit

	taken   int64
	waiting []chan struct{} // first come, first served
}

// TryTake takes a slot if one is free. While somebody waits, none is free:
// Release passes each slot on at once.
func (q *Queue) TryTake() bool {
	if q.Limit > 0 && q.taken >= q.Limit {
		return false
	}
	q.taken++
	return true
}

// Take takes a slot. If it returns nil, the caller has the slot. If it returns
// a channel, the caller has the slot once the channel is closed. A caller that
// stops waiting must call Leave.
func (q *Queue) Take() chan struct{} {
	if q.TryTake() {
		return nil
	}
	turn := make(chan struct{})
	q.waiting = append(q.waiting, turn)
	return turn
}

// Leave gives up waiting on a channel from Take. If the channel was already
// closed, it releases the slot.
func (q *Queue) Leave(turn chan struct{}) {
	if i := slices.Index(q.waiting, turn); i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	} else {
		q.Release()
	}
}

// Release gives back a slot. It goes to the caller that has waited longest, if
// there is one.
func (q *Queue) Release() {
	if len(q.waiting) == 0 {
		q.taken--
		return
	}
	close(q.waiting[0])
	q.waiting = slices.Delete(q.waiting, 0, 1)
}

// Waiting returns how many callers wait for a slot.
func (q *Queue) Waiting() int { return len(q.waiting) }
