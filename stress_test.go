package quiclife_test

import (
	"context"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// TestStress calls everything from many goroutines on many streams and
// connections over loopback UDP, in real time, with garbage collections and
// connections closed in the middle. QUICLIFE_STRESS is how long, if not 5 s.
func TestStress(t *testing.T) {
	duration := 5 * time.Second
	if s := os.Getenv("QUICLIFE_STRESS"); s != "" {
		var err error
		duration, err = time.ParseDuration(s)
		require.NoError(t, err)
	} else if testing.Short() {
		duration = time.Second
	}
	end := time.Now().Add(duration)
	var streams, conns atomic.Int64
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(worker)))
			for time.Now().Before(end) && !t.Failed() {
				streams.Add(stressConn(t, r.Uint64()))
				conns.Add(1)
			}
		})
	}
	wg.Wait()
	t.Logf("%d streams on %d connections", streams.Load(), conns.Load())
}

// stressConn uses one connection for a while, then lets it rest and looks at
// what is left, or closes it in the middle.
func stressConn(t *testing.T, seed uint64) (streams int64) {
	r := rand.New(rand.NewPCG(seed, 0))
	conf := &quic.Config{
		MaxIncomingStreams:         int64(1 + r.IntN(20)),
		MaxIncomingUniStreams:      int64(1 + r.IntN(20)),
		InitialStreamReceiveWindow: uint64(1000 + r.IntN(100_000)),
		RequireStreamCreditRelease: r.IntN(2) == 0,
	}
	guard := &quiclife.Guard{
		MaxOutgoingStreams: int64(r.IntN(10)),
		HalfCloseTimeout:   50 * time.Millisecond,
		IdleTimeout:        100 * time.Millisecond,
		AbandonGrace:       5 * time.Millisecond,
	}
	rc, rs, closeAll := quictest.Dial(t, conf, conf)
	defer closeAll()
	e := setup{guard: guard, clientConf: conf, serverConf: conf}.wrap(rc, rs)
	cutShort := r.IntN(3) == 0

	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	use := func(s *quiclife.Stream, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		most, little := r.IntN(50_000), r.IntN(500)
		calls := []func(){
			func() { s.Write(large[:most]) },
			func() { s.Write(large[:little]) },
			func() { s.Read(make([]byte, 100_000)) },
			func() { s.Peek(make([]byte, 10)) },
			func() { s.TryWriteAll(large[:100]) },
			func() { s.Close() },
			func() { s.CancelRead(1) },
			func() { s.CancelWrite(1) },
			func() { s.Release() },
			func() { s.Reset(2) },
			func() { s.Info() },
			func() { s.SetDeadline(time.Now().Add(time.Millisecond)) },
			func() { s.SetReceiveFinalSizeCallback(func(int64) {}) },
		}
		var both sync.WaitGroup
		for range 1 + r.IntN(2) {
			n := []int{r.IntN(len(calls)), r.IntN(len(calls)), r.IntN(len(calls))}
			both.Go(func() {
				for _, call := range n {
					calls[call]()
				}
			})
		}
		both.Wait()
		// and then it is dropped
	}
	for _, c := range []*quiclife.Conn{e.client, e.server} {
		for i := range 4 {
			seed := r.Uint64()
			wg.Go(func() {
				for n := range uint64(1 << 40) {
					s, err := c.OpenStreamSync(ctx)
					if err != nil {
						return
					}
					atomic.AddInt64(&streams, 1)
					use(s, seed+n)
					if i == 0 {
						c.Stats()
						for info := range c.Streams() {
							_ = info.String()
						}
					}
				}
			})
			wg.Go(func() {
				for n := range uint64(1 << 40) {
					s, err := c.AcceptStream(ctx)
					if err != nil {
						return
					}
					use(s, seed-n)
				}
			})
		}
		wg.Go(func() {
			for {
				s, err := c.OpenUniStreamSync(ctx)
				if err != nil {
					return
				}
				s.Write(large[:100])
				if r, err := c.AcceptUniStream(ctx); err == nil {
					r.Read(make([]byte, 100))
				}
				s.Close()
			}
		})
	}
	if cutShort {
		time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
		e.client.CloseWithError(1, "cut short")
		wg.Wait()
		<-e.server.Context().Done()
		require.Zero(t, e.client.Stats().Open())
		require.Zero(t, e.server.Stats().Open())
		return streams
	}
	wg.Wait()
	// Streams that nobody accepted hold their slots: accept and end them.
	ctx, cancel = context.WithCancel(context.Background())
	for _, c := range []*quiclife.Conn{e.client, e.server} {
		wg.Go(func() { c.Serve(ctx, quiclife.Handler{}) })
	}
	left := func() int { return quictest.Held(e.rawClient) + quictest.Held(e.rawServer) }
	for deadline := time.Now().Add(20 * time.Second); left() > 0; time.Sleep(5 * time.Millisecond) {
		runtime.GC()
		if time.Now().After(deadline) {
			for _, c := range []*quiclife.Conn{e.client, e.server} {
				t.Errorf("seed %d: %+v", seed, c.Stats())
				for info := range c.Streams() {
					t.Error(info)
				}
			}
			break
		}
	}
	cancel()
	wg.Wait()
	if !t.Failed() {
		e.requireNothingLeft(t)
	}
	return streams
}
