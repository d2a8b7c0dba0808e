package quiclife

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
)

// TestClosedLocally: the errors for which this side has sent a
// CONNECTION_CLOSE.
func TestClosedLocally(t *testing.T) {
	for _, c := range []struct {
		err   error
		local bool
	}{
		{&ApplicationError{}, true},
		{&ApplicationError{Remote: true}, false},
		{&TransportError{}, true},
		{&TransportError{Remote: true}, false},
		{&IdleTimeoutError{}, false},
		{errors.New("another"), false},
	} {
		require.Equal(t, c.local, closedLocally(c.err), "%#v", c.err)
	}
}

// TestCloseWithErrorReturnsWhenTheCountsAreDown: even if the AfterFunc of the
// connection's context has not run yet.
func TestCloseWithErrorReturnsWhenTheCountsAreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := restingConn(t)
		c.raw, _ = quictest.Net{}.Pair(t, nil, nil)
		c.collector = &collector{}
		endedWith(c, &ApplicationError{})
		g := c.guard
		g.countConn()
		g.add(c)
		require.NoError(t, c.CloseWithError(0, ""))
		require.Zero(t, g.counted, "places that are taken")
		require.Empty(t, g.conns, "members of the group")
	})
}
