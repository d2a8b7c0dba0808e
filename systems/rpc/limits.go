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

// tries counts attempts to connect: above MaxConns, above MaxHeap, and then below
// both again.
type tries struct {
	full, heap            try
	afterLeave, afterDrop time.Duration // until a connection was let in; negative if none was
	err                   error         // what else went wrong
}

// A try counts several attempts to connect.
type try struct {
	refused, let int       // attempts that were refused, and that were let in
	err          error     // the first error that is not a refusal
	took         latencies // of the refusals
}

func (t *try) String() string {
	if t.refused == 0 {
		return fmt.Sprintf("0 refused, %d let in", t.let)
	}
	return fmt.Sprintf("%d refused (%v), %d let in", t.refused, &t.took, t.let)
}

// isRefused reports whether err is the server's CONNECTION_REFUSED.
func isRefused(err error) bool {
	remote, ok := errors.AsType[*quic.TransportError](err)
	return ok && remote.Remote && remote.ErrorCode == quic.ConnectionRefused
}

// dial tries to connect, counts the outcome in t, and reports whether it
// succeeded.
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

// tryLimits makes the tries. Those above MaxConns go on until the given time.
// The others follow.
func (w *world) tryLimits(r *lab.Run, until time.Time) {
	// The server is full now. Connections that it lets in nevertheless stay. To
	// spare the machine, there may be at most a fifth more of them.
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

	// There is room for three connections. Now a cache fills the heap.
	w.ask(stays, "Load")
	r.Event(cacheFull, "")
	poll(time.Second, func() bool { // the Guard may notice the full heap a little later
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

// awaitRoom tries to connect until it is let in, and closes that connection. It
// returns how long this took, or -1 if it was never let in.
func (w *world) awaitRoom() time.Duration {
	start := time.Now()
	in := poll(3*tryPatience, func() bool { // the next collection may be 10 s away
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
