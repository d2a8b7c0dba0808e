package quiclife

import (
	"maps"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"time"

	"github.com/quiclife/quiclife/internal/pace"
)

// We learn of dropped streams from the garbage collector: we keep only a weak
// pointer to the handle of each stream that is not young, and it turns nil. So
// after each collection we look at all connections. Where dropped streams may
// block somebody, we ask for a collection.

// A collector looks at its connections after each garbage collection, and asks
// for collections. There is one for the process. Each connection inside a
// synctest bubble has its own, because no goroutine from outside may touch what
// is in a bubble.
type collector struct {
	collect func() (cost time.Duration) // runs the garbage collector, and returns the CPU time it took
	alone   bool                        // for one connection in a bubble: looks only when asked

	looking sync.Mutex // held during a look, so that there is one look at a time
	looked  uint64     // the number of the collection after which we last looked; guarded by looking

	mu       sync.Mutex // guards the fields below
	conns    map[*Conn]struct{}
	watching bool        // a sentinel is waiting for the next collection
	wanted   float64     // the share of a CPU that the callers of ask allow, or 0 if nobody asks
	timer    *time.Timer // pending until the budget allows the collection; or nil
	running  bool
	ran      int // number of collections that were asked for
	budget   pace.Budget
}

// How much of a CPU the collections that we ask for may take.
const (
	forSlots  = 0.05  // slots are short
	forStalls = 0.005 // a connection may have stalled
)

// process is the collector of all connections outside bubbles.
var process = &collector{collect: collectGarbage}

func collectGarbage() time.Duration {
	before := collectorCPU()
	runtime.GC()
	// The runtime does not count sweeping, which takes about as much time
	// again.
	return 2 * (collectorCPU() - before)
}

func collectorCPU() time.Duration {
	sample := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}}
	metrics.Read(sample)
	return time.Duration(sample[0].Value.Float64() * float64(time.Second))
}

// collections returns how many garbage collections the process has had.
func collections() uint64 {
	sample := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// collectorFor returns the collector of a new connection.
func (g *Guard) collectorFor(inBubble bool) *collector {
	switch {
	case g.collector != nil:
		return g.collector
	case !inBubble:
		return process
	}
	return &collector{alone: true, collect: func() time.Duration {
		runtime.GC()
		return 0 // no fake time has passed
	}}
}

// add makes the collector look at c from now on.
func (k *collector) add(c *Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conns == nil {
		k.conns = make(map[*Conn]struct{})
	}
	k.conns[c] = struct{}{}
	if !k.watching && !k.alone {
		k.watching = true
		k.awaitCollectionLocked()
	}
}

func (k *collector) remove(c *Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, c)
}

// awaitCollectionLocked makes the runtime call afterCollection after the next
// collection. It does so with a sentinel, an object that nobody refers to, so
// that the next collection frees it.
func (k *collector) awaitCollectionLocked() {
	type sentinel struct{ _ *collector } // without a pointer it might share its memory with other objects
	runtime.AddCleanup(new(sentinel), func(k *collector) { go k.afterCollection() }, k)
}

func (k *collector) afterCollection() {
	k.mu.Lock()
	if k.watching = len(k.conns) > 0; k.watching {
		k.awaitCollectionLocked()
	}
	k.mu.Unlock()
	k.look()
}

// look looks at all connections, once after each collection. It ends the leaked
// streams first and reports them afterwards, so that a slow Logger delays
// nobody.
func (k *collector) look() {
	k.looking.Lock()
	defer k.looking.Unlock()
	n := collections()
	if n == k.looked {
		return
	}
	k.looked = n
	var found []Leak
	for _, c := range k.all() {
		found = append(found, c.look()...)
	}
	if len(found) > 0 {
		go tell(found)
	}
}

func (k *collector) all() []*Conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Keys(k.conns))
}

// ask requests a collection, which runs as soon as share, a part of a CPU,
// allows it. It does not block.
func (k *collector) ask(share float64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wanted = max(k.wanted, share)
	k.scheduleLocked()
}

func (k *collector) scheduleLocked() {
	if k.wanted == 0 || k.running || len(k.conns) == 0 {
		return
	}
	wait := k.budget.Wait(time.Now(), k.wanted)
	switch {
	case wait == 0:
		k.running, k.wanted = true, 0
		go k.run()
	case k.timer == nil:
		k.timer = time.AfterFunc(wait, k.due)
	default:
		k.timer.Reset(wait)
	}
}

func (k *collector) due() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.scheduleLocked()
}

// run weakens all streams, so that the collection finds all dropped ones. Then
// it runs the garbage collector and looks.
func (k *collector) run() {
	start := time.Now()
	for _, c := range k.all() {
		c.weaken()
	}
	cost := time.Since(start) + k.collect()
	start = time.Now()
	k.look()
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.running = false
	k.ran++
	k.budget.Spent(now, cost+now.Sub(start))
	k.scheduleLocked()
}
