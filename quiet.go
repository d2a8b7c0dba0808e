package quiclife

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quiclife/quiclife/internal/quiet"
)

// Has all that was sent been acknowledged? Package quiet knows, from samples.
// Shutdown takes them as often as it likes. But if the first sample after
// minutes shows that something was sent meanwhile, it must be feared that it
// was the last of many probes, and Shutdown has to wait up to a minute. So the
// first write of a burst takes a sample, and a timer takes some more, until
// all is known to be acknowledged. Then it rests.

// sampler feeds the detector of a connection.
type sampler struct {
	// wrote: something was handed to quic-go since the detector was told of it,
	// and the timer is pending. So a write in a burst costs one load.
	wrote atomic.Bool

	mu       sync.Mutex // guards the fields below
	detector quiet.Detector
	timer    *time.Timer // nil before the first burst
	looks    int         // of the timer, since something was written
	stopped  bool        // the connection has ended
}

const maxLooks = 5

// lookAfter is how long after the last look the timer has the next. At the
// first all should be acknowledged, 4.25 PTO later that is known. The others are
// for when something is sent meanwhile, or lost: 430 PTO in all.
func lookAfter(pto time.Duration, looks int) time.Duration { return 5 * pto / 4 << (2 * looks) }

// sends is called after something that must arrive was handed to quic-go.
func (c *Conn) sends() {
	if !c.sampler.wrote.Load() {
		c.burst()
	}
}

func (c *Conn) burst() {
	c.sample()
	q := &c.sampler
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.wrote.Swap(true) || q.stopped {
		return
	}
	q.looks = 0
	wait := lookAfter(q.detector.PTO(), 0)
	if q.timer == nil {
		q.timer = time.AfterFunc(wait, c.lookAgain)
	} else {
		q.timer.Reset(wait)
	}
}

// lookAgain is called by the timer.
func (c *Conn) lookAgain() {
	q := &c.sampler
	wrote := q.wrote.Load()
	wait := c.sample()
	q.mu.Lock()
	defer q.mu.Unlock()
	if wrote {
		q.looks = 0
	}
	if q.looks++; wait > 0 && q.looks < maxLooks && !q.stopped {
		q.timer.Reset(min(wait, lookAfter(q.detector.PTO(), q.looks)))
	}
}

// sample takes a sample. It returns how long after it all is known to be
// acknowledged, if nothing is sent until then.
func (c *Conn) sample() (wait time.Duration) {
	q := &c.sampler
	q.mu.Lock()
	if q.wrote.Swap(false) { // before the sample, or what is written meanwhile may be in neither
		q.detector.Wrote(time.Now())
	}
	q.mu.Unlock()
	select {
	case <-c.raw.HandshakeComplete():
	default: // samples would prove nothing yet
		return time.Hour
	}

	s := quiet.Sample{From: time.Now()}
	stats := c.raw.ConnectionStats()
	s.RTT, s.Sent = rttOf(stats), stats.PacketsSent
	s.To = time.Now()

	q.mu.Lock()
	defer q.mu.Unlock()
	q.detector.Add(s)
	return q.detector.Wait()
}

func rttOf(s ConnectionStats) quiet.RTT {
	return quiet.RTT{Latest: s.LatestRTT, Smoothed: s.SmoothedRTT, Deviation: s.MeanDeviation}
}

// handedOut is called when the program has quic-go's connection, where it may
// write without our knowing.
func (c *Conn) handedOut() {
	c.unwrapped.Store(true)
	c.sampler.mu.Lock()
	defer c.sampler.mu.Unlock()
	c.sampler.detector.Blind()
}

// stopLooking stops the timer.
func (c *Conn) stopLooking() {
	q := &c.sampler
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	if q.timer != nil {
		q.timer.Stop()
	}
}

// awaitQuiet waits until all that was sent is known to be acknowledged.
func (c *Conn) awaitQuiet(ctx context.Context) error {
	select { // before that, the limit on what a server sends to an address that is not validated looks quiet
	case <-c.raw.HandshakeComplete():
	case <-c.lifetime.Done():
		return c.peerClosed()
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.rejected0RTT() {
		return Err0RTTRejected
	}
	// A peer that opens streams without end uses up its slots, and the transport
	// falls quiet.
	defer c.refuseWhile(ctx, c.kinds[incoming].stats.Limit, c.kinds[incomingUni].stats.Limit)()

	start := time.Now()
	c.sampler.mu.Lock()
	c.sampler.detector.Asked(start)
	c.sampler.mu.Unlock()
	for {
		wait := c.sample()
		switch {
		case c.lifetime.Err() != nil: // which is quiet, too
			return c.peerClosed()
		case wait <= 0:
			return nil
		}
		select {
		case <-time.After(min(wait, quiet.Poll(c.pto(), time.Since(start)))):
		case <-c.lifetime.Done():
			return c.peerClosed()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pto is the probe timeout of quic-go, as far as its figures tell.
func (c *Conn) pto() time.Duration { return rttOf(c.raw.ConnectionStats()).PTO() }

// beganAt is for a connection that was dialed.
func (c *Conn) beganAt(start time.Time) {
	c.sampler.mu.Lock()
	defer c.sampler.mu.Unlock()
	c.sampler.detector.Began(start)
}
