package quiclife_test

import (
	"runtime"
	"testing"
	"weak"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// TestStreamsStayListedInOrderWhenOneGoes: whichever of the three goes.
func TestStreamsStayListedInOrderWhenOneGoes(t *testing.T) {
	t.Parallel()
	for gone := range 3 {
		setup{}.in(t, func(t *testing.T, e ends) {
			var all []*quiclife.Stream
			var want []quiclife.StreamID
			open := func() quiclife.StreamID {
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				all = append(all, s)
				return s.StreamID()
			}
			for i := range 3 {
				if id := open(); i != gone {
					want = append(want, id)
				}
			}
			all[gone].Release()
			list := func() (ids []quiclife.StreamID) {
				for info := range e.client.Streams() {
					ids = append(ids, info.ID)
				}
				return ids
			}
			require.Equal(t, want, list(), "without the one at %d", gone)
			want = append(want, open())
			require.Equal(t, want, list(), "and with a new one")
			for _, s := range all {
				s.Release()
			}
			require.Empty(t, list(), "after all have ended")
		})
	}
}

// TestPeakStaysWhenStreamsEnd: and Peak counts no stream twice.
func TestPeakStaysWhenStreamsEnd(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		for _, n := range []int{2, 1} {
			var all []*quiclife.Stream
			for range n {
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				all = append(all, s)
			}
			for _, s := range all {
				s.Release()
			}
			require.EqualValues(t, 2, e.client.Stats().Outgoing.Peak, "after %d at a time", n)
		}
	})
}

// TestEndedStreamHoldsNoOther: a stream that was taken out of the list does not
// keep later streams alive.
func TestEndedStreamHoldsNoOther(t *testing.T) {
	e := setup{}.onLoopback(t)
	first, err := e.client.OpenStream()
	require.NoError(t, err)
	second, err := e.client.OpenStream()
	require.NoError(t, err)
	first.Release()
	raw := weak.Make(quiclife.RawStream(second))
	second.Release()
	second = nil
	eventually(t, func() bool { runtime.GC(); return raw.Value() == nil }, "the second stream is still held")
	runtime.KeepAlive(first)
	e.client.CloseWithError(0, "")
}

// TestStatsTellTheLimitsInForce: they follow from the Config as in quic-go.
func TestStatsTellTheLimitsInForce(t *testing.T) {
	t.Parallel()
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
