// Requests sends request after request, a stream each, to a server that never
// closes its side of a stream.
//
//	go run ./systems/requests         # on quiclife, then in all combinations: under 20 s
//	go run ./systems/requests -plain  # on quic-go: stuck after 100 requests
//	go run ./systems/requests -import # on quiclife, with only the import line changed
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
//     and they come back once the garbage collector has found them. That is
//     slower, and goes in steps, but it does not get stuck. Each is reported.
package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"slices"
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
	Name:  "requests",
	Title: "request after request, to a server that never closes its side",
	About: fmt.Sprintf("A client sends request after request on one connection, %d at a time, a stream for each. The\n"+
		"server allows %d streams at a time. Its handler reads the request, answers, and never calls Close.\n"+
		"On quiclife the server gives that handler to Serve. With -import it keeps its accept loop.", atOnce, limit),
	For:          17 * time.Second,
	With:         "Serve",
	DrawRequests: true,
	Requests:     "requests answered; those that were not",
	Events: []lab.Term{
		{Name: limitReached, Meaning: fmt.Sprintf("all %d streams are taken: OpenStream fails, OpenStreamSync waits", limit)},
		{Name: allAnswered, Meaning: "the client is done"},
		{Name: loadEnds, Meaning: "the client gives up, since its time is over"},
	},
	Run: run,
}

const (
	limitReached = "limit reached"
	allAnswered  = "all answered"
	loadEnds     = "load ends"
)

func main() { system.Main() }

// run makes the requests, and if that is on quiclife with Serve, then some in
// the other combinations.
func run(ctx context.Context, r *lab.Run) error {
	if *requests <= 0 {
		return fmt.Errorf("-n has to be positive, not %d", *requests)
	}
	goroutines := runtime.NumGoroutine() + 1 // that of watch
	c := combination{onQuiclife, withServe, connectServe, *requests, max(r.For-othersFor, r.For/2)}
	switch {
	case r.Plain:
		c = combination{onQuicGo, onQuicGo, connectPlain, *requests, r.For}
	case r.Import:
		c = combination{onQuiclife, onQuiclife, connectImport, *requests, r.For}
	}
	p, err := c.start()
	if err != nil {
		return err
	}
	p.reached = func() { r.Event(limitReached, "") }
	p.over = func() {
		if p.made.Load() == c.requests {
			r.Event(allAnswered, "")
		} else {
			r.Event(loadEnds, "")
		}
	}
	before := rig.Heap()
	watch(r, p)
	res := c.run(ctx, p)
	after := rig.Heap()

	r.Check(res.made > limit || res.made == res.requests, fmt.Sprintf("requests go on beyond the limit of %d", limit), "%d of %d requests in %v", res.made, res.requests, res.took)
	var wrong problems
	if r.Plain {
		r.Check(res.heldByClient+res.heldByServer == 0, "at rest quic-go holds no stream", "%d by the client, %d by the server", res.heldByClient, res.heldByServer)
		r.Printf("What the client was told:\n%s", res.said())
	} else {
		r.Check(len(res.problems()) == 0, "at rest nothing is held or open", "%s", res.rest())
		r.Check(after < before+maxGrowth, "the heap is as small as before", "%.1f MiB before, %.1f MiB after", mib(before), mib(after))
	}
	if !r.Plain && !r.Import {
		r.StopWatching() // the picture is of the many requests
		goroutines--
		wrong = tryOthers(r, res)
		r.Check(len(wrong) == 0, "each combination does as it should", "%s", wrong)
		r.Check(p.client.Held()+p.server.Held() == 0, "the first connection stays at rest meanwhile", "%d streams held", p.client.Held()+p.server.Held())
	}
	closed := p.end()
	left := await(func() int64 { return int64(max(runtime.NumGoroutine()-goroutines, 0)) })
	r.Check(closed == nil && left == 0, "it can be closed, and nothing goes on", "%s", lab.Left(closed, int(left)))
	r.Shown = shown(r, res)
	return nil
}

// shown says in words what a run means that has gone as it should, or on
// quic-go as it does.
func shown(r *lab.Run, res result) string {
	switch {
	case r.Plain:
		return fmt.Sprintf("Stuck for ever after %d requests, and nothing on the server tells of it.", res.made)
	case r.Import:
		return fmt.Sprintf("The server dropped its streams, and all came back: %d were found, reported and ended.", res.leaks)
	}
	return fmt.Sprintf("%d requests went through a limit of %d streams, and none was left.", res.made, limit)
}

// tryOthers tries the other combinations, and prints what came of all.
func tryOthers(r *lab.Run, many result) (wrong problems) {
	r.Printf("\nNow each library at each end:")
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
	return slices.DeleteFunc(wrong, func(err error) bool { return err == nil })
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
