package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quiclife/quiclife/systems/internal/lab"
)

// A verdict holds what was measured in a run.
type verdict struct {
	*world
	fresh, used int64 // bytes of heap per connection, both ends: before the first call, and at rest
	live        int64 // bytes of heap at the end of the load
	waiting     int64 // calls that had not returned at rest
	held, open  int64 // streams that were held, and counted as open, at rest
	lost        int   // connections that ended by themselves
	goroutines  int   // goroutines left in the end
	stopErr     error
}

const (
	// promptly is how long the median refusal may take. A client that gets no
	// answer to its handshake needs far longer to notice, at least a second.
	promptly = 500 * time.Millisecond
	// growth is how many bytes a connection may have gained during its calls.
	growth = 32 << 10
)

// say calls r.Check for everything that was measured.
func (v *verdict) say(r *lab.Run) {
	c, t := &v.counts, &v.tries
	for _, limit := range []struct {
		name, until string
		*try
		room time.Duration
	}{
		{"MaxConns", "others have left", &t.full, t.afterLeave},
		{"MaxHeap", "the cache is dropped", &t.heap, t.afterDrop},
	} {
		seen := limit.String()
		if limit.err != nil {
			seen += fmt.Sprintf(", and another failed: %v", limit.err)
		}
		r.Check(limit.let == 0 && limit.refused > 0 && limit.err == nil && limit.took.median() < promptly,
			"above "+limit.name+" all are refused at once", "%s", seen)
		seen = "it is, after " + limit.room.Round(time.Millisecond).String()
		if limit.room < 0 {
			seen = "none is"
		}
		r.Check(limit.room >= 0, "one is let in once "+limit.until, "%s", seen)
	}
	idle, other := v.net.leaks()
	r.Check(c.silent.Load() > 0 && c.idled.Load() == c.silent.Load() && idle == c.idled.Load() && other == 0,
		"silent requests are ended, and reported", "%d of %d ended, %d reported; %d other leaks", c.idled.Load(), c.silent.Load(), idle, other)
	r.Check(c.broken.Load() > 0 && c.told.Load() == c.broken.Load(),
		"callers of broken methods are told so", "%d of %d were", c.told.Load(), c.broken.Load())
	r.Check(c.echoed.Load() > 0 && c.failed.Load() == 0,
		"Echo is answered, whatever goes on", "%d answered, %d not; median %v beside those, %v elsewhere",
		c.echoed.Load(), c.failed.Load(), c.beside.median().Round(unit), c.elsewhere.median().Round(unit))
	r.Check(v.live <= v.maxHeap(), "the heap ends below MaxHeap", "%s at the end of the load, of %s", mib(v.live), mib(v.maxHeap()))
	r.Check(v.used <= v.fresh+growth, "a connection does not grow", "%s fresh, %s after the calls, both ends together; %s more are allowed", kib(v.fresh), kib(v.used), kib(growth))
	r.Check(v.waiting == 0 && v.held == 0 && v.open == 0, "at rest quic-go holds no stream", "%d streams held, %d counted open; %d calls wait", v.held, v.open, v.waiting)
	wrong := fmt.Sprintf("%d connections lost", v.lost)
	if t.err != nil {
		wrong += ", " + t.err.Error()
	}
	r.Check(v.lost == 0 && t.err == nil, "nothing else goes wrong", "%s", wrong)
	var stopErr error
	if v.stopErr != nil {
		stopErr = errors.New(firstLine(v.stopErr))
	}
	r.Check(v.stopErr == nil && v.goroutines <= 0, "it can be closed, and nothing goes on", "%s", lab.Left(stopErr, v.goroutines))
	r.Shown = "Too many are refused, silent requests are ended, and connections stay as small as they were."
	if r.Plain {
		r.Shown = fmt.Sprintf("All are let in, and %d streams of calls that are over, or never will be, take memory.", v.held)
	}
}

// firstLine returns the first line of an error. The error may have a line for
// each connection.
func firstLine(err error) string {
	line, _, _ := strings.Cut(fmt.Sprint(err), "\n")
	return line
}

func kib(n int64) string { return fmt.Sprintf("%d KiB", n>>10) }
func mib(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
