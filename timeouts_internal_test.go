package quiclife

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestEndedConnSetsNoTimer: it would hold the connection until it fires.
func TestEndedConnSetsNoTimer(t *testing.T) {
	c := endedConn()
	c.mayStall()
	c.watchSoon(time.Second)
	require.Nil(t, c.timer)
}
