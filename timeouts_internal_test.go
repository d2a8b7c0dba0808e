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
	st := &streamState{conn: c}
	st.startWatch(&st.idle, time.Hour, 0)
	require.Nil(t, c.timer)
}
