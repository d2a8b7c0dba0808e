package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/quiclife/quiclife/internal/rig"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

// load runs the site under load until ctx is done, and judges it.
func load[D conn[S, C], S io.WriteCloser, C io.ReadWriteCloser](ctx context.Context, y *site, dial dialer[D]) error {
	goroutines, heap := runtime.NumGoroutine(), rig.Heap()
	if err := y.service.listen(); err != nil {
		return err
	}
	loading, stop := context.WithCancel(context.Background())
	defer stop()
	allocs := mallocs()
	_, clientTLS := rig.TLS()
	var running sync.WaitGroup
	for id := range producers {
		p := &producer{id: id + 1, conns: &y.conns, told: y.told.add}
		y.producers = append(y.producers, p)
		running.Go(func() { produce(loading, p, y.addr, clientTLS, dial) })
	}
	y.Watch(y.look)
	var v verdict
	survivor, err := y.disturb(ctx, &v)
	if err != nil {
		stop()
		err = errors.Join(err, y.shutdown())
		running.Wait()
		return errors.Join(err, y.service.close())
	}
	<-ctx.Done()

	lines, seconds := y.lines.Load(), time.Since(y.Start).Seconds()
	y.Printf("load     %.0f lines/s and %.0f batches/s stored, %.1f allocations per line, both ends",
		float64(lines)/seconds, float64(y.stored.Load())/seconds, float64(mallocs()-allocs)/float64(max(lines, 1)))
	stuck := y.stuck()
	v.check(stuck == 0, "%d of %d producers are stuck: not one batch sent in %v", stuck, producers, y.stall)
	stop()

	// At rest each end of a connection has its control stream, and no other. That
	// of the killed producer is gone.
	const ends = 2*producers + 1
	v.add("producer process", survivor.rest())
	left := func() int64 { return y.conns.Held() - int64(y.conns.Len()) }
	open := func() int64 { return y.conns.Open() - int64(y.conns.Len()) }
	poll(max(0, time.Until(y.killedAt.Add(y.dead)))+y.rest, func() bool {
		runtime.GC() // finds what was forgotten; an idle program has no other
		return y.idle() && survivor.held.Load() >= 0 && y.conns.Len() <= ends && left() == 0 && (y.Plain || open() == 0)
	})
	grown := float64(rig.Heap())/(1<<20) - float64(heap)/(1<<20)
	y.Printf("at rest  %d streams held, the heap has grown by %.1f MiB; %d batches refused, %d panics; leaks: the collector's %d, the producers' %d",
		left(), grown, y.refused.Load(), y.panicked.Load(), y.leaks.Load(), y.forgotten.Load())
	v.check(y.idle(), "producers did not come to rest")
	v.check(y.conns.Len() <= ends, "%d ends of connections instead of %d: that of the killed producer is left", y.conns.Len(), ends)
	v.check(left() == 0, "quic-go holds %d streams", left())
	v.check(y.Plain || open() == 0, "%d streams are counted open", open())
	v.check(survivor.held.Load() >= 0, "producer %d, a process, did not come to rest", survivor.id)
	v.check(survivor.held.Load() <= 0, "quic-go holds %d streams in the process of producer %d", survivor.held.Load(), survivor.id)
	v.check(grown < maxGrowth>>20, "the heap has grown by %.1f MiB", grown)
	v.check(y.refused.Load() > 0 && y.panicked.Load() > 0, "nothing went wrong: that was no test")
	v.check(y.leaks.Load() == 0, "the collector leaked %d streams", y.leaks.Load())

	v.add("shutdown", y.shutdown())
	running.Wait()
	v.add("producer process", survivor.wait())
	v.add("closing", y.service.close())
	y.checkFile(&v)
	v.check(poll(y.rest, func() bool { return runtime.NumGoroutine() <= goroutines+1 }), // Watch has one
		"%d goroutines are left", runtime.NumGoroutine()-goroutines-1)
	return errors.Join(v...)
}

// disturb restarts the collector early in the load, and kills a producer in
// the middle. It returns the one that takes its place.
func (y *site) disturb(ctx context.Context, v *verdict) (*child, error) {
	serverTLS, _ := rig.TLS()
	o := order{ID: producers + 1, Addr: y.addr, Cert: serverTLS.Certificates[0].Certificate[0], Plain: y.Plain, Dead: y.dead, Rest: y.rest / 2}
	victim, err := startChild(o, y.told.add)
	if err != nil {
		return nil, err
	}
	working := func(c *child) { // so that also where all is slow there is something to disturb
		v.check(poll(slowStart, func() bool { return y.told.of(c.id) >= 20 }), "producer %d, a process, had no 20 batches acknowledged in %v", c.id, slowStart)
	}
	pause(ctx, y.For/8)
	working(victim)
	before, begin := y.stored.Load(), time.Now()
	v.add("restart", y.shutdown())
	y.Printf("restart  the collector shut down in %v, after %d batches, and another listens", time.Since(begin).Round(time.Millisecond), before)
	v.add("restart", y.service.listen())

	pause(ctx, y.For/2-time.Since(y.Start))
	before = int64(y.told.of(victim.id))
	poll(slowStart, func() bool { return int64(y.told.of(victim.id)) > before }) // in the middle of its work
	v.add("kill", victim.kill())
	y.killed, y.killedAt = victim.id, time.Now()
	y.Printf("kill -9  producer %d, a process, after %d acknowledgements", victim.id, y.told.of(victim.id))
	o.ID++
	survivor, err := startChild(o, y.told.add)
	if err == nil {
		working(survivor)
	}
	return survivor, err
}

func (y *site) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), y.drain)
	defer cancel()
	return y.service.shutdown(ctx)
}

// look is what the table shows.
func (y *site) look() lab.Sample {
	open := int64(-1)
	if !y.Plain {
		open = y.conns.Open()
	}
	return lab.Sample{
		Requests: y.stored.Load(), Failed: y.refused.Load() + y.panicked.Load(),
		Open: open, Limit: maxBatches * (2*producers + 1), Held: y.conns.Held(),
		More: []lab.Value{{Name: "lines", Value: fmt.Sprint(y.lines.Load())}},
	}
}

// stuck counts the producers that do not send one batch more.
func (y *site) stuck() (n int) {
	before := make([]int64, len(y.producers))
	for i, p := range y.producers {
		before[i] = p.sent.Load()
	}
	poll(y.stall, func() bool {
		n = 0
		for i, p := range y.producers {
			if p.sent.Load() == before[i] {
				n++
			}
		}
		return n == 0
	})
	return n
}

func (y *site) idle() bool {
	for _, p := range y.producers {
		if !p.idle.Load() {
			return false
		}
	}
	return true
}

// A verdict is all that is wrong.
type verdict []error

func (v *verdict) check(ok bool, format string, args ...any) {
	if !ok {
		*v = append(*v, fmt.Errorf(format, args...))
	}
}

func (v *verdict) add(what string, err error) {
	if err != nil {
		*v = append(*v, fmt.Errorf("%s: %w", what, err))
	}
}

// poll waits for done, at most for a time.
func poll(most time.Duration, done func() bool) bool {
	for start := time.Now(); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > most {
			return false
		}
	}
	return true
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}
