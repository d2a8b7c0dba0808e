package lab

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quiclife/quiclife/internal/rig"
)

// A Run is one run of a system.
type Run struct {
	Plain  bool // on quic-go, not on quiclife
	Import bool // on quiclife, with nothing but the import line changed
	For    time.Duration
	Start  time.Time
	// Shown says in plain words what the run has shown. System.Run sets it. It is
	// printed if a check fails on quic-go, or if all checks succeed on quiclife.
	Shown string

	system   System
	screen   *screen
	stop     func() // nil until Watch is called
	findings []finding
	keep     bool // keep the samples, to draw them
	samples  []Sample

	mu     sync.Mutex // guards the field below
	events []event
}

// An event is something that happened to the system.
type event struct {
	at   time.Duration
	name string
}

// Library names the library that the system is built on.
func (r *Run) Library() string {
	switch {
	case r.Plain:
		return "quic-go"
	case r.Import:
		return "quiclife, import alone"
	case r.system.With != "":
		return "quiclife with " + r.system.With
	}
	return "quiclife"
}

// Printf prints one or more lines above the progress bar. It may be called from
// any goroutine.
func (r *Run) Printf(format string, args ...any) {
	lines := strings.Split(fmt.Sprintf(format, args...), "\n")
	for i, line := range lines {
		lines[i] = wrapLine(line, 0, 4)
	}
	r.screen.printf("%s", strings.Join(lines, "\n"))
}

// Event notes in the table and in the picture that something has happened.
// System.Events must explain the name. Event may be called from any goroutine.
func (r *Run) Event(name, details string, args ...any) {
	mustExplain(r.system.Events, name)
	at := time.Since(r.Start)
	r.mu.Lock()
	r.events = append(r.events, event{at, name})
	r.mu.Unlock()
	r.Printf("%5.1f -- %s", at.Seconds(), wrap(strings.TrimSuffix(name+": "+fmt.Sprintf(details, args...), ": "), 9))
}

// mustExplain panics if no term explains name. Every word on the screen must be
// explained.
func mustExplain(terms []Term, name string) {
	if !slices.ContainsFunc(terms, func(t Term) bool { return t.Name == name }) {
		panic(fmt.Sprintf("lab: %q is not explained", name))
	}
}

// A Sample describes the system at one moment.
type Sample struct {
	Requests int64 // done so far
	Failed   int64 // how many of the requests failed
	// Streams of all connections, counted at both ends:
	Open  int64 // that the program counts as open; negative if it does not count
	Limit int64 // that the peers allow
	Held  int64 // that quic-go keeps
	More  []Value

	// Filled in by Watch.
	At         time.Duration // since the start
	Heap       uint64        // bytes of live heap at the last garbage collection
	Goroutines int
}

// A Value is the value of an extra column in the table. System.Columns explains
// the column.
type Value struct{ Name, Value string }

const (
	lookEvery  = 200 * time.Millisecond
	printEvery = 5 // looks
)

// Watch starts a goroutine that calls look five times a second, and prints a line
// once a second, until the run has ended.
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
				return // without a last look: the system may be closed by now
			}
		}
	})
	r.stop = func() {
		close(done)
		watching.Wait()
	}
}

// StopWatching stops the goroutine that Watch started, and waits for it. At the
// end of a run this happens without a call.
func (r *Run) StopWatching() {
	if r.stop != nil {
		r.stop()
		r.stop = nil
	}
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
		{"requests", fmt.Sprint(s.Requests)},
		{"failed", fmt.Sprint(s.Failed)},
		{"open", count(s.Open)},
		{"limit", fmt.Sprint(s.Limit)},
		{"held", fmt.Sprint(s.Held)},
		{"heap MiB", fmt.Sprintf("%.1f", float64(s.Heap)/(1<<20))},
		{"goroutines", fmt.Sprint(s.Goroutines)},
	}
	var h, l strings.Builder
	fmt.Fprintf(&h, "%5s", "s")
	fmt.Fprintf(&l, "%5.1f", s.At.Seconds())
	for _, c := range append(columns, s.More...) {
		width := max(len(c.Name), 6)
		fmt.Fprintf(&h, " %*s", width, c.Name)
		fmt.Fprintf(&l, " %*s", width, c.Value)
	}
	for _, c := range s.More {
		mustExplain(r.system.Columns, c.Name)
	}
	news := fmt.Sprint(s.Requests, s.Failed, s.Open, s.Limit, s.Held)
	r.screen.line(h.String(), l.String(), news, float64(s.At)/float64(r.For))
}

func count(n int64) string {
	if n < 0 {
		return "?"
	}
	return fmt.Sprint(n)
}
