package quiclife

import (
	"io"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
)

// TestConnQueueHoldsAllThatFits: it gets shorter by what was sent.
func TestConnQueueHoldsAllThatFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for sent, room := range map[int]int{0: 5, 10: 15} {
			for n, fits := range map[int]bool{room: true, room + 1: false} {
				c := restingConn(t)
				c.raw, _ = quictest.Net{}.Pair(t, nil, nil)
				synctest.Wait()
				stats := c.raw.ConnectionStats()
				c.queue.sent.Store(int64(stats.BytesSent) - int64(stats.BytesLost) - int64(sent))
				c.queue.bytes.Store(maxConnQueued - 5)
				require.Equal(t, fits, c.mayQueue(n), "%d bytes fit, after %d were sent", n, sent)
			}
		}
	})
}

// TestWriteThatIsCompleteMendsACut: even one of a single byte, but not an empty
// one.
func TestWriteThatIsCompleteMendsACut(t *testing.T) {
	for size, cut := range map[int]bool{0: true, 1: false, 2: false} {
		st := &streamState{conn: &Conn{}, cut: true, writing: queueing}
		st.conn.sampler.wrote.Store(true) // so that no burst begins
		require.NoError(t, st.endWrite(size, size, nil))
		require.Equal(t, cut, st.cut, "cut, after a complete Write of %d bytes", size)
	}
}

// failingSender cannot queue anything.
type failingSender struct{ sender }

func (failingSender) TryWriteAll([]byte) error { return io.ErrClosedPipe }

// TestWriteThatCloseEndsReturnsWhyItCouldNotBeQueued: because the half was
// reset before.
func TestWriteThatCloseEndsReturnsWhyItCouldNotBeQueued(t *testing.T) {
	st := &streamState{conn: &Conn{}, raw: failingSender{}, closing: true}
	n, err := st.pastBarrier([]byte("x"), nil)
	require.Zero(t, n)
	require.Equal(t, io.ErrClosedPipe, err)
}

// TestWriteBlocksUnlessCloseWaitsForIt: block returns which of the two.
func TestWriteBlocksUnlessCloseWaitsForIt(t *testing.T) {
	for _, closing := range []bool{false, true} {
		st := &streamState{closing: closing, writing: queueing}
		require.Equal(t, !closing, st.block(), "may block, Close waits: %v", closing)
		require.Equal(t, !closing, st.writing == blocking, "blocks, Close waits: %v", closing)
		st.writing = blocking
		require.Equal(t, closing, st.hurried(), "Close waits: %v", closing)
		require.Equal(t, !closing, st.writing == blocking, "blocks still, Close waits: %v", closing)
	}
}
