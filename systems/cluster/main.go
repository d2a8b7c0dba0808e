// Cluster runs three servers and five clients that open streams to each other.
// It shows that an application's own count of its streams can be wrong.
//
//	go run ./systems/cluster         # on quiclife
//	go run ./systems/cluster -plain  # on quic-go: FAILED, exit status 1
//
// Each client has a connection to each server. Both sides ping each other, with
// a new stream for each ping. They also send bursts of requests, and now and
// then a notice. In each direction there is one gossip stream that stays open.
// Two of the clients restart in turn, about one a second.
//
// This happened to a real program. After a while its servers could not open
// streams to the clients any more, while the clients could still open streams to
// the servers. The application counted 15 streams on a connection that was at
// its limit of 256. It counted a stream as closed after a call of Close, but
// Close ends the send half only. The servers' handler reads each stream to its
// end. The clients' handler (see handlers.go) does not, and on one path it
// forgets to close.
//
// What to look at on quic-go:
//
//   - The held streams climb to the limit.
//   - "s>c stuck" counts the connections on which a server's last open failed.
//     It climbs to 9: the connections of the clients that never restart.
//   - "top open" stays far below "top held". These are the two counts for the
//     connection end that holds the most streams.
//   - The last gossip messages of a client before a restart are lost.
//
// On quiclife the same handlers run. quiclife ends the streams that they leave
// open, either when the peer's FIN comes or after a garbage collection has found
// them. The count is conn.Stats(). Under load the number of streams held may be
// larger, because a stream whose end is not acknowledged yet is held but not
// open. At rest the two are equal. Clients restart with Guard.Shutdown, which
// loses nothing. New code would use Conn.Serve instead of an accept loop. Serve
// ends each stream when its handler returns, so no path can forget it.
package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/quiclife/quiclife/internal/rig"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

const (
	servers, clients = 3, 5
	restarting       = 2 // how many of the clients restart

	pingEvery    = 20 * time.Millisecond // on each connection, in each direction
	burstEvery   = 25                    // pings from one burst to the next
	burst        = 16                    // requests in a burst, all at once
	gossipEvery  = 50 * time.Millisecond
	restartEvery = time.Second
	answerTime   = 15 * time.Second // how long to wait for an answer
	stopTime     = 15 * time.Second // for a node to stop, or to start
	maxGrowth    = 2 << 20          // bytes by which the heap may have grown after the load
)

const (
	restart    = "restart"
	loadEnds   = "load ends"
	gossipEnds = "gossip ends"
)

// A config has the settings that tests change.
type config struct {
	maxStreams int64         // MaxIncomingStreams of all nodes
	patience   time.Duration // how long to wait for a slot
	settle     time.Duration // how long streams may take to be freed after the load
}

var defaults = config{maxStreams: 256, patience: 2 * time.Second, settle: 4 * time.Second}

func main() { system(defaults).Main() }

func system(conf config) lab.System {
	return lab.System{
		Name:  "cluster",
		Title: "nodes that open streams to each other, and restart",
		About: fmt.Sprintf("%d servers and %d clients, a connection from each client to each server, at most %d streams on each.\n"+
			"Both sides send requests and answer them, and gossip on one stream that stays open. The servers'\n"+
			"handler ends its streams; the clients' handler, by somebody else, forgets to on two of its paths.", servers, clients, conf.maxStreams),
		For:      10 * time.Second,
		Requests: "requests answered, in both directions; those that failed",
		Columns: []lab.Term{
			{Name: "top open", Meaning: "streams the program counts as open on the connection end that holds most"},
			{Name: "top held", Meaning: "streams that quic-go keeps on that end: both counts should say the same"},
			{Name: "s>c stuck", Meaning: "connections on which a server could not open its last stream to a client"},
			{Name: "c>s stuck", Meaning: "the same for clients"},
		},
		Events: []lab.Term{
			{Name: restart, Meaning: fmt.Sprintf("a client is shut down and comes back; %d of them do, in turn", restarting)},
			{Name: loadEnds, Meaning: "no more requests; only the gossip goes on"},
			{Name: gossipEnds, Meaning: "the clients say goodbye, and so do the servers; no stream should be left"},
		},
		Run: func(ctx context.Context, r *lab.Run) error { return run(ctx, r, conf) },
	}
}

// run starts the cluster, lets it work, and ends it step by step.
func run(ctx context.Context, r *lab.Run, conf config) error {
	goroutines := runtime.NumGoroutine()
	load, endLoad := context.WithCancel(context.WithoutCancel(ctx))
	defer endLoad()
	c := newCluster(load, r, conf)
	if err := c.start(); err != nil {
		return errors.Join(err, c.stop())
	}
	// The time of the load starts here, not with ctx. On a busy machine ctx may
	// be done before the handshakes are.
	defer time.AfterFunc(r.For, endLoad).Stop()
	before := rig.Heap()
	c.Watch(c.look)
	c.restartClients()
	for _, e := range c.all() {
		e.loading.Wait()
	}
	c.Event(loadEnds, "")
	c.checkLoad()

	settle := conf.settle
	if !c.checkStreams("with gossip alone", 2, settle) { // each end has two gossip streams: its own and the peer's
		settle /= 5 // streams that are still there will probably stay
	}
	growth := int64(rig.Heap()) - int64(before)
	c.Check(growth < maxGrowth, "the heap is as small as before", "%.1f MiB more; %d MiB are allowed", float64(max(growth, 0))/(1<<20), maxGrowth>>20)
	c.endGossip()
	c.Event(gossipEnds, "")
	c.checkStreams("when gossip has ended", 0, settle)

	c.StopWatching() // from here on the connections are closed, whatever they hold
	err := c.stop()
	c.check(err == nil, "stopping the nodes: %w", err)
	c.checkLedgers()
	c.check(await(stopTime, func() bool { return runtime.NumGoroutine() <= goroutines }), "%d goroutines are left", runtime.NumGoroutine()-goroutines)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Check(len(c.problems) == 0, "nothing else goes wrong", "%s", problems(c.problems))
	c.Shown = fmt.Sprintf("Both counts agree, and %d restarts lost nothing. %d streams were forgotten, found and ended.", len(c.stops), c.leaks.Load())
	if c.Plain {
		c.Shown = "Streams that one handler forgot stay, up to the limit, and the program's own count does not show it."
	}
	return nil
}

// look samples all ends of all connections.
func (c *cluster) look() lab.Sample {
	n := c.count()
	return lab.Sample{
		Requests: c.servers.answered.Load() + c.clients.answered.Load(),
		Failed:   c.servers.failures() + c.clients.failures(),
		Open:     n.open,
		Limit:    servers * clients * c.conf.maxStreams * 2 * 2, // in both directions, at both ends
		Held:     n.held,
		More: []lab.Value{
			{Name: "top open", Value: fmt.Sprint(n.fullest.open())},
			{Name: "top held", Value: fmt.Sprint(n.fullest.held())},
			{Name: "s>c stuck", Value: fmt.Sprint(c.stuck(&c.servers))},
			{Name: "c>s stuck", Value: fmt.Sprint(c.stuck(&c.clients))},
		},
	}
}

// counts says how many streams the application counts as open, and how many
// quic-go holds.
type counts struct {
	open, held int64
	fullest    *end // the end that holds the most
}

func (c *cluster) count() counts {
	none := func() int64 { return 0 }
	n := counts{fullest: &end{name: "no end", link: link{open: none, held: none}}}
	for _, e := range c.all() {
		n.open += e.open()
		n.held += e.held()
		if e.held() > n.fullest.held() {
			n.fullest = e
		}
	}
	return n
}

// stuck counts the connections on which the last open of one side failed.
func (c *cluster) stuck(s *side) int {
	return len(slices.DeleteFunc(c.all(), func(e *end) bool { return e.ours != s || !e.stuck.Load() }))
}

// checkLoad checks that requests were answered under load.
func (c *cluster) checkLoad() {
	for _, s := range []*side{&c.servers, &c.clients} {
		seen := fmt.Sprintf("%d; %d opens failed (stuck on %d of %d connections), %d others",
			s.answered.Load(), s.refused.Load(), c.stuck(s), servers*clients, s.failed.Load())
		if first := s.first.Load(); first != nil {
			seen += fmt.Sprintf(", the first: %v", *first)
		}
		c.Check(s.failures() == 0 && s.answered.Load() >= servers*clients, "requests of "+s.name+" are answered", "%s", seen)
	}
	whole := func() bool { return len(c.all()) == 2*servers*clients } // a server may notice a restart late
	c.check(await(stopTime, whole), "%d ends of connections are alive, not %d", len(c.all()), 2*servers*clients)
}

// checkStreams waits until both counts are want on each end of each connection:
// the streams that the application counts as open, and those that quic-go holds.
// It reports whether that happened in time.
func (c *cluster) checkStreams(when string, want int64, settle time.Duration) bool {
	ok := await(settle, func() bool {
		runtime.GC() // finds dropped streams; a busy program collects all the time
		return all(c.all(), func(e *end) bool { return e.open() == want && e.held() == want })
	})
	n, gossip := c.count(), want*int64(len(c.all()))
	seen := fmt.Sprintf("the program counts %d, quic-go holds %d", n.open, n.held)
	if !ok {
		seen += fmt.Sprintf("; on %s %d and %d", n.fullest.name, n.fullest.open(), n.fullest.held())
	}
	c.Check(ok, fmt.Sprintf("%s, %d streams are left", when, gossip), "%s", seen)
	return ok
}

// checkLedgers compares what was sent with what arrived. It is called once all
// is over.
func (c *cluster) checkLedgers() {
	slices.Sort(c.stops)
	var lost, said int64
	for _, s := range []*side{&c.servers, &c.clients} {
		c.check(s.given.Load() == s.answered.Load(), "requests of %s: %d answers given, %d received", s.name, s.given.Load(), s.answered.Load())
		lost += s.said.Load() - s.heard.Load()
		said += s.said.Load()
	}
	c.Check(lost == 0, "restarts lose no message", "%d of %d gossip messages lost in %d restarts, which took up to %v",
		lost, said, len(c.stops), c.stops[len(c.stops)-1].Round(time.Millisecond))
	c.check(c.gossipLeaks.Load() == 0, "%d gossip streams were taken for leaked", c.gossipLeaks.Load())
}

// problems returns the problems as text.
func problems(all []error) string {
	if len(all) == 0 {
		return "nothing"
	}
	return errors.Join(all...).Error()
}

func all(ends []*end, is func(*end) bool) bool {
	return !slices.ContainsFunc(ends, func(e *end) bool { return !is(e) })
}

// await polls until done returns true, and reports whether it did in time.
func await(bound time.Duration, done func() bool) bool {
	for start := time.Now(); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > bound {
			return false
		}
	}
	return true
}
