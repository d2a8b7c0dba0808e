// Requests sends request after request to a server that never closes its side of
// a stream. Each request has its own stream.
//
//	go run ./systems/requests         # on quiclife, then in all combinations: under 20 s
//	go run ./systems/requests -plain  # on quic-go: stuck after 100 requests
//	go run ./systems/requests -import # on quiclife, with only the import line changed
//	go run ./systems/requests -n 5000 # fewer requests than 100,000
//
// The client does what one expects: it sends, closes, and reads the answer. It
// knows the answer's size. The server reads the request to its end, answers,
// and returns. Each answer arrives. But after exactly 100 of them, the default
// of MaxIncomingStreams, no more streams can be opened. OpenStream fails with
// "too many open streams". OpenStreamSync waits until its context is done. The
// server shows no sign of it: no error, and no extra goroutine.
//
// On quiclife the client only changes its import line. The server passes its
// unchanged handler to Serve, which ends each stream when its handler returns.
//
// Then each library is tried at each end. The server owns the slots. It frees a
// slot when both halves of the stream have ended there. This has three effects:
//
//   - quiclife at the client only: no slot is freed. quiclife ends the client's
//     streams, which asks the server to stop sending. A server on quic-go
//     notices that only in a Write or a Close, and this one calls neither again.
//     The client gets a [quiclife.LimitError]. While the client itself still has
//     the streams open, the error names the oldest and where it was opened.
//     After that it says that the peer has not ended them.
//   - quiclife at the server only: all slots are freed. A client on quic-go goes
//     on. It never reads the io.EOF, so it keeps each stream whose FIN arrives
//     after the answer. Here that is one in several thousand.
//   - quiclife at both ends, with only the import line changed: the server drops
//     its streams, and quiclife ends and reports each one after a garbage
//     collection. That is slower, and goes in steps, but does not get stuck.
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
	maxGrowth = 8 << 20         // bytes by which the heap may have grown
	othersFor = 8 * time.Second // time for all the other combinations together
	restFor   = 5 * time.Second // time for the last streams and goroutines to go
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

// run makes the requests. If both ends are on quiclife and the server uses
// Serve, it then tries the other combinations.
func run(ctx context.Context, r *lab.Run) error {
	if *requests <= 0 {
		return fmt.Errorf("-n has to be positive, not %d", *requests)
	}
	goroutines := runtime.NumGoroutine() + 1 // the one that watch starts
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
		r.StopWatching() // the picture shows only the main run
		goroutines--
		wrong = tryOthers(r, res)
		r.Check(len(wrong) == 0, "each combination does what it should", "%s", wrong)
		r.Check(p.client.Held()+p.server.Held() == 0, "the first connection stays at rest meanwhile", "%d streams held", p.client.Held()+p.server.Held())
	}
	closed := p.end()
	left := await(func() int64 { return int64(max(runtime.NumGoroutine()-goroutines, 0)) })
	r.Check(closed == nil && left == 0, "it can be closed, and nothing goes on", "%s", lab.Left(closed, int(left)))
	r.Shown = shown(r, res)
	return nil
}

// shown says in words what the run has shown, if it went as expected.
func shown(r *lab.Run, res result) string {
	switch {
	case r.Plain:
		return fmt.Sprintf("Stuck for ever after %d requests, and the server shows no sign of it.", res.made)
	case r.Import:
		return fmt.Sprintf("The server dropped its streams, and all came back: %d were found, reported and ended.", res.leaks)
	}
	return fmt.Sprintf("%d requests went through a limit of %d streams, and none was left.", res.made, limit)
}

// tryOthers tries the other combinations, and prints the results of all.
func tryOthers(r *lab.Run, many result) (wrong problems) {
	r.Printf("\nNow each library at each end:")
	var results []result
	for _, c := range others {
		p, err := c.start()
		if err != nil {
			return append(wrong, err)
		}
		res := c.run(context.Background(), p) // takes its full time, however short -for is
		results = append(results, res)
		wrong = append(append(wrong, res.problems()...), p.end())
	}
	show(r, append(results, many))
	return slices.DeleteFunc(wrong, func(err error) bool { return err == nil })
}

func watch(r *lab.Run, p *pair) {
	var last lab.Sample
	r.Watch(func() lab.Sample {
		if p.ended.Load() { // closing the connection has freed all streams
			return last
		}
		open := int64(-1) // unknown: quic-go does not count
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

// await waits until left returns 0, but no longer than restFor. It returns the
// last result of left. Dropped streams are freed after a garbage collection. A
// busy program collects all the time. This one is done, so it starts collections.
func await(left func() int64) int64 {
	for start := time.Now(); left() > 0 && time.Since(start) < restFor; time.Sleep(10 * time.Millisecond) {
		runtime.GC()
	}
	return left()
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
