// Package pace says when work may be done again: work that costs processor
// time, and work that may turn out to be in vain.
package pace

import (
	"sync"
	"time"
)

// A Budget keeps work within a share of one processor. The zero value has
// spent nothing. It does not lock.
type Budget struct {
	done time.Time // when it was last worked
	cost time.Duration
}

// Spent notes that work ended now and cost so much processor time.
func (b *Budget) Spent(now time.Time, cost time.Duration) { b.done, b.cost = now, cost }

// Wait returns how long the next work has to wait so that both together stay
// within share, a fraction of one processor.
func (b *Budget) Wait(now time.Time, share float64) time.Duration {
	since := now.Sub(b.done)
	if b.done.IsZero() || since < 0 { // before the last: another clock, that of a synctest bubble
		return 0
	}
	return max(0, time.Duration(float64(b.cost)/share)-since)
}

// A Backoff spaces attempts: each that was in vain doubles the time to the
// next, from First to Most. Times are durations since some start. The zero
// value of its other fields allows an attempt at once. It does not lock.
type Backoff struct {
	First, Most time.Duration

	interval, last time.Duration
}

// Next is the earliest time of the next attempt.
func (b *Backoff) Next() time.Duration { return b.last + b.interval }

// Failed notes an attempt that was in vain.
func (b *Backoff) Failed(now time.Duration) {
	b.last, b.interval = now, min(max(2*b.interval, b.First), b.Most)
}

// Hope says that the next attempt may well succeed: it need not wait for
// longer than First.
func (b *Backoff) Hope() { b.interval = min(b.interval, b.First) }

// Reset notes an attempt that was worth it: the next need not wait.
func (b *Backoff) Reset(now time.Duration) { b.last, b.interval = now, 0 }

// Elapsed reports whether at least period has passed since *last, and then
// sets it to now. A time before the last is that of another clock, of a
// synctest bubble.
func Elapsed(last *time.Time, now time.Time, period time.Duration) bool {
	if since := now.Sub(*last); since >= 0 && since < period {
		return false
	}
	*last = now
	return true
}

// Tries limits how often something is tried that costs processor time and may
// not help: to once in First, doubled up to Most by each try that did not help,
// and to Share of a processor. Its methods may be called from any goroutine.
type Tries struct {
	First, Most time.Duration
	Share       float64

	mu       sync.Mutex // guards the fields below
	last     time.Time
	interval time.Duration // until the next, 0 means First
	budget   Budget
}

// Take reports whether it may be tried now.
func (t *Tries) Take(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	interval := max(t.interval, t.First)
	if t.budget.Wait(now, t.Share) > 0 || !Elapsed(&t.last, now, interval) {
		return false
	}
	t.interval = min(2*interval, t.Most)
	return true
}

// Spent notes what a try cost, and whether it helped.
func (t *Tries) Spent(now time.Time, cost time.Duration, helped bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.budget.Spent(now, cost)
	if helped {
		t.interval = 0
	}
}
