// Package pace limits how often we do work that costs CPU time or may be in
// vain.
package pace

import (
	"sync"
	"time"
)

// A Budget keeps work within a share of one CPU. The zero value has spent
// nothing. It is not safe for concurrent use.
type Budget struct {
	done time.Time // when work last ended
	cost time.Duration
}

// Spent notes that work has ended at now and took cost of CPU time.
func (b *Budget) Spent(now time.Time, cost time.Duration) { b.done, b.cost = now, cost }

// Wait returns how long to wait before the next work, so that the last work and
// the wait together stay within share, a fraction of one CPU.
func (b *Budget) Wait(now time.Time, share float64) time.Duration {
	since := now.Sub(b.done)
	if b.done.IsZero() || since < 0 { // a time before the last comes from another clock: that of a synctest bubble
		return 0
	}
	return max(0, time.Duration(float64(b.cost)/share)-since)
}

// A Backoff spaces attempts. Each attempt in vain doubles the time to the next,
// from First up to Most. Times are durations since some start. Set First and
// Most; the first attempt is then allowed at once. It is not safe for
// concurrent use.
type Backoff struct {
	First, Most time.Duration

	interval, last time.Duration
}

// Next returns the earliest time for the next attempt.
func (b *Backoff) Next() time.Duration { return b.last + b.interval }

// Failed notes an attempt that was in vain.
func (b *Backoff) Failed(now time.Duration) {
	b.last, b.interval = now, min(max(2*b.interval, b.First), b.Most)
}

// Hope notes that the next attempt may well succeed. It then waits for at most
// First.
func (b *Backoff) Hope() { b.interval = min(b.interval, b.First) }

// Reset notes a successful attempt. The next need not wait.
func (b *Backoff) Reset(now time.Duration) { b.last, b.interval = now, 0 }

// Elapsed reports whether at least period has passed since *last. If so, it
// sets *last to now. It also does so if now is before *last, which then comes
// from another clock: that of a synctest bubble.
func Elapsed(last *time.Time, now time.Time, period time.Duration) bool {
	if since := now.Sub(*last); since >= 0 && since < period {
		return false
	}
	*last = now
	return true
}

// Tries limits how often we try something that costs CPU time and may not help.
// There are two limits. The first is one try per interval. The interval is
// First; each try that did not help doubles it, up to Most. The second is
// Share, a fraction of one CPU. The methods may be called from any goroutine.
type Tries struct {
	First, Most time.Duration
	Share       float64

	mu       sync.Mutex // guards the fields below
	last     time.Time
	interval time.Duration // between two tries; 0 means First
	budget   Budget
}

// Take reports whether a try is allowed now, and counts it.
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
