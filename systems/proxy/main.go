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
	Name: "proxy",
	About: fmt.Sprintf("%d clients, one request at a time each, through an edge, %d QUIC connections and a tunnel end to an origin.\n"+
		"One request in ten is left by its client half-way.", clients, connections),
	For: 11 * time.Second,
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
	p.rest()
	heapAfter, shareAfter := rig.Heap(), newStreamShare()
	held, open, alive, leaks := p.conns.Held(), p.conns.Open(), p.conns.Len(), p.leaks()
	spare := p.end(l)
	closed := p.close()
	left := func() int { return runtime.NumGoroutine() - goroutines }
	poll(func() bool { return left() <= 0 })

	whole, gone, failed := l.whole.Load(), l.left.Load(), l.failed.Load()
	r.Printf("answered %d whole, %d left half-way by their clients, %d failed", whole, gone, failed)
	r.Printf("heap     %.1f MiB before, %.1f MiB after", mib(heap), mib(heapAfter))
	r.Printf("of it    %.1f%% newStream before, %.1f%% after", 100*share, 100*shareAfter)
	r.Printf("held     at most %d streams beyond those of requests in flight; in the end %d", spare, held)

	var verdict []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			verdict = append(verdict, fmt.Errorf(format, args...))
		}
	}
	check(failed == 0, "%d requests failed, the first: %w", failed, l.first)
	check(whole > 0 && gone > 0, "no requests of some kind")
	check(alive == 2*connections, "%d ends of connections are left of %d", alive, 2*connections)
	check(spare <= maxSpare, "streams held: %d more than two for each request in flight", spare)
	check(held == 0, "%d streams are held in the end", held)
	check(open == 0, "%d streams are counted open in the end", open)
	check(leaks == 0, "%d leaks were reported", leaks)
	check(shareAfter <= maxShare, "%.0f%% of the heap is newStream", 100*shareAfter)
	check(heapAfter <= heap+maxGrowth, "the heap has grown by %.1f MiB", mib(heapAfter)-mib(heap))
	check(closed == nil, "closing: %w", closed)
	check(left() <= 0, "%d goroutines are left", left())
	return errors.Join(verdict...)
}

// poll waits until ok, but no longer than restTime.
func poll(ok func() bool) {
	for start := time.Now(); !ok() && time.Since(start) < restTime; time.Sleep(10 * time.Millisecond) {
	}
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
