package quiclife_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// The benchmarks compare quic-go and quiclife. One iteration is a pair of runs,
// in alternating order. The figures are medians over the pairs. So set the
// number of pairs: -benchtime 9x.

// A cost is what one run took.
type cost struct {
	time, cpu     time.Duration
	allocs, bytes float64
}

// pairs calls raw and wrapped b.N times each. A call does perRun operations.
// pairs reports the medians of their ratio and of their difference per
// operation. cpu is the CPU time of the whole process: of both ends and the
// garbage collector.
func pairs(b *testing.B, perRun int, raw, wrapped func()) {
	b.Helper()
	measure := func(f func()) cost {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start, startCPU := time.Now(), quictest.CPU()
		f()
		elapsed, cpu := time.Since(start), quictest.CPU()-startCPU
		runtime.ReadMemStats(&after)
		return cost{elapsed, cpu, float64(after.Mallocs-before.Mallocs) / float64(perRun), float64(after.TotalAlloc-before.TotalAlloc) / float64(perRun)}
	}
	var times, ratios, cpus, cpuRatios, allocs, bytes []float64
	for i := 0; b.Loop(); i++ {
		var r, w cost
		if i%2 == 0 {
			r, w = measure(raw), measure(wrapped)
		} else {
			w, r = measure(wrapped), measure(raw)
		}
		times = append(times, float64(w.time.Nanoseconds())/float64(perRun))
		ratios = append(ratios, w.time.Seconds()/r.time.Seconds())
		cpus = append(cpus, float64(w.cpu.Nanoseconds())/float64(perRun))
		cpuRatios = append(cpuRatios, w.cpu.Seconds()/r.cpu.Seconds())
		allocs = append(allocs, w.allocs-r.allocs)
		bytes = append(bytes, w.bytes-r.bytes)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(times), "quiclife-ns")
	b.ReportMetric(median(ratios), "time-ratio")
	if quictest.CPU() > 0 { // it is 0 if not known on this system
		b.ReportMetric(median(cpus), "quiclife-cpu-ns")
		b.ReportMetric(median(cpuRatios), "cpu-ratio")
	}
	b.ReportMetric(median(allocs), "more-allocs")
	b.ReportMetric(median(bytes), "more-B")
}

func median(xs []float64) float64 {
	slices.Sort(xs)
	return xs[len(xs)/2]
}

// BenchmarkWrite writes to one stream over loopback. The peer is plain quic-go
// and reads everything. time-ratio is quiclife's time divided by quic-go's.
func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 4 << 10, 32 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			rc, rs := quictest.Loopback(b, nil, nil)
			c := quiclife.Wrap(rc, nil)
			count := min(64<<20, size*200_000) / size
			p := make([]byte, size)
			run := func(open func() io.WriteCloser) func() {
				return func() {
					done := make(chan error)
					go func() {
						in, err := rs.AcceptStream(context.Background())
						if err == nil {
							buf := make([]byte, 256<<10)
							for err == nil {
								_, err = in.Read(buf)
							}
							in.Close()
						}
						done <- err
					}()
					str := open()
					for range count {
						if _, err := str.Write(p); err != nil {
							b.Fatal(err)
						}
					}
					str.Close()
					require.Equal(b, io.EOF, <-done)
				}
			}
			pairs(b, count,
				run(func() io.WriteCloser {
					str, err := rc.OpenStreamSync(context.Background())
					require.NoError(b, err)
					b.Cleanup(func() { str.CancelRead(0) })
					return str
				}),
				run(func() io.WriteCloser {
					str, err := c.OpenStreamSync(context.Background())
					require.NoError(b, err)
					b.Cleanup(str.Release)
					return str
				}))
		})
	}
}

// BenchmarkCycle opens a stream, sends a request, reads the answer to EOF and
// closes the stream. It does so for one stream after another, with both ends
// plain or both ends wrapped.
func BenchmarkCycle(b *testing.B) { benchmarkCycle(b, 2000, 1, 1) }

// BenchmarkCycleParallel is BenchmarkCycle with 64 streams at a time on one
// connection.
func BenchmarkCycleParallel(b *testing.B) { benchmarkCycle(b, 20_000, 1, 64) }

// BenchmarkContention is BenchmarkCycle with more and more goroutines on one
// connection, which share the locks of the connection, and with 64 connections,
// which share those of the Guard.
func BenchmarkContention(b *testing.B) {
	for _, goroutines := range []int{1, 8, 64, 512} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) { benchmarkCycle(b, 8000, 1, goroutines) })
	}
	b.Run("conns=64", func(b *testing.B) { benchmarkCycle(b, 8000, 64, 1) })
}

// benchmarkCycle makes requests over conns connections, each with the same
// number of goroutines at either end. No open waits for a slot.
func benchmarkCycle(b *testing.B, cycles, conns, goroutines int) {
	conf := &quic.Config{MaxIncomingStreams: 1000}
	var raw, wrapped []func() error // what each goroutine of a client does
	perGoroutine := cycles / (conns * goroutines)
	for range conns {
		rc, rs := quictest.Loopback(b, conf, conf)
		wc, ws := quictest.Loopback(b, conf, conf)
		c, s := quiclife.Wrap(wc, conf), quiclife.Wrap(ws, conf)
		for range goroutines {
			go serve(rs.AcceptStream)
			go serve(s.AcceptStream)
			raw = append(raw, func() error { return request(perGoroutine, rc.OpenStreamSync) })
			wrapped = append(wrapped, func() error { return request(perGoroutine, c.OpenStreamSync) })
		}
	}
	pairs(b, perGoroutine*len(raw), func() { sideBySide(b, raw) }, func() { sideBySide(b, wrapped) })
}

func sideBySide(b *testing.B, fs []func() error) {
	errs := make(chan error, len(fs))
	for _, f := range fs {
		go func() { errs <- f() }()
	}
	for range fs {
		if err := <-errs; err != nil {
			b.Fatal(err)
		}
	}
}

// serve echoes each request.
func serve[S io.ReadWriteCloser](accept func(context.Context) (S, error)) {
	buf := make([]byte, 1000)
	for {
		str, err := accept(context.Background())
		if err != nil {
			return
		}
		n, err := io.ReadFull(str, buf)
		if err == io.ErrUnexpectedEOF {
			str.Write(buf[:n])
		}
		str.Close()
	}
}

func request[S io.ReadWriteCloser](cycles int, open func(context.Context) (S, error)) error {
	buf := make([]byte, 1000)
	for range cycles {
		str, err := open(context.Background())
		if err != nil {
			return err
		}
		str.Write(buf[:100])
		str.Close()
		if n, err := io.ReadFull(str, buf); err != io.ErrUnexpectedEOF || n != 100 {
			return fmt.Errorf("the answer has %d bytes instead of 100, and ended with %w", n, err)
		}
	}
	return nil
}

// BenchmarkOpenStreamHeap reports the bytes of heap that an open stream costs
// at both ends together: for plain quic-go, and how much more for quiclife.
func BenchmarkOpenStreamHeap(b *testing.B) {
	const streams = 5000
	conf := &quic.Config{MaxIncomingStreams: 2 * streams}
	var plain, more []float64
	for b.Loop() {
		rc, rs := quictest.Loopback(b, conf, conf)
		c, s := quiclife.Wrap(rc, conf), quiclife.Wrap(rs, conf)
		p := heapOf(b, rc.OpenStream, rs.AcceptStream, streams)
		w := heapOf(b, c.OpenStream, s.AcceptStream, streams)
		plain = append(plain, p)
		more = append(more, w-p)
		rc.CloseWithError(0, "")
		rs.CloseWithError(0, "")
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(plain), "plain-B")
	b.ReportMetric(median(more), "more-B")
}

func heapOf[S io.ReadWriteCloser](b *testing.B, open func() (S, error), accept func(context.Context) (S, error), streams int) float64 {
	held := make([]S, 0, 2*streams)
	before := quictest.HeapAlloc()
	for range streams {
		str, err := open()
		require.NoError(b, err)
		held = append(held, str)
	}
	_, err := held[streams-1].Write([]byte("x")) // makes all of them known to the peer
	require.NoError(b, err)
	for range streams {
		str, err := accept(context.Background())
		require.NoError(b, err)
		held = append(held, str)
	}
	after := quictest.HeapAlloc()
	runtime.KeepAlive(held)
	return (float64(after) - float64(before)) / float64(streams)
}

// BenchmarkManyOpen opens and ends a stream while 10 or 50,000 others are open.
// time-ratio is the time with 50,000 divided by that with 10. The work of the
// garbage collector grows with the heap, for quic-go too.
func BenchmarkManyOpen(b *testing.B) {
	b.Run("quiclife", func(b *testing.B) {
		benchmarkManyOpen(b, quiclife.Wrap, (*quiclife.Conn).OpenStream, (*quiclife.Stream).Release)
	})
	b.Run("quic-go", func(b *testing.B) {
		same := func(c *quic.Conn, _ *quic.Config) *quic.Conn { return c }
		benchmarkManyOpen(b, same, (*quic.Conn).OpenStream, func(s *quic.Stream) {
			s.CancelWrite(0)
			s.CancelRead(0)
		})
	})
}

func benchmarkManyOpen[C, S any](b *testing.B, wrap func(*quic.Conn, *quic.Config) C, open func(C) (S, error), end func(S)) {
	const ops = 20_000
	openAndEnd := func(others int) func() {
		conf := &quic.Config{MaxIncomingStreams: 1 << 40}
		rc, _ := quictest.Loopback(b, conf, conf)
		c := wrap(rc, conf)
		held := make([]S, others)
		for i := range held {
			var err error
			held[i], err = open(c)
			require.NoError(b, err)
		}
		b.Cleanup(func() { runtime.KeepAlive(held) })
		return func() {
			for range ops {
				str, err := open(c)
				if err != nil {
					b.Fatal(err)
				}
				end(str)
			}
		}
	}
	pairs(b, ops, openAndEnd(10), openAndEnd(50_000))
}

// BenchmarkCaptureStacks opens and ends a stream without and with
// CaptureStacks.
func BenchmarkCaptureStacks(b *testing.B) {
	const ops = 20_000
	openAndEnd := func(g *quiclife.Guard) func() {
		conf := &quic.Config{MaxIncomingStreams: 1 << 40}
		rc, _ := quictest.Loopback(b, conf, conf)
		c := g.Wrap(rc, conf)
		return func() {
			for range ops {
				str, err := c.OpenStream()
				if err != nil {
					b.Fatal(err)
				}
				str.Release()
			}
		}
	}
	pairs(b, ops, openAndEnd(&quiclife.Guard{}), openAndEnd(&quiclife.Guard{CaptureStacks: true}))
}
