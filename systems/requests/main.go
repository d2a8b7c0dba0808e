// Requests sends request after request, a stream each, to a server that never
// closes its side of a stream.
//
//	go run ./systems/requests         # on quiclife, then in all combinations: under 20 s
//	go run ./systems/requests -plain  # on quic-go: stuck after 100 requests
//	go run ./systems/requests -n 5000 # fewer requests than 100,000
//
// The client does what one expects of it: it sends, closes, and reads the
// answer, whose size it knows. The server reads the request to its end,
// answers, and returns. Each answer arrives, and after exactly 100 of them, the
// default of MaxIncomingStreams, no stream can be opened any more: OpenStream
// fails ("too many open streams"), OpenStreamSync waits until its context is
// done. On the server nothing tells: no error, no goroutine.
//
// On quiclife the client changes its import line. The server gives its handler,
// as it is, to Serve, which ends each stream with its handler.
//
// Then each end is tried on each library. A slot is the server's, and is free
// when both halves have ended there. So:
//
//   - quiclife in the client alone frees none. It ends the client's streams,
//     which tells the server to stop sending, but a server on quic-go has to
//     notice that in a Write or a Close, and this one is done with both. What
//     the client gets is a [quiclife.LimitError]: while it still has the
//     streams open itself, with the oldest and where that was opened; and when
//     it has not, saying that it is the peer who has not ended them.
//   - quiclife in the server alone frees all. A client on quic-go goes on. It
//     keeps each stream whose FIN does not come together with the answer, here
//     one in some thousands, since it never reads the io.EOF.
//   - A server that has changed nothing but its import line drops its streams,
//     and they come back once the garbage collector has found them: at most 100
//     a second. Slow, but not stuck, and each is reported.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"runtime"
	"time"

	"github.com/quiclife/quiclife/internal/rig"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

const (
	limit     = 100             // the server's MaxIncomingStreams, quic-go's default
	maxGrowth = 8 << 20         // bytes of heap that may be left
	othersFor = 8 * time.Second // what the other combinations take in all
	restFor   = 5 * time.Second // for the last streams and goroutines to go
)

var requests = flag.Int64("n", 100_000, "number of `requests`")

var system = lab.System{
	Name: "requests",
	For:  17 * time.Second,
	About: fmt.Sprintf("Request after request on one connection, a stream each, at most %d streams at a time;\n"+
		"the server's handler never closes its side.", limit),
	Run: run,
}

func main() { system.Main() }

// run makes the requests, and if that is on quiclife, then some in the other
// combinations.
func run(ctx context.Context, r *lab.Run) error {
	if *requests <= 0 {
		return fmt.Errorf("-n has to be positive, not %d", *requests)
	}
	goroutines := runtime.NumGoroutine() + 1 // that of watch
	c := combination{onQuiclife, withServe, connectServe, *requests, max(r.For-othersFor, r.For/2)}
	if r.Plain {
		c = combination{onQuicGo, onQuicGo, connectPlain, *requests, r.For}
	}
	p, err := c.start()
	if err != nil {
		return err
	}
	before := rig.Heap()
	watch(r, p)
	res := c.run(ctx, p)
	after := rig.Heap()
	r.Printf("%d of %d requests in %v; heap %.1f MiB before, %.1f MiB after", res.made, res.requests, res.took, mib(before), mib(after))

	var wrong problems
	if r.Plain {
		wrong.check(res.made == res.requests, "stuck after %d of %d requests; held: %d streams by the client, %d by the server\n%s",
			res.made, res.requests, res.heldByClient, res.heldByServer, res.said())
	} else {
		wrong = append(res.problems(), tryOthers(r, res)...)
		wrong.check(after < before+maxGrowth, "the heap has grown by %.1f MiB", mib(after)-mib(before))
		wrong.check(p.client.Held()+p.server.Held() == 0, "the connection of the many requests has not stayed at rest")
	}
	wrong = append(wrong, p.end())
	left := await(func() int64 { return int64(max(runtime.NumGoroutine()-goroutines, 0)) })
	wrong.check(left == 0, "%d goroutines are left", left)
	return errors.Join(wrong...)
}

// tryOthers tries the other combinations, and prints what came of all.
func tryOthers(r *lab.Run, many result) (wrong problems) {
	var results []result
	for _, c := range others {
		p, err := c.start()
		if err != nil {
			return append(wrong, err)
		}
		res := c.run(context.Background(), p) // they take their time, however short -for is
		results = append(results, res)
		wrong = append(append(wrong, res.problems()...), p.end())
	}
	show(r, append(results, many))
	return wrong
}

func watch(r *lab.Run, p *pair) {
	var last lab.Sample
	r.Watch(func() lab.Sample {
		if p.ended.Load() { // which lets go of all streams
			return last
		}
		open := int64(-1) // nobody counts
		if !r.Plain {
			open = p.client.Open() + p.server.Open()
		}
		last = lab.Sample{
			Requests: p.made.Load(),
			Failed:   p.failed.Load(),
			Open:     open,
			Limit:    2 * limit, // at both ends
			Held:     p.client.Held() + p.server.Held(),
		}
		return last
	})
}

// await waits until left returns 0, but not for ever, and returns what it
// returned last. What was dropped comes back after a garbage collection, which
// a busy program has all the time, and this one, being done, has not.
func await(left func() int64) int64 {
	for start := time.Now(); left() > 0 && time.Since(start) < restFor; time.Sleep(10 * time.Millisecond) {
		runtime.GC()
	}
	return left()
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
