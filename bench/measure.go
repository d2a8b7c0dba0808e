package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/quiclife/quiclife/internal/rig"
)

// A connection answers requests.
type connection interface {
	serve(workers int)      // starts workers that answer until the connection ends
	cycle(buf []byte) error // makes a request and reads its answer
	end()
}

// A subject is what is measured.
type subject struct {
	name    string
	short   string  // for pictures
	library library // nil if it has no streams besides its requests
	connect func() (connection, error)
}

const baseline = "quic-go" // the others are compared with it

var subjects = []subject{
	ofLibrary(baseline, "quic-go", quicGo{}),
	ofLibrary("quiclife", "quiclife", lifeLibrary{}),
	ofLibrary("libp2p quic", "libp2p", libp2p{}),
	ofLibrary("x/net/quic", "x/net", xnet{}),
	ofLibrary("yamux/TLS/TCP", "yamux", yamuxTCP{}),
	{name: "net/http HTTP/2", short: "HTTP/2", connect: connectHTTP2},
}

func ofLibrary(name, short string, l library) subject {
	return subject{name, short, l, func() (connection, error) {
		link, err := l.connect()
		if err != nil {
			return nil, err
		}
		return link, nil
	}}
}

// options say how much is measured.
type options struct {
	rounds int
	run    time.Duration // the duration of a run, after its warm-up
}

// A figure is one number that a measure gives.
type figure struct {
	name string
	unit string
	by   float64 // divide by this to get unit
	// ratio says that the table has the ratio to quic-go's in the same round.
	ratio bool
}

// A measure is run on each subject.
type measure struct {
	figures []figure
	streams bool // it needs streams
	run     func(options, subject) ([]float64, error)
}

var sizes = []int{100, 1 << 10, 4 << 10, 32 << 10, 1 << 20}

func measures() []measure {
	all := []measure{
		{
			figures: []figure{
				{"one at a time: time", "µs", 1e3, true},
				{"one at a time: CPU", "µs", 1e3, true},
				{"one at a time: allocations", "", 1, false},
				{"one at a time: allocated", "B", 1, false},
			},
			run: func(o options, s subject) ([]float64, error) { return cycles(o, s, 1) },
		},
		{
			figures: []figure{
				{"64 at a time: time", "µs", 1e3, true},
				{"64 at a time: CPU", "µs", 1e3, true},
			},
			run: func(o options, s subject) ([]float64, error) {
				v, err := cycles(o, s, 64)
				return v[:min(2, len(v))], err
			},
		},
	}
	for _, size := range sizes {
		all = append(all, measure{
			figures: []figure{{throughputName(size), "MB/s", 1e6, true}},
			streams: true,
			run:     func(o options, s subject) ([]float64, error) { return throughput(o, s, size) },
		})
	}
	return append(all, measure{
		figures: []figure{{"heap of an open stream, both ends", "B", 1, false}},
		streams: true,
		run:     func(_ options, s subject) ([]float64, error) { return heap(s) },
	})
}

func throughputName(size int) string { return "throughput, Write of " + sizeName(size) }

func sizeName(size int) string {
	switch {
	case size >= 1<<20:
		return fmt.Sprintf("%d MB", size>>20)
	case size >= 1<<10:
		return fmt.Sprintf("%d kB", size>>10)
	}
	return fmt.Sprintf("%d B", size)
}

// results are the values of each figure on each subject, one a round. A subject
// that a measure skips has none.
type results map[string]map[string][]float64 // figure, subject

// measureAll runs the measures in rounds. In each round all subjects take turns,
// so that other work of the machine slows all of them alike. Each round begins
// with another subject, and every other round goes backwards, so that no subject
// always follows the same one.
func measureAll(o options, measures []measure, subjects []subject, progress io.Writer) (results, error) {
	all := results{}
	for _, m := range measures {
		fmt.Fprintf(progress, "%s\n", m.figures[0].name)
		for round := range o.rounds {
			for i := range subjects {
				turn := (i + round) % len(subjects)
				if round%2 == 1 {
					turn = len(subjects) - 1 - turn
				}
				s := subjects[turn]
				if m.streams && s.library == nil {
					continue
				}
				values, err := m.run(o, s)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", m.figures[0].name, s.name, err)
				}
				for i, f := range m.figures {
					if all[f.name] == nil {
						all[f.name] = map[string][]float64{}
					}
					all[f.name][s.name] = append(all[f.name][s.name], values[i])
				}
			}
		}
	}
	return all, nil
}

// ratios returns the values of s divided by quic-go's in the same round.
func (r results) ratios(f, s string) []float64 {
	var all []float64
	for i, v := range r[f][s] {
		all = append(all, v/r[f][baseline][i])
	}
	return all
}

// quantile returns the q-quantile of xs: a part q of xs is below it.
func quantile(xs []float64, q float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	xs = slices.Sorted(slices.Values(xs))
	at := q * float64(len(xs)-1)
	i := int(at)
	if i == len(xs)-1 {
		return xs[i]
	}
	return xs[i] + (at-float64(i))*(xs[i+1]-xs[i])
}

func median(xs []float64) float64 { return quantile(xs, 0.5) }

// cycles returns what a cycle costs, both ends together: nanoseconds, processor
// time, allocations and bytes. It runs concurrency cycles at a time.
func cycles(o options, s subject, concurrency int) ([]float64, error) {
	c, err := s.connect()
	if err != nil {
		return nil, err
	}
	defer c.end()
	c.serve(concurrency)
	if _, err := cycleFor(o.run/4, c, concurrency); err != nil { // warms up
		return nil, err
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start, startCPU := time.Now(), rig.CPU()
	n, err := cycleFor(o.run, c, concurrency)
	if err != nil {
		return nil, err
	}
	elapsed, cpu := time.Since(start), rig.CPU()-startCPU
	runtime.ReadMemStats(&after)
	return []float64{
		float64(elapsed) / n,
		float64(cpu) / n,
		float64(after.Mallocs-before.Mallocs) / n,
		float64(after.TotalAlloc-before.TotalAlloc) / n,
	}, nil
}

// cycleFor runs cycles for the duration d, and returns how many.
func cycleFor(d time.Duration, c connection, concurrency int) (float64, error) {
	var over atomic.Bool
	defer time.AfterFunc(d, func() { over.Store(true) }).Stop()
	errs := make(chan error, concurrency)
	var count atomic.Int64
	for range concurrency {
		go func() {
			buf := make([]byte, bufferSize)
			n, err := 0, c.cycle(buf)
			for n = 1; err == nil && !over.Load(); n++ {
				err = c.cycle(buf)
			}
			count.Add(int64(n))
			errs <- err
		}()
	}
	var failed error
	for range concurrency {
		if err := <-errs; err != nil {
			failed = err
			over.Store(true)
		}
	}
	return float64(count.Load()), failed
}

// throughput returns how many bytes a second one stream carries with Writes of
// size bytes.
func throughput(o options, s subject, size int) ([]float64, error) {
	l, err := s.library.connect()
	if err != nil {
		return nil, err
	}
	defer l.close()
	if _, err := writeFor(o.run/4, l, size); err != nil { // warms up
		return nil, err
	}
	runtime.GC()
	start := time.Now()
	n, err := writeFor(o.run, l, size)
	return []float64{float64(n) / time.Since(start).Seconds()}, err
}

// writeFor writes to a stream for the duration d, and waits until the peer has
// read everything. It returns the number of bytes.
func writeFor(d time.Duration, l *link, size int) (int64, error) {
	type received struct {
		n   int64
		err error
	}
	reading := make(chan received, 1)
	go func() {
		s, err := l.server.accept(context.Background())
		if err != nil {
			reading <- received{0, err}
			return
		}
		n, err := io.CopyBuffer(onlyWriter{io.Discard}, s, make([]byte, 256<<10))
		l.library.finish(s)
		l.library.done(s)
		reading <- received{n, err}
	}()
	s, err := l.client.open(context.Background())
	if err != nil {
		return 0, err
	}
	p := make([]byte, size)
	batch := max(1, 64<<10/size) // between looks at the clock
	var written int64
	for until := time.Now().Add(d); time.Now().Before(until); {
		for range batch {
			n, err := s.Write(p)
			if err != nil {
				return 0, err
			}
			written += int64(n)
		}
	}
	l.library.finish(s)
	r := <-reading
	if r.err == nil && r.n != written {
		r.err = fmt.Errorf("%d bytes were written, %d read", written, r.n)
	}
	if _, err := io.Copy(io.Discard, s); r.err == nil { // reads the io.EOF of the receive half
		r.err = err
	}
	l.library.done(s)
	return written, r.err
}

// An onlyWriter has no ReadFrom, so that io.CopyBuffer uses its buffer.
type onlyWriter struct{ io.Writer }

// heap returns the bytes of heap that an open stream costs, both ends together,
// once a byte has gone each way.
func heap(s subject) ([]float64, error) {
	const conns, streams = 10, 80 // within the default limits of all libraries
	var links []*link
	defer func() {
		for _, l := range links {
			l.close()
		}
	}()
	for range conns {
		l, err := s.library.connect()
		if err != nil {
			return nil, err
		}
		links = append(links, l)
	}
	held := make([]stream, 0, 2*conns*streams)
	open := func(l *link) error {
		ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
		defer cancel()
		client, err := l.client.open(ctx)
		if err != nil {
			return err
		}
		client.Write([]byte{0})
		l.library.flush(client)
		server, err := l.server.accept(ctx)
		if err != nil {
			return err
		}
		var b [1]byte
		if _, err := io.ReadFull(server, b[:]); err != nil {
			return err
		}
		server.Write(b[:])
		l.library.flush(server)
		if _, err := io.ReadFull(client, b[:]); err != nil {
			return err
		}
		held = append(held, client, server)
		return nil
	}
	for _, l := range links { // a connection's first stream costs more
		if err := open(l); err != nil {
			return nil, err
		}
	}
	before := rig.Heap()
	for range streams {
		for _, l := range links {
			if err := open(l); err != nil {
				return nil, err
			}
		}
	}
	after := rig.Heap()
	runtime.KeepAlive(held)
	return []float64{(float64(after) - float64(before)) / (conns * streams)}, nil
}
