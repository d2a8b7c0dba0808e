// Proxy is a reverse proxy over QUIC, as tunnels to a machine at home are: an
// edge that net/http clients talk to, 20 QUIC connections that the tunnel end
// has dialed, and an origin behind it, a net/http server on loopback TCP.
//
//	client --HTTP--> edge --a QUIC stream per request--> tunnel end --TCP--> origin
//
// Of the clients one in ten leaves in the middle, of an answer or of an upload.
//
// The case is that of quic-go's issue 4525: a reverse proxy with little load,
// whose heap fills with newStream. This is how many proxies get there: the edge
// hands each stream to net/http as a net.Conn that is made of the stream,
// embedded, and two addresses. But Close of a net.Conn means both directions,
// and Close of a stream the send half only. net/http reads the bytes of an
// answer, or less if the client has left, and closes; a FIN that comes later,
// in a frame of its own, is read by nobody.
//
//	go run ./systems/proxy -plain   # that program, on quic-go
//	go run ./systems/proxy          # with Stream.NetConn and Conn.Serve of quiclife
//
// On quic-go the streams held grow with the requests made, not with the load,
// and so does the part of the heap that was allocated to open streams
// ("newStream" in the table). On quiclife both stay where they were. What differs
// between the two is in quicgo.go and quiclife.go.
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

	maxSpare  = 300     // streams held beyond those of requests in flight: acknowledgements are on their way
	maxShare  = 0.05    // of the heap, newStream's, once at rest
	maxGrowth = 4 << 20 // bytes of heap, from before the load until at rest

	requestTime = 10 * time.Second // for a request, so that a stuck proxy ends the run
	restTime    = 10 * time.Second // for the last streams, and later the goroutines, to go
	stillTime   = 3 * time.Second  // after which streams that are still there will stay
	closeTime   = 30 * time.Second // for Shutdown, which takes some round trips, long ones on a busy machine
)

// The heap profile of newStream needs more samples than one each 512 KiB.
func init() { runtime.MemProfileRate = 16 << 10 }

var system = lab.System{
	Name:  "proxy",
	Title: "an HTTP reverse proxy over QUIC, whose clients may leave",
	About: fmt.Sprintf("%d clients send requests, one at a time each, to an edge. The edge passes them on over %d QUIC\n"+
		"connections, a stream for each request, to a tunnel end, and that to the origin server. One client\n"+
		"in ten leaves in the middle of its answer or of its upload.", clients, connections),
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
	goroutines++ // Watch's

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
	r.Check(shareAfter <= maxShare, "newStream takes nearly nothing of it", "%.1f%% before, %.1f%% after; %.0f%% are allowed", 100*share, 100*shareAfter, 100*maxShare)
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

// poll waits until ok, but no longer than restTime.
func poll(ok func() bool) {
	for start := time.Now(); !ok() && time.Since(start) < restTime; time.Sleep(10 * time.Millisecond) {
	}
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
