// Proxy is a reverse proxy over QUIC, like a tunnel to a machine at home. It has
// three parts. net/http clients talk to the edge. The tunnel end has dialed 20
// QUIC connections to the edge. Behind it is the origin, a net/http server on
// loopback TCP.
//
//	client --HTTP--> edge --a QUIC stream per request--> tunnel end --TCP--> origin
//
// One request in ten is left by its client, in the middle of an answer or of an
// upload.
//
// quic-go's issue 4525 describes this leak: the heap of a reverse proxy with
// little load fills with newStream. Many proxies get there in the same way. The
// edge hands each stream to net/http as a net.Conn, a struct that embeds the
// stream and adds two addresses. But Close of a net.Conn ends both directions,
// and Close of a stream ends the send half only. net/http reads the bytes of an
// answer, or fewer if the client has left, and closes. If the FIN comes later,
// in a separate frame, nobody reads it.
//
//	go run ./systems/proxy -plain   # on quic-go
//	go run ./systems/proxy          # on quiclife, with Stream.NetConn and Conn.Serve
//
// On quic-go the number of streams held grows with the requests made, not with
// the load. So does the part of the heap that was allocated to open streams
// ("newStream" in the table). On quiclife both stay where they were. The two
// versions differ only in quicgo.go and quiclife.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/quiclife/quiclife/internal/rig"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

const (
	connections = 20
	clients     = 32

	maxSpare  = 300     // streams held beyond those of requests in flight: they wait for acknowledgements
	maxShare  = 0.05    // the share of newStream in the heap at rest
	maxGrowth = 4 << 20 // bytes by which the heap at rest may exceed the heap before the load

	requestTime = 10 * time.Second // for a request, so that the run ends even if the proxy is stuck
	restTime    = 10 * time.Second // for the last streams to go, and later for the last goroutines
	stillTime   = 3 * time.Second  // if no stream goes for this long, the rest will stay
	closeTime   = 30 * time.Second // for Shutdown: it takes some round trips, which are long on a busy machine
)

// By default the heap profile has one sample per 512 KiB. To measure newStream
// we need more.
func init() { runtime.MemProfileRate = 16 << 10 }

var system = lab.System{
	Name:  "proxy",
	Title: "an HTTP reverse proxy over QUIC, whose clients may leave",
	About: fmt.Sprintf("%d clients send requests, one at a time each, to an edge. The edge passes them on over %d QUIC\n"+
		"connections, a stream for each request, to a tunnel end, and that to the origin server. One request\n"+
		"in ten is left by its client, in the middle of the answer or of the upload.", clients, connections),
	For:      11 * time.Second,
	Requests: "HTTP requests done, or left by their clients; those that failed",
	Columns: []lab.Term{
		{Name: "in flight", Meaning: "requests that the edge is working on"},
		{Name: "newStream", Meaning: "the part of the heap that was allocated to make streams"},
	},
	Events: []lab.Term{{Name: "load ends", Meaning: "the clients stop; now all streams should go"}},
	Run: func(ctx context.Context, r *lab.Run) error {
		if r.Plain {
			return run(ctx, r, quicgo())
		}
		return run(ctx, r, guarded())
	},
}

func main() { system.Main() }

func run[L listener[C], C conn](ctx context.Context, r *lab.Run, lib library[L, C]) error {
	goroutines := runtime.NumGoroutine()
	p := &proxy{counted: !r.Plain}
	if err := start(p, lib); err != nil {
		return errors.Join(err, p.close())
	}
	l := &load{url: p.url}
	r.Watch(func() lab.Sample { return p.look(l) })
	goroutines++ // the one that Watch starts

	heap, share := rig.Heap(), newStreamShare()
	l.run(ctx)
	r.Event("load ends", "")
	p.rest()
	heapAfter, shareAfter := rig.Heap(), newStreamShare()
	held, open, alive, leaks := p.conns.Held(), p.conns.Open(), p.conns.Len(), p.leaks()
	spare := p.end(l)
	closed := p.close()
	left := func() int { return runtime.NumGoroutine() - goroutines }
	poll(func() bool { return left() <= 0 })

	whole, gone, failed := l.whole.Load(), l.left.Load(), l.failed.Load()
	answered := fmt.Sprintf("%d whole, %d left by their clients, %d failed", whole, gone, failed)
	if l.first != nil {
		answered += fmt.Sprintf(", the first: %v", l.first)
	}
	r.Check(failed == 0 && whole > 0 && gone > 0, "every request is answered", "%s", answered)
	r.Check(alive == 2*connections, "no connection ends", "%d of %d ends are alive", alive, 2*connections)
	r.Check(spare <= maxSpare, "held follows the requests in flight", "at most %d more than these need; %d are allowed", spare, maxSpare)
	r.Check(held == 0, "at rest quic-go holds no stream", "%d streams held", held)
	r.Check(heapAfter <= heap+maxGrowth, "the heap is as small as before", "%.1f MiB before, %.1f MiB after; %d MiB more are allowed", mib(heap), mib(heapAfter), maxGrowth>>20)
	r.Check(shareAfter <= maxShare, "newStream takes almost none of it", "%.1f%% before, %.1f%% after; %.0f%% are allowed", 100*share, 100*shareAfter, 100*maxShare)
	if !r.Plain {
		r.Check(open+leaks == 0, "the program has forgotten no stream", "%d counted open, %d leaks reported", open, leaks)
	}
	r.Check(closed == nil && left() <= 0, "it can be closed, and nothing goes on", "%s", lab.Left(closed, left()))
	r.Shown = "Each stream went when its request was over. Memory depends on the load, not on the past."
	if r.Plain {
		r.Shown = fmt.Sprintf("%d streams outlived their requests. More requests leave more, until memory is full.", held)
	}
	return nil
}

// poll waits until ok returns true, but no longer than restTime.
func poll(ok func() bool) {
	for start := time.Now(); !ok() && time.Since(start) < restTime; time.Sleep(10 * time.Millisecond) {
	}
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
