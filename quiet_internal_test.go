package quiclife

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
)

// pending stops the sampler's timer, and reports whether it was pending.
func pending(q *sampler) bool { return q.timer.Stop() }

// TestEndedConnTakesNoSamples: its timer would keep it alive.
func TestEndedConnTakesNoSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw, _ := quictest.Net{}.Pair(t, nil, nil)
		c := (&Guard{Logger: slog.New(slog.DiscardHandler)}).Wrap(raw, nil)
		q := &c.sampler
		c.sends()
		require.True(t, pending(q), "after a write")
		q.wrote.Store(false)
		c.sends()
		c.CloseWithError(0, "")
		require.False(t, pending(q), "after the end")
		q.wrote.Store(false)
		c.sends()
		require.False(t, pending(q), "after a write that came after the end")
		c.lookAgain()
		require.False(t, pending(q), "after a look that came after the end")
	})
}

// TestLooksAreFewAfterAWrite: five if nothing is acknowledged, even if Shutdown
// has taken a sample since.
func TestLooksAreFewAfterAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw, _ := quictest.Net{}.Pair(t, nil, nil)
		c := (&Guard{Logger: slog.New(slog.DiscardHandler)}).Wrap(raw, nil)
		defer c.CloseWithError(0, "")
		q := &c.sampler
		for _, sampled := range []bool{false, true} {
			c.sends()
			if sampled {
				c.sample()
			}
			require.True(t, pending(q), "after a write")
			for look := range maxLooks {
				c.lookAgain() // no time has passed, so nothing is known
				require.Equal(t, look < maxLooks-1, pending(q), "after look %d", look+1)
			}
		}
	})
}

// TestOutageInTheHandshakeIsReckonedWith: the connection began when it was
// dialed.
func TestOutageInTheHandshakeIsReckonedWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw, _ := quictest.Net{}.Pair(t, nil, nil)
		g := &Guard{Logger: slog.New(slog.DiscardHandler)}
		const handshake = 3 * time.Second
		c, err := g.dial(nil, func() (*quic.Conn, error) { time.Sleep(handshake); return raw, nil })
		require.NoError(t, err)
		defer c.CloseWithError(0, "")
		c.sampler.wrote.Store(true)
		require.Equal(t, handshake+3*c.pto(), c.sample(), "how long to wait after a write")
		c.beganAt(time.Now())
		c.sampler.wrote.Store(true)
		require.Equal(t, 3*c.pto(), c.sample(), "how long to wait after a write, had it begun now")
	})
}

// TestQuietOfAnEndedConnectionIsNoSuccess: it is quiet only because nothing is
// sent after its end.
func TestQuietOfAnEndedConnectionIsNoSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := restingConn(t)
		c.raw, _ = quictest.Net{}.Pair(t, nil, nil)
		ended := &IdleTimeoutError{}
		endedWith(c, ended)
		for range 50 { // the handshake is complete as well
			require.Same(t, ended, c.awaitQuiet(t.Context()))
		}
	})
}

// TestShutdownOfUnwrappedConnectionWaits: something may just have been written
// without our noticing.
func TestShutdownOfUnwrappedConnectionWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw, _ := quictest.Net{}.Pair(t, &quic.Config{MaxIdleTimeout: 10 * time.Hour}, &quic.Config{MaxIdleTimeout: 10 * time.Hour})
		c := (&Guard{Logger: slog.New(slog.DiscardHandler)}).Wrap(raw, nil)
		defer c.CloseWithError(0, "")
		for range 2 { // until nothing has changed since the last sample
			time.Sleep(time.Hour)
			c.sample()
		}
		time.Sleep(time.Hour)
		start := time.Now()
		require.NoError(t, c.awaitQuiet(t.Context()))
		require.GreaterOrEqual(t, time.Since(start), 3*c.pto())
	})
}
