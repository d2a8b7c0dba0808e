//go:build unix

package ledger_test

import (
	"context"
	"io"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
	"github.com/quiclife/quiclife/ledger"
)

// The benchmarks run the same load on three connections. Both ends have no
// Tracer, a Tracer that does nothing, or a ledger. One iteration runs all three,
// in rotating order. The results are medians over the iterations, so set their
// number: -benchtime 9x. The cost is CPU time, because other processes disturb it
// less than elapsed time.

// A nothing is a trace that does nothing. It shows what quic-go's own part costs.
type nothing struct{}

func (nothing) AddProducer() qlogwriter.Recorder { return nothing{} }
func (nothing) RecordEvent(qlogwriter.Event)     {}
func (nothing) Close() error                     { return nil }

var tracers = []func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace{
	nil,
	func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace { return nothing{} },
	ledger.New(ledger.Options{}).Tracer(nil),
}

// triples measures run on one connection for each of the tracers.
func triples(b *testing.B, perRun int, serve func(*quic.Conn), run func(*testing.B, *quic.Conn)) {
	var clients []*quic.Conn
	for _, tracer := range tracers {
		conf := &quic.Config{Tracer: tracer, MaxIdleTimeout: time.Hour}
		client, server := quictest.Loopback(b, conf, conf)
		go serve(server)
		clients = append(clients, client)
		run(b, client)
	}
	var cpu, allocs [3][]float64
	for i := 0; b.Loop(); i++ {
		for j := range clients {
			j := (i + j) % len(clients)
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := cpuTime()
			run(b, clients[j])
			used := cpuTime() - start
			runtime.ReadMemStats(&after)
			cpu[j] = append(cpu[j], float64(used)/float64(perRun))
			allocs[j] = append(allocs[j], float64(after.Mallocs-before.Mallocs)/float64(perRun))
		}
	}
	ratio := func(a, b []float64) float64 {
		var all []float64
		for i := range a {
			all = append(all, a[i]/b[i])
		}
		return median(all)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ratio(cpu[1], cpu[0]), "nothing/untraced")
	b.ReportMetric(ratio(cpu[2], cpu[1]), "ledger/nothing")
	b.ReportMetric(ratio(cpu[2], cpu[0]), "ledger/untraced")
	b.ReportMetric(median(cpu[0])/1000, "untraced-µs")
	b.ReportMetric(median(allocs[0]), "untraced-allocs")
	b.ReportMetric(median(allocs[1])-median(allocs[0]), "nothing-more-allocs")
	b.ReportMetric(median(allocs[2])-median(allocs[1]), "ledger-more-allocs")
}

func median(xs []float64) float64 {
	xs = slices.Sorted(slices.Values(xs))
	return xs[len(xs)/2]
}

// cpuTime returns the CPU time that this process has used so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRequests makes requests one after the other, and reads the answers.
func BenchmarkRequests(b *testing.B) {
	const requests = 2000
	triples(b, requests,
		func(c *quic.Conn) {
			for {
				s, err := c.AcceptStream(context.Background())
				if err != nil {
					return
				}
				io.Copy(s, s)
				s.Close()
			}
		},
		func(b *testing.B, c *quic.Conn) {
			p := make([]byte, 100)
			for range requests {
				s, err := c.OpenStreamSync(context.Background())
				require.NoError(b, err)
				s.Write(p)
				s.Close()
				_, err = io.ReadAll(s)
				require.NoError(b, err)
			}
		})
}

// BenchmarkRequestsAtOnce makes 64 requests at a time, and reads the answers.
func BenchmarkRequestsAtOnce(b *testing.B) {
	const requests, atOnce = 6400, 64
	triples(b, requests,
		func(c *quic.Conn) {
			for {
				s, err := c.AcceptStream(context.Background())
				if err != nil {
					return
				}
				go func() {
					io.Copy(s, s)
					s.Close()
				}()
			}
		},
		func(b *testing.B, c *quic.Conn) {
			done := make(chan error, atOnce)
			for range atOnce {
				go func() {
					p := make([]byte, 100)
					for range requests / atOnce {
						s, err := c.OpenStreamSync(context.Background())
						if err != nil {
							done <- err
							return
						}
						s.Write(p)
						s.Close()
						if _, err = io.ReadAll(s); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for range atOnce {
				require.NoError(b, <-done)
			}
		})
}

// BenchmarkBulk sends 64 MiB on one stream. An operation is one MiB.
func BenchmarkBulk(b *testing.B) {
	const mib = 64
	triples(b, mib,
		func(c *quic.Conn) {
			buf := make([]byte, 256<<10)
			for {
				s, err := c.AcceptStream(context.Background())
				if err != nil {
					return
				}
				for err == nil {
					_, err = s.Read(buf)
				}
				s.Close()
			}
		},
		func(b *testing.B, c *quic.Conn) {
			s, err := c.OpenStreamSync(context.Background())
			require.NoError(b, err)
			p := make([]byte, 1<<20)
			for range mib {
				_, err := s.Write(p)
				require.NoError(b, err)
			}
			s.Close()
			_, err = io.ReadAll(s) // the other end has read all
			require.NoError(b, err)
		})
}
