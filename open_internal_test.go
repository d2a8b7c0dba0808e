package quiclife

import (
	"context"
	"testing"

	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
)

// endedWith makes the connection of c look ended with err.
func endedWith(c *Conn, err error) {
	ctx, end := context.WithCancelCause(context.Background())
	end(err)
	c.lifetime = ctx
}

// TestOpenThatWaitsForASlotEndsWithTheConnection: even before the slots are
// free.
func TestOpenThatWaitsForASlotEndsWithTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := restingConn(t)
		c.raw, _ = quictest.Net{}.Pair(t, nil, nil)
		c.kinds[outgoing].limit(1)
		require.True(t, c.takeSlot(outgoing))
		ended := &IdleTimeoutError{}
		endedWith(c, ended)
		require.Same(t, ended, c.awaitSlot(t.Context(), outgoing))
		require.Zero(t, c.kinds[outgoing].slots.Waiting())
	})
}
