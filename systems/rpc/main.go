// Rpc runs an RPC server with more callers than it has room for, in one
// process, over loopback.
//
//	go run ./systems/rpc          # on quiclife: refuses connections, and stays healthy
//	go run ./systems/rpc -plain   # on quic-go: lets everyone in, and grows
//
// This happened to a real program. Each connection cost it up to a megabyte, it
// had no limit, and it died. Its server gave each call a read buffer and a write
// buffer of 64 KiB. That does no harm as long as calls end. But some callers
// went silent in the middle of a request, others gave up on a method that hung,
// and neither end told the other. And the server let in everyone who connected.
//
// Here up to 2,000 connections (see -conns) come from 8 UDP sockets. There are
// fewer on a slow machine. One in ten goes silent again and again. Some call
// methods that panic, hang and fail. The rest call Echo. Then more connections
// are tried than the server has room for, first above MaxConns, then above
// MaxHeap. To reach MaxHeap the server fills a cache, and drops it later. In a
// picture this is the peak of the heap in the middle.
//
// The service (service.go), the callers (callers.go), the tries (limits.go) and
// the verdict (verdict.go) are the same for both libraries. The differences are
// in plain.go and guarded.go: the limits of a Guard, Conn.Serve for the server,
// and Do for the callers.
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

// A size says how large the system is, and how long it waits.
type size struct {
	conns       int           // the server's MaxConns
	idleTimeout time.Duration // the server's IdleTimeout
	rest        time.Duration // how long the system may take to come to rest after the load
}

// maxHeap is the server's MaxHeap. A quarter of a megabyte for each connection,
// and 32 MiB more, is far above what the connections need.
func (sz size) maxHeap() int64 { return 32<<20 + int64(sz.conns)*256<<10 }

const (
	fewestConns = 100
	mostConns   = 2000 // unless -conns says otherwise
)

func main() {
	sz := size{idleTimeout: 3 * time.Second, rest: 5 * time.Second}
	flag.IntVar(&sz.conns, "conns", 0, "how many connections the server has room for (default: as many as the machine makes in 2 s, at most 2000)")
	system(&sz).Main()
}

func system(sz *size) lab.System {
	return lab.System{
		Name:  "rpc",
		Title: "an RPC server with more callers than it has room for",
		About: fmt.Sprintf("As many connections as the server has room for: up to %d, or -conns. One caller in ten goes silent\n"+
			"in the middle of requests, three in a hundred call methods that panic, fail and hang, the others\n"+
			"call Echo. Then more connections are tried, and a cache is made to fill the heap.", mostConns),
		For:      12 * time.Second,
		Requests: "calls of Echo that are over; those that failed",
		Columns: []lab.Term{
			{Name: "conn ends", Meaning: "ends of connections: two for each"},
			{Name: "refused", Meaning: "connections that the server has refused"},
			{Name: "silent", Meaning: "requests that the caller stopped sending in the middle"},
			{Name: "freed", Meaning: "silent requests that the server has ended"},
		},
		Events: []lab.Term{
			{Name: connected, Meaning: "the server is full; from now on more connections are tried"},
			{Name: cacheFull, Meaning: "a cache fills the heap, above MaxHeap; again connections are tried"},
			{Name: cacheDropped, Meaning: "the cache is dropped, and there is room again"},
			{Name: loadEnds, Meaning: "no more calls; what is open should come to its end"},
		},
		Run: func(ctx context.Context, r *lab.Run) error {
			start := startGuarded
			if r.Plain {
				start = startPlain
			}
			if sz.conns == 0 { // sz keeps the number, so that the next run has as many
				var err error
				if sz.conns, err = affordable(start); err != nil {
					return err
				}
			}
			return run(ctx, r, *sz, start)
		},
	}
}

const (
	connected    = "connected"
	cacheFull    = "cache full"
	cacheDropped = "cache dropped"
	loadEnds     = "load ends"
)

// A network is a server and the sockets of its callers, on one of the two
// libraries.
type network interface {
	dial(ctx context.Context, socket int) (conn, error)
	// stop ends all connections and the server, and waits for its goroutines.
	stop(context.Context) error
	// leaks returns how many streams the library has ended because they were
	// idle, and how many for other reasons.
	leaks() (idle, other int64)
}

// A starter starts a network. The network adds both ends of its connections to
// conns.
type starter func(sz size, conns *lab.Conns) (network, error)

// A world is a run of the system.
type world struct {
	size
	net     network
	conns   lab.Conns // both ends
	callers []*caller
	counts  counts
	tries   tries
}

func run(ctx context.Context, r *lab.Run, sz size, start starter) error {
	if sz.conns < fewestConns {
		return fmt.Errorf("%d connections are the fewest that have all kinds of callers, not %d", fewestConns, sz.conns)
	}
	w := &world{size: sz}
	heap := rig.Heap() // also frees what the previous run left, for the picture
	goroutines := runtime.NumGoroutine()
	r.Watch(func() lab.Sample { return w.look(r.Plain) })
	var err error
	if w.net, err = start(sz, &w.conns); err != nil {
		return err
	}
	perConn := func() int64 { return (int64(rig.Heap()) - int64(heap)) / int64(sz.conns) }

	begin := time.Now()
	if err := w.connect(); err != nil {
		return errors.Join(err, w.stop())
	}
	r.Event(connected, "%d connections in %.1f s", sz.conns, time.Since(begin).Seconds())
	v := verdict{world: w, fresh: perConn()}

	load, stopLoad := context.WithCancel(context.Background())
	defer stopLoad()
	w.startCalls(load)
	w.tryLimits(r, time.Now().Add(time.Until(r.Start.Add(r.For))/2))
	<-ctx.Done()
	v.live = int64(rig.LiveHeap())
	stopLoad()
	r.Event(loadEnds, "")

	w.awaitRest()
	v.waiting, v.held, v.open, v.used = w.counts.calls.Load(), w.conns.Held(), w.conns.Open(), perConn()
	v.lost = w.lost()
	r.StopWatching() // from here on the connections are closed, whatever they hold
	v.stopErr = w.stop()
	v.goroutines = w.awaitGoroutines(goroutines)
	v.say(r)
	return nil
}

// affordable makes a few connections, to find out how many this machine can make
// in 2 s.
func affordable(start starter) (int, error) {
	const few = 4 * dialers
	w := &world{size: size{conns: few}}
	var err error
	if w.net, err = start(w.size, &w.conns); err != nil {
		return 0, err
	}
	begin := time.Now()
	err = w.connect()
	speed := few / time.Since(begin).Seconds()
	return max(fewestConns, min(int(2*speed), mostConns)), errors.Join(err, w.stop())
}

func (w *world) look(plain bool) lab.Sample {
	s := lab.Sample{
		Requests: w.counts.echoed.Load() + w.counts.failed.Load(),
		Failed:   w.counts.failed.Load(),
		Open:     -1,                         // unknown: quic-go does not count
		Limit:    int64(w.conns.Len()) * 100, // quic-go's default of 100
		Held:     w.conns.Held(),
		More: []lab.Value{
			{Name: "conn ends", Value: fmt.Sprint(w.conns.Len())},
			{Name: "refused", Value: fmt.Sprint(w.counts.refused.Load())},
			{Name: "silent", Value: fmt.Sprint(w.counts.silent.Load())},
			{Name: "freed", Value: fmt.Sprint(w.counts.idled.Load())},
		},
	}
	if !plain {
		s.Open = w.conns.Open()
	}
	return s
}

// stop ends the system within a bounded time. The callers leave at once, because
// calls that have not returned by now never will.
func (w *world) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var errs []error
	for _, c := range w.callers {
		errs = append(errs, c.leave())
		c.running.Wait()
	}
	return errors.Join(append(errs, w.net.stop(ctx))...)
}

// awaitRest waits until all calls have returned and quic-go holds no stream.
func (w *world) awaitRest() {
	poll(w.rest, func() bool { return w.counts.calls.Load() == 0 && w.conns.Held()+w.conns.Open() == 0 })
}

// awaitGoroutines waits until there are no more goroutines than before. It
// returns how many more there are in the end.
func (w *world) awaitGoroutines(before int) int {
	poll(w.rest, func() bool { return runtime.NumGoroutine() <= before })
	return runtime.NumGoroutine() - before
}

// poll waits until yes returns true, but no longer than most. It reports whether
// that happened in time.
func poll(most time.Duration, yes func() bool) bool {
	for start := time.Now(); !yes(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > most {
			return false
		}
	}
	return true
}
