package quiclife_test

import (
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/heap"
	"github.com/quiclife/quiclife/internal/quictest"
)

// Above MaxHeap this side can begin nothing new, and what runs goes on.
func TestMaxHeapRefusesWhatIsNew(t *testing.T) {
	const limit = 1 << 40 // a collection that is asked for would find less
	var live atomic.Int64
	defer quiclife.SetLiveHeap(live.Load)()
	bubble(t, func(t *testing.T) {
		site := newSite(t, &quiclife.Transport{Guard: &quiclife.Guard{MaxHeap: limit, Logger: slog.New(slog.DiscardHandler)}}, nil)
		e := site.connect(t)
		client, server := e.stream(t)

		live.Store(limit + 1)
		settled() // the gauge is read every 100 ms
		site.requireRefused(t)
		_, err := e.server.OpenStream()
		refused := requireLimitError(t, err)
		require.Equal(t, quiclife.LimitError{Scope: quiclife.LimitHeap, Open: limit + 1, Limit: limit}, *refused)
		write(t, server, "still running")
		expect(t, client, "still running")
		e.stream(t) // the peer may

		live.Store(limit)
		settled()
		_, err = e.server.OpenStream()
		require.NoError(t, err)
		_, err = site.dial(t.Context())
		require.NoError(t, err)
	})
}

// A refusal asks for a collection, so that garbage alone does not keep
// everybody out.
func TestMaxHeapAsksForCollections(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	ln, err := quiclife.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	defer ln.Close()
	runtime.GC()
	guard := &quiclife.Guard{MaxHeap: heap.Live() + 64<<20, Logger: slog.New(slog.DiscardHandler)}
	dial := func() error {
		c, err := guard.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
		if err == nil {
			c.CloseWithError(0, "")
		}
		return err
	}
	quiclife.ForgetHeapTries() // of other tests
	ballast := make([]byte, 128<<20)
	runtime.GC()
	eventually(t, func() bool { return dial() != nil }, "the gauge is read every 100 ms")
	requireLimitError(t, dial())
	runtime.KeepAlive(ballast)
	eventually(t, func() bool { return dial() == nil }, "no collection was asked for")
}

func TestConnsListsWhatHasNotEnded(t *testing.T) {
	require.Empty(t, conns(&quiclife.Guard{}))
	guard := &quiclife.Guard{}
	setup{guard: guard}.in(t, func(t *testing.T, e ends) {
		require.ElementsMatch(t, []*quiclife.Conn{e.client, e.server}, conns(guard))
		for c := range guard.Conns() { // the loop may be left at any time, and may end connections
			require.NoError(t, c.CloseWithError(0, ""))
			break
		}
		settled()
		require.Empty(t, conns(guard))
	})
}

func TestGuardWithoutConnectionsIsForgotten(t *testing.T) {
	var guard weak.Pointer[quiclife.Guard]
	func() {
		g := &quiclife.Guard{}
		guard = weak.Make(g)
		e := setup{guard: g}.onLoopback(t)
		e.client.CloseWithError(0, "")
		e.server.CloseWithError(0, "")
	}()
	eventually(t, func() bool { runtime.GC(); return guard.Value() == nil }, "something holds the Guard")
}
