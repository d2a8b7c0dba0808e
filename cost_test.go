package quiclife_test

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

func cpuTime() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// QUICLIFE_COST=20s go test -v -run TestCostAtRest .
func TestCostAtRest(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("QUICLIFE_COST"))
	if err != nil {
		t.Skip("set QUICLIFE_COST to a duration")
	}
	measure := func(name string) {
		time.Sleep(3 * time.Second)
		var m, m2 runtime.MemStats
		runtime.ReadMemStats(&m)
		c, s := cpuTime(), time.Now()
		time.Sleep(d)
		runtime.ReadMemStats(&m2)
		t.Logf("%s: %.2f%% of a processor, %d collections, %d forced", name, 100*float64(cpuTime()-c)/float64(time.Since(s)), m2.NumGC-m.NumGC, m2.NumForcedGC-m.NumForcedGC)
	}
	long := &quic.Config{MaxIncomingStreams: 1 << 20, MaxIdleTimeout: time.Hour}
	t.Run("long polls", func(t *testing.T) {
		e := setup{guard: &quiclife.Guard{HalfCloseTimeout: -1}, clientConf: long, serverConf: long}.onLoopback(t)
		var held []any
		var mu sync.Mutex
		go func() {
			for {
				s, err := e.server.AcceptStream(context.Background())
				if err != nil {
					return
				}
				mu.Lock()
				held = append(held, s)
				mu.Unlock()
				s.Read(make([]byte, 1)) // not the FIN
			}
		}()
		for range 10000 {
			s, err := e.client.OpenStreamSync(t.Context())
			require.NoError(t, err)
			s.Write([]byte("x"))
			held = append(held, s)
			go s.Read(make([]byte, 1))
		}
		measure("10,000 long polls")
		e.client.CloseWithError(0, "")
		runtime.KeepAlive(held)
	})
	t.Run("plain", func(t *testing.T) {
		e := setup{guard: &quiclife.Guard{HalfCloseTimeout: -1}, clientConf: long, serverConf: long}.onLoopback(t)
		var held []any
		go func() {
			for {
				s, err := e.rawServer.AcceptStream(context.Background())
				if err != nil {
					return
				}
				held = append(held, s)
				s.Read(make([]byte, 1)) // not the FIN
			}
		}()
		for range 10000 {
			s, err := e.rawClient.OpenStreamSync(t.Context())
			require.NoError(t, err)
			s.Write([]byte("x"))
			go s.Read(make([]byte, 1))
		}
		measure("10,000 long polls, plain")
		e.client.CloseWithError(0, "")
		runtime.KeepAlive(held)
	})
	for _, gib := range []int{0, 1} {
		t.Run("full", func(t *testing.T) {
			defer debug.SetGCPercent(debug.SetGCPercent(100))
			var ballast []*[1 << 10]byte
			for range gib << 20 {
				ballast = append(ballast, new([1 << 10]byte))
			}
			runtime.GC()
			quiclife.ForgetCollections()
			e := setup{guard: &quiclife.Guard{HalfCloseTimeout: -1}, clientConf: long, serverConf: &quic.Config{MaxIdleTimeout: time.Hour}}.onLoopback(t)
			var held []any
			for range 100 {
				c, s := e.stream(t)
				held = append(held, c, s)
			}
			measure("a peer keeps all slots open")
			runtime.KeepAlive(held)
			held = nil
			go func() {
				for {
					s, err := e.server.AcceptStream(context.Background())
					if err != nil {
						return
					}
					go func() {
						s.Read(make([]byte, 10))
						s.Write([]byte("answer"))
					}()
				}
			}()
			n := 0
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					s, err := e.client.OpenStreamSync(e.client.Context())
					if err != nil {
						return
					}
					s.Write([]byte("request"))
					s.Release()
					n++
				}
			}()
			start := time.Now()
			measure("a server drops every stream")
			e.client.CloseWithError(0, "")
			<-done
			t.Logf("%d GiB: %.0f streams a second", gib, float64(n)/time.Since(start).Seconds())
			runtime.KeepAlive(held)
			runtime.KeepAlive(ballast)
		})
	}
}
