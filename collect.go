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
// after each collection we look at all connections, and where dropped streams
// may be in somebody's way, we ask for a collection.

// A collector looks at its connections after each garbage collection, and asks
// for collections. There is one for the process, and one for each connection
// inside a synctest bubble, which no goroutine from outside may touch.
type collector struct {
	collect func() (cost time.Duration) // has the garbage collector run, and returns its processor time
	alone   bool                        // for one connection in a bubble: only collections that were asked for are followed by a look

	looking sync.Mutex // held for a look, so that one waits for another's end
	looked  uint64     // the collection after which we last looked, guarded by looking

	mu       sync.Mutex // guards the fields below
	conns    map[*Conn]struct{}
	watching bool        // a sentinel awaits the next collection
	wanted   float64     // the share of a processor that those who ask allow, 0: nobody asks
	timer    *time.Timer // pending while they wait, or nil
	running  bool
	ran      int // collections that were asked for
	budget   pace.Budget
}

// How much of a processor collections that are asked for may take.
const (
	forSlots  = 0.05  // streams are in the way of others
	forStalls = 0.005 // they may fill the connection's window
)

// process is the collector of all connections outside of bubbles.
var process = &collector{collect: collectGarbage}

func collectGarbage() time.Duration {
	before := collectorCPU()
	runtime.GC()
	// The runtime does not count sweeping, which takes about as long again.
	return 2 * (collectorCPU() - before)
}

func collectorCPU() time.Duration {
	sample := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}}
	metrics.Read(sample)
	return time.Duration(sample[0].Value.Float64() * float64(time.Second))
}

// collections is how many there were in the process.
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

// add has c looked at from now on.
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

// awaitCollectionLocked has afterCollection called after the next collection: an
// object that nobody refers to dies in it.
func (k *collector) awaitCollectionLocked() {
	type sentinel struct{ _ *collector } // has a pointer, or it might share its memory with others
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

// look looks at all connections, once after each collection. What it finds is
// ended first and told after, so that a slow Logger delays nobody.
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

// all returns the connections.
func (k *collector) all() []*Conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Keys(k.conns))
}

// ask has a collection run as soon as share allows it. It does not block.
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

// run has the garbage collector run, so that it finds all dropped streams, and
// looks.
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
