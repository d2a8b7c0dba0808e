package quiclife

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCutOffEndsWhatItMay: both halves are aborted right before the
// connection's end. The exceptions are the receive half with NoStopSending,
// dropped control streams, and detached streams.
func TestCutOffEndsWhatItMay(t *testing.T) {
	for _, c := range []struct {
		name          string
		kind          kind
		noStopSending bool
		set           func(*streamState)
		calls         []string
		open          int64
	}{
		{"bidirectional", incoming, false, nil, []string{"CancelWrite", "CancelRead", "ReleaseStreamCredit"}, 0},
		{"outgoing", outgoing, false, nil, []string{"CancelWrite", "CancelRead"}, 0},
		{"held control stream", incomingUni, false, nil, []string{"CancelRead", "ReleaseStreamCredit"}, 0},
		{"dropped control stream", incomingUni, false, func(st *streamState) { st.dropped.Store(true) }, nil, 1},
		{"dropped, bidirectional", incoming, false, func(st *streamState) { st.dropped.Store(true) }, []string{"CancelWrite", "CancelRead", "ReleaseStreamCredit"}, 0},
		{"given away", incoming, false, func(st *streamState) { st.given = true }, nil, 1},
		{"NoStopSending, bidirectional", incoming, true, nil, []string{"CancelWrite"}, 1},
		{"NoStopSending, closed", incoming, true, func(st *streamState) { st.sendHalf = HalfFinished }, []string{"CancelWrite"}, 1},
		{"NoStopSending, to send", outgoingUni, true, nil, []string{"CancelWrite"}, 0},
		{"NoStopSending, to receive", incomingUni, true, nil, nil, 1},
		{"NoStopSending, given away", incoming, true, func(st *streamState) { st.given = true }, nil, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			conn := restingConn(t)
			conn.guard.NoStopSending = c.noStopSending
			conn.guard.HalfCloseTimeout = -1
			conn.sampler.wrote.Store(true) // so that no burst begins
			h := &calledHalf{}
			st := &streamState{conn: conn, kind: c.kind}
			if c.kind != incomingUni {
				st.raw, st.sendHalf = h, HalfOpen
			}
			if c.kind != outgoingUni {
				st.raw, st.receiveHalf = h, HalfOpen
			}
			st.finalSize.Store(sizeUnknown)
			conn.register(st)
			if c.set != nil {
				c.set(st)
			}
			before := st.sendHalf
			st.cutOff(1)
			require.Equal(t, c.calls, h.calls, c.name)
			require.Equal(t, c.open, conn.kinds[c.kind].stats.Open, "%s: open streams", c.name)
			if c.noStopSending && before == HalfOpen && !st.given {
				require.Equal(t, HalfAborted.String(), st.sendHalf.String(), "%s: the send half", c.name)
				require.NotEqual(t, halfEnding.String(), st.receiveHalf.String(), "%s: the receive half", c.name)
			}
		})
	}
}

// deadlined is a send half that records its deadline.
type deadlined struct {
	sender
	deadline []time.Time
}

func (d *deadlined) SetWriteDeadline(t time.Time) error {
	d.deadline = append(d.deadline, t)
	return nil
}

// TestDeadlineBesideCloseDoesNotHoldItUp: a Write that Close has interrupted
// must not block again.
func TestDeadlineBesideCloseDoesNotHoldItUp(t *testing.T) {
	for _, closing := range []bool{false, true} {
		d := &deadlined{}
		st := &streamState{conn: &Conn{}, raw: d, closing: closing}
		later := time.Now().Add(time.Hour)
		require.NoError(t, st.setWriteDeadline(later))
		want := []time.Time{later}
		if closing {
			want = append(want, longAgo)
		}
		require.Equal(t, want, d.deadline, "deadlines that were set, Close waits: %v", closing)
	}
}
