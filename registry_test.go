package quiclife_test

import (
	"runtime"
	"testing"
	"weak"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// Any of three may go, the others stay listed, in order.
func TestEdgeRegistry(t *testing.T) {
	for gone := range 3 {
		setup{}.in(t, func(t *testing.T, e ends) {
			var all []*quiclife.Stream
			var want []quiclife.StreamID
			for i := range 3 {
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				all = append(all, s)
				if i != gone {
					want = append(want, s.StreamID())
				}
			}
			all[gone].Release()
			list := func() (ids []quiclife.StreamID) {
				for info := range e.client.Streams() {
					ids = append(ids, info.ID)
				}
				return
			}
			require.Equal(t, want, list(), "without the one at %d", gone)
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			require.Equal(t, append(want, s.StreamID()), list())
			for _, s := range append(all, s) {
				s.Release()
			}
			require.Empty(t, list())
			require.EqualValues(t, 3, e.client.Stats().Outgoing.Peak) // with none open
		})
	}
}

func TestEdgePeak(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		a, _ := e.client.OpenStream()
		b, _ := e.client.OpenStream()
		a.Release()
		b.Release()
		a, _ = e.client.OpenStream()
		a.Release()
		require.EqualValues(t, 2, e.client.Stats().Outgoing.Peak)
	})
}

// An ended stream that the program still holds holds no others.
func TestEdgeChain(t *testing.T) {
	e := setup{}.onLoopback(t)
	first, err := e.client.OpenStream()
	require.NoError(t, err)
	second, err := e.client.OpenStream()
	require.NoError(t, err)
	first.Release()
	raw := weak.Make(quiclife.RawStream(second))
	second.Release()
	second = nil
	eventually(t, func() bool { runtime.GC(); return raw.Value() == nil })
	runtime.KeepAlive(first)
	e.client.CloseWithError(0, "")
}

// TestLimitsOfStats: what the counts say about limits.
func TestLimitsOfStats(t *testing.T) {
	for _, c := range []struct{ configured, effective int64 }{{0, 100}, {7, 7}, {-1, 0}, {1 << 62, 1 << 60}} {
		guard := &quiclife.Guard{MaxOutgoingStreams: c.configured, MaxOutgoingUniStreams: c.configured}
		conf := &quic.Config{MaxIncomingStreams: c.configured, MaxIncomingUniStreams: c.configured}
		setup{guard: guard, clientConf: conf}.in(t, func(t *testing.T, e ends) {
			stats := e.client.Stats()
			require.Equal(t, c.effective, stats.Incoming.Limit)
			require.Equal(t, c.effective, stats.IncomingUni.Limit)
			require.Equal(t, max(c.configured, 0), stats.Outgoing.Limit)
			require.Equal(t, max(c.configured, 0), stats.OutgoingUni.Limit)
		})
	}
}
