// Package stress_test calls everything at once, for as long as you like.
package stress_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestStress calls everything from many goroutines, on many streams and
// connections over loopback UDP, in real time. Garbage collections run, and
// connections are closed in the middle. In the end nothing is left of any stream.
// It takes 3 s, or 1 s with -short, or as long as QUICLIFE_STRESS says.
func TestStress(t *testing.T) {
	duration := 3 * time.Second
	if s := os.Getenv("QUICLIFE_STRESS"); s != "" {
		var err error
		duration, err = time.ParseDuration(s)
		require.NoError(t, err)
	} else if testing.Short() {
		duration = time.Second
	}
	end := time.Now().Add(duration)
	var streams, conns atomic.Int64
	t.Run("workers", func(t *testing.T) {
		for worker := range runtime.GOMAXPROCS(0) { // as many as run in parallel
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				for time.Now().Before(end) && !t.Failed() {
					streams.Add(stressConn(t, rand.Uint64()))
					conns.Add(1)
				}
			})
		}
	})
	t.Logf("%d streams on %d connections", streams.Load(), conns.Load())
}

// A stressed connection has both ends, and the number of streams they opened.
type stressed struct {
	client, server       *quiclife.Conn
	rawClient, rawServer *quic.Conn
	streams              atomic.Int64
}

// stressConn uses one connection for a while. Then it closes the connection in the
// middle, or lets it rest and checks that nothing is left.
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
		Logger:             slog.New(slog.DiscardHandler),
	}
	rawClient, rawServer, closeAll := quictest.Dial(t, conf, conf)
	defer closeAll()
	c := &stressed{client: guard.Wrap(rawClient, conf), server: guard.Wrap(rawServer, conf), rawClient: rawClient, rawServer: rawServer}
	cutShort := r.IntN(3) == 0

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for _, end := range []*quiclife.Conn{c.client, c.server} {
		for i := range 4 {
			seed := r.Uint64()
			wg.Go(func() { c.openAndUse(ctx, end, seed, i == 0) })
			wg.Go(func() { acceptAndUse(ctx, end, seed) })
		}
		wg.Go(func() { useUni(ctx, end) })
	}
	if cutShort {
		time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
		c.client.CloseWithError(1, "cut short")
		wg.Wait()
		<-c.server.Context().Done()
		require.Zero(t, c.client.Stats().Open(), "seed %d: open streams of the client, which was closed", seed)
		require.Zero(t, c.server.Stats().Open(), "seed %d: open streams of the server, whose peer has closed", seed)
	} else {
		wg.Wait()
		c.requireNothingLeft(t, seed)
	}
	return c.streams.Load()
}

var data [50_000]byte

// use makes random calls on s, and then drops s.
func use(s *quiclife.Stream, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	most, little := r.IntN(len(data)), r.IntN(500)
	calls := []func(){
		func() { s.Write(data[:most]) },
		func() { s.Write(data[:little]) },
		func() { s.Read(make([]byte, 100_000)) },
		func() { s.Peek(make([]byte, 10)) },
		func() { s.TryWriteAll(data[:100]) },
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
}

func (c *stressed) openAndUse(ctx context.Context, end *quiclife.Conn, seed uint64, look bool) {
	for ; ; seed++ {
		s, err := end.OpenStreamSync(ctx)
		if err != nil {
			return
		}
		c.streams.Add(1)
		use(s, seed)
		if look {
			end.Stats()
			for info := range end.Streams() {
				_ = info.String()
			}
		}
	}
}

func acceptAndUse(ctx context.Context, end *quiclife.Conn, seed uint64) {
	for ; ; seed-- {
		s, err := end.AcceptStream(ctx)
		if err != nil {
			return
		}
		use(s, seed)
	}
}

func useUni(ctx context.Context, end *quiclife.Conn) {
	for {
		s, err := end.OpenUniStreamSync(ctx)
		if err != nil {
			return
		}
		s.Write(data[:100])
		if r, err := end.AcceptUniStream(ctx); err == nil {
			r.Read(make([]byte, 100))
		}
		s.Close()
	}
}

// requireNothingLeft requires that both ends are open, and soon hold no stream.
func (c *stressed) requireNothingLeft(t *testing.T, seed uint64) {
	t.Helper()
	// Streams that nobody has accepted hold their slots. Accept and end them.
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, end := range []*quiclife.Conn{c.client, c.server} {
		wg.Go(func() { end.Serve(ctx, quiclife.Handlers{}) })
	}
	held := func() int { return quictest.Held(c.rawClient) + quictest.Held(c.rawServer) }
	for deadline := time.Now().Add(20 * time.Second); held() > 0 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		runtime.GC()
	}
	cancel()
	wg.Wait()
	for name, end := range map[string]*quiclife.Conn{"client": c.client, "server": c.server} {
		stats := end.Stats()
		for info := range end.Streams() {
			t.Errorf("seed %d: the %s holds %v", seed, name, info)
		}
		require.NoError(t, context.Cause(end.Context()), "seed %d: the %s has ended", seed, name)
		require.Zero(t, stats.Open(), "seed %d: streams of the %s", seed, name)
		for _, s := range []quiclife.StreamStats{stats.Outgoing, stats.OutgoingUni, stats.Incoming, stats.IncomingUni} {
			require.Equal(t, s.Opened, s.Open+s.Finished+s.Released+s.Reset+s.Reclaimed+s.Detached, "seed %d: the counts of the %s do not add up: %+v", seed, name, s)
		}
	}
	require.Zero(t, held(), "seed %d: streams that quic-go holds", seed)
}
