package quiclife

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quiclife/quiclife/internal/quiet"
)

// Has everything that was sent been acknowledged? Package quiet infers that
// from samples of the connection's statistics. Shutdown takes samples as often
// as it needs. But suppose that the last sample before was taken minutes ago,
// and the first one of Shutdown shows that packets were sent since. Then the
// last of these packets may have been the last of many probes, and Shutdown
// would have to wait for up to a minute. So the first write of a burst takes a
// sample, and a timer takes some more until everything is known to be
// acknowledged. Then the timer stops.

// A sampler takes the samples for the detector of a connection.
type sampler struct {
	// wrote says that something was handed to quic-go that the detector has not
	// been told of, and that the timer is pending. So further writes of a burst
	// cost one atomic load each.
	wrote atomic.Bool

	mu       sync.Mutex // guards the fields below
	detector quiet.Detector
	timer    *time.Timer // nil before the first burst
	looks    int         // samples taken by the timer since the last write
	stopped  bool        // the connection has ended
}

const maxLooks = 5

// lookAfter returns how long after its last sample the timer takes the next. By
// the first one everything should be acknowledged, and 4.25 PTO later that is
// known. The others are needed if something is sent meanwhile, or lost. They
// cover 430 PTO in all.
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

// lookAgain is what the timer calls.
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

// sample takes a sample. It returns how long to wait until everything is known
// to be acknowledged, provided that nothing is sent meanwhile.
func (c *Conn) sample() (wait time.Duration) {
	q := &c.sampler
	q.mu.Lock()
	if q.wrote.Swap(false) { // before the sample, or a write in between might be noticed by neither
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

// handedOut is called when the program has quic-go's connection, through which
// it may write without our noticing.
func (c *Conn) handedOut() {
	c.unwrapped.Store(true)
	c.sampler.mu.Lock()
	defer c.sampler.mu.Unlock()
	c.sampler.detector.Blind()
}

// stopLooking stops the timer for good.
func (c *Conn) stopLooking() {
	q := &c.sampler
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	if q.timer != nil {
		q.timer.Stop()
	}
}

// awaitQuiet waits until everything that was sent is known to be acknowledged.
func (c *Conn) awaitQuiet(ctx context.Context) error {
	select { // before that, a server may be silent only because the client's address is not validated
	case <-c.raw.HandshakeComplete():
	case <-c.lifetime.Done():
		return c.peerClosed()
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.rejected0RTT() {
		return Err0RTTRejected
	}
	// If the peer keeps opening streams, we refuse only as many as it has
	// slots. Then it can open no more, and the transport becomes quiet.
	defer c.refuseWhile(ctx, c.kinds[incoming].stats.Limit, c.kinds[incomingUni].stats.Limit)()

	start := time.Now()
	c.sampler.mu.Lock()
	c.sampler.detector.Asked(start)
	c.sampler.mu.Unlock()
	for {
		wait := c.sample()
		switch {
		case c.lifetime.Err() != nil: // an ended connection is quiet too
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

// pto returns quic-go's probe timeout, as far as its statistics show.
func (c *Conn) pto() time.Duration { return rttOf(c.raw.ConnectionStats()).PTO() }

// beganAt tells the detector when a dialed connection began.
func (c *Conn) beganAt(start time.Time) {
	c.sampler.mu.Lock()
	defer c.sampler.mu.Unlock()
	c.sampler.detector.Began(start)
}
