package lab

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/quiclife/quiclife/internal/rig"
)

// A Run is one run of a system.
type Run struct {
	Plain bool // on quic-go, not on quiclife
	For   time.Duration
	Start time.Time

	screen  *screen
	stop    func() // nil until Watch is called
	keep    bool   // samples, to draw them
	samples []Sample
}

// Library is what the system is built on.
func (r *Run) Library() string {
	if r.Plain {
		return "quic-go"
	}
	return "quiclife"
}

// Printf prints a line of its own, above the progress bar. It may be called
// from any goroutine.
func (r *Run) Printf(format string, args ...any) { r.screen.printf(format, args...) }

// A Sample is how the system is doing at a moment.
type Sample struct {
	Requests int64 // done so far
	Failed   int64 // of them
	// Streams, over all connections, each end counted:
	Open  int64 // as the program knows; negative: it does not
	Limit int64 // as the peers allow
	Held  int64 // as quic-go keeps them
	More  []Value

	// Filled in by Watch.
	At         time.Duration // since the start
	Heap       uint64        // bytes of live heap, as of the last garbage collection
	Goroutines int
}

// A Value is one more column of the table.
type Value struct{ Name, Value string }

const (
	lookEvery  = 200 * time.Millisecond
	printEvery = 5 // looks
)

// Watch has look called five times a second, in a goroutine of its own, until
// the run has ended, and prints a line a second.
func (r *Run) Watch(look func() Sample) {
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		ticker := time.NewTicker(lookEvery)
		defer ticker.Stop()
		for n := 0; ; n++ {
			s := r.sample(look)
			if n%printEvery == 0 && n > 0 {
				r.show(s)
			}
			select {
			case <-ticker.C:
			case <-done:
				return // what look would find now is what was closed
			}
		}
	})
	r.stop = func() {
		close(done)
		watching.Wait()
	}
}

func (r *Run) stopWatching() {
	if r.stop != nil {
		r.stop()
	}
	r.screen.end()
}

func (r *Run) sample(look func() Sample) Sample {
	s := look()
	s.At, s.Heap, s.Goroutines = time.Since(r.Start), rig.LiveHeap(), runtime.NumGoroutine()
	if r.keep {
		r.samples = append(r.samples, s)
	}
	return s
}

// show prints a line of the table.
func (r *Run) show(s Sample) {
	columns := []Value{
		{"s", fmt.Sprintf("%.1f", s.At.Seconds())},
		{"requests", fmt.Sprint(s.Requests)},
		{"failed", fmt.Sprint(s.Failed)},
		{"open", count(s.Open)},
		{"limit", fmt.Sprint(s.Limit)},
		{"held", fmt.Sprint(s.Held)},
		{"heap MiB", fmt.Sprintf("%.1f", float64(s.Heap)/(1<<20))},
		{"goroutines", fmt.Sprint(s.Goroutines)},
	}
	var h, l strings.Builder
	for _, c := range append(columns, s.More...) {
		width := max(len(c.Name), 6)
		fmt.Fprintf(&h, " %*s", width, c.Name)
		fmt.Fprintf(&l, " %*s", width, c.Value)
	}
	r.screen.line(h.String(), l.String(), float64(s.At)/float64(r.For))
}

func count(n int64) string {
	if n < 0 {
		return "?"
	}
	return fmt.Sprint(n)
}
