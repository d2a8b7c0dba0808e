// Soak runs clients and servers that use streams in every way, right and wrong,
// over a bad network, for as long as you like. It checks that nothing leaks,
// nothing is lost and nothing hangs.
//
//	go run ./systems/soak -for 10m
//
// With -ledger all connections are traced. At rest the ledgers of both ends have
// to agree.
//
// Four clients use two servers. Each client has one connection at a time, with
// four workers on it. Most of what the workers do is careless. They drop and
// cancel streams, and release them while a call is blocked. Handlers panic, fail
// and return early. Packets are lost and swapped. Connections are closed, shut
// down, or vanish without a word. Servers restart. Meanwhile requests that are
// made properly have to be answered byte for byte, unless their connection ends.
//
// At the end the connections that are left must hold no stream. The process must
// have no extra goroutine, and nearly as little heap as at the start.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/rig"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

const (
	maxStreams = 30               // streams of each kind on a connection; low, so that the limit is reached
	patience   = 30 * time.Second // a call that takes longer hangs
	restTime   = 15 * time.Second // for the last streams to end, including HalfCloseTimeout
	maxGrowth  = 8 << 20          // bytes by which the heap may have grown at the end
)

var (
	serverTLS, clientTLS = rig.TLS()
	codes                = quiclife.Codes{Release: 1, Cut: 2, Abandoned: 3, HalfClosed: 4, Idle: 5, Refused: 6, HandlerError: 7, Panic: 8, Shutdown: 9}
	conf                 = &quic.Config{
		MaxIncomingStreams:             maxStreams,
		MaxIncomingUniStreams:          maxStreams,
		MaxIdleTimeout:                 3 * time.Second, // short, to notice peers that have vanished
		KeepAlivePeriod:                time.Second,
		InitialStreamReceiveWindow:     1 << 14, // small, so that Writes block
		MaxStreamReceiveWindow:         1 << 16,
		InitialConnectionReceiveWindow: 1 << 22, // more than all streams of a connection together need
		MaxConnectionReceiveWindow:     1 << 22,
	}
)

const loadEnds = "load ends"

// A soak is one run.
type soak struct {
	run   *lab.Run
	guard *quiclife.Guard
	books *books // nil without -ledger
	seed  uint64

	calls, verified atomic.Int64 // calls of the workers, and how many of them got the right answer
	ended           atomic.Int64 // proper calls that failed because their connection ended
	conns, restarts atomic.Int64 // connections made, and servers restarted
	leaks           atomic.Int64 // leaks reported to OnLeak

	mu       sync.Mutex // guards the fields below
	expected map[uint64]chan struct{}
	messages uint64  // the last message number given
	failures []error // defects found
	most     uint64  // the most bytes of live heap that were seen
	mostHeld int64   // the most streams that were held at a time
}

// random returns a separate source of random numbers for a part of the run.
func (k *soak) random(part uint64) *rand.Rand { return rand.New(rand.NewPCG(k.seed, part)) }

func (k *soak) fail(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	k.run.Printf("FAILED: %v", err)
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.failures) < 20 {
		k.failures = append(k.failures, err)
	}
}

// expect returns a number for a message, and a channel that is closed when the
// message has arrived.
func (k *soak) expect() (id uint64, arrived <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.expected == nil {
		k.expected = make(map[uint64]chan struct{})
	}
	k.messages++
	ch := make(chan struct{})
	k.expected[k.messages] = ch
	return k.messages, ch
}

func (k *soak) arrived(id uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ch := k.expected[id]; ch != nil {
		close(ch)
	}
	delete(k.expected, id)
}

// await waits for something that must end. If it does not end in time, await
// reports a defect and prints all goroutines.
func (k *soak) await(what string, wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		wait()
	}()
	select {
	case <-done:
	case <-time.After(2 * patience):
		k.fail("%s does not end", what)
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
	}
}

// left returns how many streams are counted open, and how many quic-go keeps.
func (k *soak) left() (open, held int64) {
	for c := range k.guard.Conns() {
		open += c.Stats().Open()
		held += int64(rig.Held(c.Unwrap()))
	}
	return open, held
}

func (k *soak) look() lab.Sample {
	open, held := k.left()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.most, k.mostHeld = max(k.most, rig.LiveHeap()), max(k.mostHeld, held)
	return lab.Sample{
		Requests: k.calls.Load(), Failed: int64(len(k.failures)), Open: open, Limit: clients * 2 * 4 * maxStreams, Held: held, // at both ends, four kinds of streams
		More: []lab.Value{
			{Name: "verified", Value: fmt.Sprint(k.verified.Load())},
			{Name: "cut", Value: fmt.Sprint(k.ended.Load())},
			{Name: "leaks", Value: fmt.Sprint(k.leaks.Load())},
			{Name: "conns", Value: fmt.Sprint(k.conns.Load())},
			{Name: "reboots", Value: fmt.Sprint(k.restarts.Load())},
		},
	}
}

func (k *soak) start(ctx context.Context) error {
	r := k.run
	k.guard = lab.Watched("soak", &quiclife.Guard{
		Codes:            codes,
		HalfCloseTimeout: time.Second,
		IdleTimeout:      10 * time.Second, // longer than a proper request may stand still
		AbandonGrace:     500 * time.Millisecond,
		DrainTimeout:     2 * time.Second,
		Logger:           slog.New(slog.DiscardHandler),
		OnLeak:           func(quiclife.Leak) { k.leaks.Add(1) },
	})
	r.Printf("The seed is %d.", k.seed)
	if k.books != nil {
		k.books.open()
	}
	heap, goroutines := rig.Heap(), runtime.NumGoroutine()
	r.Watch(k.look)
	goroutines++ // the one that Watch starts

	// The servers and the connections outlive the load, so that we can inspect
	// them.
	rest, end := context.WithCancel(context.Background())
	defer end()
	servers := k.startServers(ctx, rest)
	waitForClients := k.runClients(ctx, rest, servers)

	open, held := k.left()
	if k.books != nil && open+held > 0 { // the last streams wait for timeouts; the ledgers must agree on them too
		if err := k.books.compare(r, false); err != nil {
			k.fail("%w", err)
		}
	}
	for start := time.Now(); open+held > 0 && time.Since(start) < restTime; open, held = k.left() {
		runtime.GC() // finds dropped streams; a process at rest does not collect by itself
		time.Sleep(20 * time.Millisecond)
	}
	r.Check(open+held == 0, "at rest quic-go holds no stream", "%d streams held, %d counted open", held, open)
	if k.books != nil {
		if err := k.books.compare(r, true); err != nil {
			k.fail("%w", err)
		}
	}
	end()
	k.await("a client", waitForClients)
	for _, s := range servers {
		k.await("a server", s.done.Wait)
	}
	for start := time.Now(); runtime.NumGoroutine() > goroutines && time.Since(start) < restTime; {
		time.Sleep(20 * time.Millisecond)
	}
	left := max(runtime.NumGoroutine()-goroutines, 0)
	after := rig.Heap()
	k.mu.Lock()
	defer k.mu.Unlock()
	r.Check(after <= heap+maxGrowth, "the heap is as small as before", "%.1f MiB before, %.1f MiB after, at most %.1f MiB; %d MiB more are allowed",
		mib(heap), mib(after), mib(k.most), maxGrowth>>20)
	r.Check(left == 0, "no goroutine is left", "%d are", left)
	r.Check(k.verified.Load() > 0, "proper calls are answered", "%d were, %d were cut by the end of their connection", k.verified.Load(), k.ended.Load())
	seen := "nothing does"
	if len(k.failures) > 0 {
		seen = errors.Join(k.failures...).Error()
	}
	r.Check(len(k.failures) == 0, "nothing hangs, fails or is lost", "%s", seen)
	r.Shown = fmt.Sprintf("%d streams were forgotten, found and ended; of at most %d held at a time none was left.", k.leaks.Load(), k.mostHeld)
	return nil
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

var (
	seed    = flag.Uint64("seed", rand.Uint64(), "seed of the random choices; the timing still differs from run to run")
	ledgers = flag.Bool("ledger", false, "trace all connections, and compare the ledgers of both ends at rest")
	system  = lab.System{
		Name:  "soak",
		Title: "all that can be done wrong with streams, on a bad network",
		About: fmt.Sprintf("%d clients with %d workers each, and 2 servers. They drop, cancel and cut streams; handlers panic,\n"+
			"fail and return early; packets are lost and swapped; connections end without a word; servers\n"+
			"restart. Requests that are made properly still have to be answered, byte for byte.", clients, workers),
		For:      15 * time.Second,
		Alone:    true,
		Requests: "calls of the workers, right or wrong; defects found",
		Columns: []lab.Term{
			{Name: "verified", Meaning: "calls made properly, and answered byte for byte"},
			{Name: "cut", Meaning: "proper calls that failed because their connection ended, as they must"},
			{Name: "leaks", Meaning: "forgotten streams that quiclife has found, reported and ended"},
			{Name: "conns", Meaning: "connections made so far"},
			{Name: "reboots", Meaning: "servers restarted"},
		},
		Events: []lab.Term{{Name: loadEnds, Meaning: "the workers stop; what is open should come to its end"}},
		Run: func(ctx context.Context, r *lab.Run) error {
			k := &soak{run: r, seed: *seed}
			if *ledgers {
				k.books = &books{}
			}
			return k.start(ctx)
		},
	}
)

func main() { system.Main() }
