// Package heap reads the live heap of the process.
package heap

import (
	"runtime/metrics"
	"sync"
	"time"

	"github.com/quiclife/quiclife/internal/pace"
)

// Live returns the size of the live heap in bytes, as measured by the last
// garbage collection.
func Live() int64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// A Gauge caches a value, and reads it at most every 100 ms. Its method may be
// called from any goroutine.
type Gauge struct {
	Read func() int64 // such as Live

	mu   sync.Mutex // guards the fields below
	at   time.Time
	last int64
}

// Value returns the value, which may be up to 100 ms old.
func (g *Gauge) Value() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if pace.Elapsed(&g.at, time.Now(), 100*time.Millisecond) {
		g.last = g.Read()
	}
	return g.last
}
