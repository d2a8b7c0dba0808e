package quiclife

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
)

// calledHalf is a half that records the calls that end it.
type calledHalf struct {
	sender
	calls []string
}

func (h *calledHalf) StreamID() quic.StreamID                          { return 0 }
func (h *calledHalf) Context() context.Context                         { return context.Background() }
func (h *calledHalf) CancelWrite(quic.StreamErrorCode)                 { h.called("CancelWrite") }
func (h *calledHalf) CancelRead(quic.StreamErrorCode)                  { h.called("CancelRead") }
func (h *calledHalf) ReleaseStreamCredit()                             { h.called("ReleaseStreamCredit") }
func (h *calledHalf) Read([]byte) (int, error)                         { panic("read") }
func (h *calledHalf) SetReadDeadline(time.Time) error                  { return nil }
func (h *calledHalf) SetReceiveFinalSizeCallback(callback func(int64)) {}
func (h *calledHalf) called(name string)                               { h.calls = append(h.calls, name) }

// TestRefusedStreamHoldsNoSlot: both of its halves are ended, and its credit is
// returned.
func TestRefusedStreamHoldsNoSlot(t *testing.T) {
	h := &calledHalf{}
	refuse(h, 1)
	require.Equal(t, []string{"CancelWrite", "CancelRead", "ReleaseStreamCredit"}, h.calls)
	h.calls = nil
	refuse(struct{ receiver }{h}, 1) // an incoming unidirectional stream
	require.Equal(t, []string{"CancelRead", "ReleaseStreamCredit"}, h.calls)
}

// TestRefusalsPassAtTheirPace: three at once, then one per interval. After a
// rest, three at once again, and no more.
func TestRefusalsPassAtTheirPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pace := refusalPace{atOnce: 3}
		refuse := func(n int) (after []time.Duration) {
			start := time.Now()
			for range n {
				require.NoError(t, pace.wait(t.Context()))
				after = append(after, time.Since(start))
				pace.refused(time.Now())
			}
			return after
		}
		const i = refusalInterval
		require.Equal(t, []time.Duration{0, 0, 0, i, 2 * i}, refuse(5))
		time.Sleep(2 * i)
		require.Equal(t, []time.Duration{0, 0, i}, refuse(3))
		time.Sleep(time.Hour)
		require.Equal(t, []time.Duration{0, 0, 0, i}, refuse(4))
		done, cancel := context.WithCancel(t.Context())
		cancel()
		require.Equal(t, context.Canceled, pace.wait(done))
	})
}

// TestAsManyAreRefusedAtOnceAsMayBeOpen: but at most a thousand. If the limit
// is not known, a thousand.
func TestAsManyAreRefusedAtOnceAsMayBeOpen(t *testing.T) {
	for _, c := range []struct{ limit, atOnce int64 }{{1, 1}, {5, 5}, {0, maxRefusedAtOnce}, {maxRefusedAtOnce + 1, maxRefusedAtOnce}} {
		synctest.Test(t, func(t *testing.T) {
			conn := &Conn{}
			conn.kinds[incomingUni].stats.Limit = c.limit
			start, n := time.Now(), int64(0)
			err := refuseAll(t.Context(), conn, incomingUni, c.atOnce+3, func(context.Context) (*calledHalf, error) {
				if n++; n == c.atOnce {
					require.Equal(t, start, time.Now(), "at a limit of %d, the %dth", c.limit, n)
				}
				return &calledHalf{}, nil
			}, 0)
			require.NoError(t, err)
			require.Equal(t, c.atOnce+3, n, "refused at a limit of %d", c.limit)
			require.Equal(t, 3*refusalInterval, time.Since(start), "at a limit of %d", c.limit)

			ctx, cancel := context.WithTimeout(t.Context(), refusalInterval/2)
			defer cancel()
			accept := func(context.Context) (*calledHalf, error) { return &calledHalf{}, nil }
			require.Equal(t, context.DeadlineExceeded, refuseAll(ctx, conn, incomingUni, maxRefusedAtOnce+1, accept, 0), "while it waits")
			require.Equal(t, context.DeadlineExceeded, refuseAll(ctx, conn, incomingUni, 1, accept, 0), "before it accepts")
		})
	}
}
