package quiclife

import (
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
)

// TestAdmissionEndsOnce: after its end an admission counts no more, and one
// that was accepted cannot become forgotten.
func TestAdmissionEndsOnce(t *testing.T) {
	for _, c := range []struct {
		name                            string
		stages                          []stage
		counted, handshakes, unverified int64
	}{
		{"shaking hands", nil, 1, 1, 1},
		{"accepted", []stage{accepted}, 1, 0, 0},
		{"accepted, then forgotten", []stage{accepted, forgotten}, 1, 0, 0},
		{"forgotten", []stage{forgotten}, 0, 0, 0},
		{"forgotten, then accepted", []stage{forgotten, accepted}, 1, 0, 0},
		{"gone", []stage{gone}, 0, 0, 0},
		{"accepted, then gone", []stage{accepted, gone}, 0, 0, 0},
		{"gone, then accepted", []stage{gone, accepted}, 0, 0, 0},
		{"gone, then gone", []stage{gone, gone}, 0, 0, 0},
	} {
		g := &Guard{}
		a := &admission{guard: g}
		require.NoError(t, g.admit(a))
		for _, next := range c.stages {
			a.enter(next)
		}
		require.Equal(t, [3]int64{c.counted, c.handshakes, c.unverified}, [3]int64{g.counted, g.handshakes, g.unverified},
			"%s: counted, not accepted, without proof of their address", c.name)
	}
}

// TestUnwrapOfEarlyListenerIsNoted: as with a Listener, connections may be
// accepted unseen after it.
func TestUnwrapOfEarlyListenerIsNoted(t *testing.T) {
	l := &EarlyListener{raw: &quic.EarlyListener{}, l: &listener{gate: &gate{}}}
	require.Same(t, l.raw, l.Unwrap())
	require.True(t, l.l.gate.unwrapped.Load(), "connections may be accepted unseen")
}

// TestConnsOfAnUnwrappedTransportAreUnseen: we do not see what quic-go's own
// listener accepts.
func TestConnsOfAnUnwrappedTransportAreUnseen(t *testing.T) {
	ctx, err := (&Transport{Guard: &Guard{}}).Unwrap().ConnContext(t.Context(), &quic.ClientInfo{})
	require.NoError(t, err)
	a, ok := ctx.Value(admissionKey{}).(*admission)
	require.True(t, ok, "the context has no admission")
	require.True(t, a.unseen, "it counts as one that waits to be accepted")
}
