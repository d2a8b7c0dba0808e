package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quiclife/quiclife/systems/internal/lab"
)

// A verdict is what the run has come to.
type verdict struct {
	*world
	fresh, used int64 // bytes of heap per connection, both ends: before the first call, and at rest
	live        int64 // bytes of heap at the end of the load
	waiting     int64 // calls that had not come back in time for the rest
	held, open  int64 // streams then
	lost        int   // connections that ended by themselves
	goroutines  int   // that are left in the end
	stopErr     error
}

const (
	// promptly is how long half of the refusals may take. It is well below the
	// second or more after which a handshake that nobody answers is noticed.
	promptly = 500 * time.Millisecond
	// growth is what a connection may have gained by its calls.
	growth = 32 << 10
)

func (v *verdict) print(r *lab.Run) {
	idle, other := v.net.leaks()
	r.Printf("heap of a connection, both ends: %s fresh, %s after the calls; the whole heap at the end of the load: %s, limit %s",
		kib(v.fresh), kib(v.used), mib(v.live), mib(v.maxHeap()))
	r.Printf("above MaxConns: %v; once three have left, one is let in after %v", &v.tries.full, v.tries.afterLeave.Round(time.Millisecond))
	r.Printf("above MaxHeap: %v; once the cache is dropped, one is let in after %v", &v.tries.heap, v.tries.afterDrop.Round(time.Millisecond))
	r.Printf("silent calls: %d, ended by IdleTimeout %d (%d reported as leaks, %d others)", v.counts.silent.Load(), v.counts.idled.Load(), idle, other)
	r.Printf("Panic, Fail, Hang: %d called, %d told what happened", v.counts.broken.Load(), v.counts.told.Load())
	r.Printf("Echo: %d answered, %d failed; beside those: %v; elsewhere: %v", v.counts.echoed.Load(), v.counts.failed.Load(), &v.counts.beside, &v.counts.elsewhere)
	r.Printf("at rest: %d streams held by quic-go, %d counted open", v.held, v.open)
}

// err says what is wrong.
func (v *verdict) err() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	c, t := &v.counts, &v.tries
	check(t.full.let == 0 && t.full.refused > 0, "above MaxConns %d connections were let in, %d refused", t.full.let, t.full.refused)
	check(t.heap.let == 0 && t.heap.refused > 0, "above MaxHeap %d connections were let in, %d refused", t.heap.let, t.heap.refused)
	for _, t := range []*try{&t.full, &t.heap} {
		check(t.err == nil, "a connection was not refused, but failed: %w", t.err)
		check(t.took.median() < promptly, "half of the refusals took longer than %v", t.took.median())
	}
	check(t.afterLeave >= 0, "no connection was let in after others had left")
	check(t.afterDrop >= 0, "no connection was let in after the cache was dropped")
	check(t.err == nil, "%w", t.err)
	check(v.live <= v.maxHeap(), "the heap at the end of the load was %s, above the limit of %s", mib(v.live), mib(v.maxHeap()))
	check(v.used <= v.fresh+growth, "the heap of a connection, both ends, grew from %s to %s", kib(v.fresh), kib(v.used))

	idle, other := v.net.leaks()
	check(c.silent.Load() > 0 && c.idled.Load() == c.silent.Load(), "of %d silent calls the server ended %d", c.silent.Load(), c.idled.Load())
	check(idle == c.idled.Load() && other == 0, "%d idle streams and %d others were reported, not %d and 0", idle, other, c.idled.Load())
	check(c.broken.Load() > 0 && c.told.Load() == c.broken.Load(), "of %d calls that panic, fail or hang, %d came back with the wrong error or none", c.broken.Load(), c.broken.Load()-c.told.Load())
	check(c.echoed.Load() > 0 && c.failed.Load() == 0, "of %d calls of Echo %d failed", c.echoed.Load()+c.failed.Load(), c.failed.Load())
	check(v.lost == 0, "%d connections were lost", v.lost)

	check(v.waiting == 0, "%v after the load %d calls had not come back", v.rest, v.waiting)
	check(v.held == 0 && v.open == 0, "%d streams are held by quic-go, %d counted open", v.held, v.open)
	check(v.stopErr == nil, "stopping: %s", firstLine(v.stopErr))
	check(v.goroutines <= 0, "%d goroutines are left", v.goroutines)
	return errors.Join(errs...)
}

// firstLine is of an error that may have one for each connection.
func firstLine(err error) string {
	line, _, _ := strings.Cut(fmt.Sprint(err), "\n")
	return line
}

func kib(n int64) string { return fmt.Sprintf("%d KiB", n>>10) }
func mib(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
