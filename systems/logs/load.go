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

// load runs the site under load until ctx is done, and checks the outcome.
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
	survivor, err := y.disturb(ctx)
	if err != nil {
		stop()
		err = errors.Join(err, y.shutdown())
		running.Wait()
		return errors.Join(err, y.service.close())
	}
	<-ctx.Done()

	y.Event(loadEnds, "")
	lines, seconds := y.lines.Load(), time.Since(y.Start).Seconds()
	perLine := float64(mallocs()-allocs) / float64(max(lines, 1))
	stuck := y.stuck()
	y.Check(stuck == 0, "all producers send on", "%d of %d stuck; %.0f lines/s, %.0f batches/s, %.1f allocs a line",
		stuck, producers, float64(lines)/seconds, float64(y.stored.Load())/seconds, perLine)
	stop()

	// At rest each end of a connection has only its control stream. The connection
	// of the killed producer is gone.
	const ends = 2*producers + 1
	y.add("producer process", survivor.rest())
	left := func() int64 { return y.conns.Held() - int64(y.conns.Len()) }
	open := func() int64 { return y.conns.Open() - int64(y.conns.Len()) }
	poll(max(0, time.Until(y.killedAt.Add(y.dead)))+y.rest, func() bool {
		runtime.GC() // finds forgotten streams; an idle program does not collect by itself
		return y.idle() && survivor.held.Load() >= 0 && y.conns.Len() <= ends && left() == 0 && (y.Plain || open() == 0)
	})
	grown := float64(rig.Heap())/(1<<20) - float64(heap)/(1<<20)
	y.check(y.refused.Load() > 0 && y.panicked.Load() > 0, "no batch went wrong, so this run tested nothing")
	y.check(y.idle() && survivor.held.Load() >= 0, "producers did not come to rest")
	y.check(y.conns.Len() <= ends, "%d ends of connections instead of %d: that of the killed producer is left", y.conns.Len(), ends)
	seen := fmt.Sprintf("%d, and %d in the other process", left(), survivor.held.Load())
	if !y.Plain {
		seen += fmt.Sprintf("; %d counted open", open())
	}
	y.Check(left() == 0 && survivor.held.Load() <= 0 && (y.Plain || open() == 0), "at rest quic-go holds no stream", "%s", seen)
	y.Check(grown < maxGrowth>>20, "the heap is as small as before", "%.1f MiB more; %d MiB are allowed", max(grown, 0), maxGrowth>>20)
	if !y.Plain {
		y.Check(y.leaks.Load() == 0, "the collector leaks no stream", "%d reported; the producers forgot %d, which were ended", y.leaks.Load(), y.forgotten.Load())
	}

	y.StopWatching() // from here on the connections are closed, whatever they hold
	y.add("shutdown", y.shutdown())
	running.Wait()
	y.add("producer process", survivor.wait())
	y.add("closing", y.service.close())
	y.checkFile()
	y.Check(len(y.wrong) == 0, "each shutdown ends, nothing else goes wrong", "%s", problems(y.wrong))
	after := func() int { return runtime.NumGoroutine() - goroutines }
	poll(y.rest, func() bool { return after() <= 0 })
	y.Check(after() <= 0, "it can be closed, and nothing goes on", "%s", lab.Left(nil, after()))
	y.Shown = fmt.Sprintf("%d batches went wrong and left nothing behind; no line that was acknowledged is missing.", y.refused.Load()+y.panicked.Load())
	if y.Plain {
		y.Shown = "Each batch that goes wrong keeps its stream, and its handler may wait for ever. Sooner or later the producers stand still."
	}
	return nil
}

// disturb restarts the collector early in the load, and kills a producer in the
// middle of the load. It returns the producer that replaces it.
func (y *site) disturb(ctx context.Context) (*child, error) {
	serverTLS, _ := rig.TLS()
	o := order{ID: producers + 1, Addr: y.addr, Cert: serverTLS.Certificates[0].Certificate[0], Plain: y.Plain, Dead: y.dead, Rest: y.rest / 2}
	victim, err := startChild(o, y.told.add)
	if err != nil {
		return nil, err
	}
	working := func(c *child) { // on a slow machine, waits until there is something to disturb
		y.check(poll(slowStart, func() bool { return y.told.of(c.id) >= 20 }), "producer %d, a process, had no 20 batches acknowledged in %v", c.id, slowStart)
	}
	pause(ctx, y.For/8)
	working(victim)
	y.Event(shutdown, "after %d batches", y.stored.Load())
	begin := time.Now()
	y.add("restart", y.shutdown())
	y.add("restart", y.service.listen())
	y.Event(restarted, "%v later", time.Since(begin).Round(time.Millisecond))

	pause(ctx, y.For/2-time.Since(y.Start))
	before := int64(y.told.of(victim.id))
	poll(slowStart, func() bool { return int64(y.told.of(victim.id)) > before }) // kill it in the middle of its work
	y.add("kill", victim.kill())
	y.killed, y.killedAt = victim.id, time.Now()
	y.Event(kill, "producer %d, after %d acknowledgements", victim.id, y.told.of(victim.id))
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

// look takes a sample for the table.
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

// stuck counts the producers that cannot send another batch within y.stall.
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

// problems returns the problems as text.
func problems(all []error) string {
	if len(all) == 0 {
		return "nothing went wrong"
	}
	return errors.Join(all...).Error()
}

// check notes what is wrong if ok is false.
func (y *site) check(ok bool, format string, args ...any) {
	if !ok {
		y.wrong = append(y.wrong, fmt.Errorf(format, args...))
	}
}

func (y *site) add(what string, err error) {
	if err != nil {
		y.wrong = append(y.wrong, fmt.Errorf("%s: %w", what, err))
	}
}

// poll waits until done returns true, but no longer than most. It reports
// whether that happened in time.
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
