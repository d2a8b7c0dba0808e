package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife/systems/internal/lab"
)

const (
	fewestTries = 20
	tryEvery    = 20 * time.Millisecond
	tryPatience = 5 * time.Second
)

// tries are connections tried above MaxConns, above MaxHeap, and below both
// again.
type tries struct {
	full, heap            try
	afterLeave, afterDrop time.Duration // until one was let in; negative: none was
	err                   error         // what kept a step from being made
}

// A try is a number of them.
type try struct {
	refused, let int
	err          error     // the first that is neither
	took         latencies // until refused
}

func (t *try) String() string {
	if t.refused == 0 {
		return fmt.Sprintf("0 refused, %d let in", t.let)
	}
	return fmt.Sprintf("%d refused (%v), %d let in", t.refused, &t.took, t.let)
}

// isRefused says whether err is the server's CONNECTION_REFUSED.
func isRefused(err error) bool {
	remote, ok := errors.AsType[*quic.TransportError](err)
	return ok && remote.Remote && remote.ErrorCode == quic.ConnectionRefused
}

// dial tries to connect. A refusal is CONNECTION_REFUSED.
func (w *world) dial(t *try) (conn, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), tryPatience)
	defer cancel()
	start := time.Now()
	c, err := w.net.dial(ctx, t.refused%sockets)
	if err == nil {
		t.let++
		return c, true
	}
	if isRefused(err) {
		t.refused++
		t.took.add(time.Since(start))
		w.counts.refused.Add(1)
	} else if t.err == nil {
		t.err = err
	}
	return nil, false
}

// tryLimits makes the tries: above MaxConns until so late, then the others.
func (w *world) tryLimits(r *lab.Run, until time.Time) {
	// All are there. Those that get in all the same stay, but for the sake of
	// the machine no more than a fifth.
	for n := 0; (n < fewestTries || time.Now().Before(until)) && w.tries.full.let < w.size.conns/5; n++ {
		if c, ok := w.dial(&w.tries.full); ok {
			w.callers = append(w.callers, &caller{conn: c, counts: &w.counts})
		}
		time.Sleep(tryEvery)
	}

	const left, stays = 97, 96 // callers that only call Echo
	for range 3 {
		w.tries.err = errors.Join(w.tries.err, w.callers[left].end())
		w.callers = append(w.callers[:left], w.callers[left+1:]...)
	}
	w.tries.afterLeave = w.awaitRoom()

	// There is room for three, and one that fills the heap.
	w.ask(stays, "Load")
	r.Event(cacheFull, "")
	poll(time.Second, func() bool { // the limit may be seen a little later
		var early try
		if c, ok := w.dial(&early); ok {
			w.leave(c)
		}
		return early.refused > 0
	})
	for range fewestTries {
		if c, ok := w.dial(&w.tries.heap); ok {
			w.leave(c)
		}
	}
	w.ask(stays, "Drop")
	r.Event(cacheDropped, "")
	w.tries.afterDrop = w.awaitRoom()
}

// awaitRoom tries until a connection is let in, which then leaves, and returns
// how long that took.
func (w *world) awaitRoom() time.Duration {
	start := time.Now()
	in := poll(3*tryPatience, func() bool { // a collection may be 10 s away
		c, ok := w.dial(&try{})
		if ok {
			w.leave(c)
		}
		return ok
	})
	if !in {
		return -1
	}
	return time.Since(start)
}

func (w *world) leave(c conn) { w.tries.err = errors.Join(w.tries.err, c.leave()) }

func (w *world) ask(caller int, method string) {
	if _, err := w.callers[caller].ask(tryPatience, method, nil); err != nil {
		w.tries.err = errors.Join(w.tries.err, fmt.Errorf("%s: %w", method, err))
	}
}
