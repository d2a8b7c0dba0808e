// Package quiet tells when a QUIC connection of quic-go must have had
// everything acknowledged. quic-go does not say; it gives figures, of which
// samples are taken now and then.
//
// # Why it is right
//
// Suppose that something is not acknowledged. Then quic-go sends a probe when
// its timer fires: PTO << n after the last packet that asked for an ACK, but no
// later than 60 s after it, where n is the number of probes since the last ACK
// of something new. Call the time of that ACK a, and the time of the last packet
// sent s. The first of the n probes may have been sent right after a, by a timer
// that was set before. The others waited 2, 4, ... PTO, so that
//
//	s - a >= (2 + 4 + ... + 2^(n-1)) PTO = (2^n - 2) PTO
//
// and the next probe is sent no later than
//
//	s + min(2^n PTO, 60 s) <= s + min(s - a, 60 s) + 2 PTO
//
// (The timer that finds a loss after a later packet was acknowledged is shorter
// than 2 PTO.) If by then nothing was sent, nothing was missing. We wait for one
// PTO more, for a process that is held up.
//
// What happened on the network, and when, does not enter into this. All that is
// needed is an a that is not too late and an s that is not too early:
//
//   - A change of (LatestRTT, SmoothedRTT, MeanDeviation) from one sample to the
//     next proves an ACK between the two, so a is the time of the first of them.
//     A packet that was received proves nothing: it need not have been an ACK.
//     ACKs that leave no trace only make a earlier than it was. Before the first
//     change, a is the beginning of the connection. ACKs that come while a
//     client's handshake is under way do not stop its backoff, so samples are
//     to be taken after it.
//   - s is the time of the sample that saw the number of packets sent change,
//     whatever they were.
//
// So samples may be rare. Frequent ones only make the wait shorter.
//
// A client arms no timer for its streams before the server has confirmed the
// handshake. Until then the last of the client's handshake is outstanding, for
// which there are probes too: a quic-go server confirms it, and never
// acknowledges it. Once it is confirmed, the timer for the streams is set as if
// it had been all along, without a backoff.
//
// When a connection moves to another path, quic-go forgets the RTT, but not n:
// the guess that it begins with, again, is no proof of an ACK, and the probes
// are up to eight times further apart than those before.
package quiet

import "time"

// A Sample is what quic-go's figures were at some time between From and To.
type Sample struct {
	From, To time.Time
	RTT      RTT
	Sent     uint64 // packets
}

// RTT is what quic-go knows of the round trip time.
type RTT struct{ Latest, Smoothed, Deviation time.Duration }

// measured reports whether quic-go has measured a round trip. Before that, and
// again on a new path, it has a guess: 100 ms, what a token says, or 0.
func (r RTT) measured() bool { return r.Deviation != 0 || r.Latest != r.Smoothed }

const (
	maxAckDelay   = 25 * time.Millisecond // the default of RFC 9000, section 18.2
	granularity   = time.Millisecond
	unmeasuredPTO = 200 * time.Millisecond
	maxBackoff    = 60 * time.Second
)

// PTO is quic-go's probe timeout, for a peer that delays its ACKs by no more
// than the default (RFC 9002, 6.2.1).
func (r RTT) PTO() time.Duration {
	pto := r.Smoothed + max(4*r.Deviation, granularity) + maxAckDelay
	if !r.measured() { // or it is always the same, which it is in tests alone
		return max(pto, unmeasuredPTO)
	}
	return pto
}

// A Detector is fed with samples. It is not safe for concurrent use.
type Detector struct {
	acked time.Time // the last ACK is known to have come after this
	sent  time.Time // the last packet is known to have been sent before this
	last  Sample
	// owing: something was written, and it is not known yet that all of it was
	// acknowledged.
	owing bool
	blind bool // see Blind
}

// New returns a Detector for a connection that began at start or later.
func New(start time.Time) Detector { return Detector{acked: start} }

// Began is for a start that becomes known later than the Detector is made.
func (d *Detector) Began(start time.Time) { d.acked = start }

// Blind is called when things may be written from now on that Wrote is not told
// of. What is known of them is that no packet was sent for long.
func (d *Detector) Blind() { d.blind = true }

// Wrote notes that up to now something was handed to quic-go that must arrive.
func (d *Detector) Wrote(now time.Time) {
	d.owing = true
	d.sentBefore(now)
}

// Asked is called when somebody begins to wait.
func (d *Detector) Asked(now time.Time) {
	if d.blind { // something may have been handed to quic-go just now
		d.sentBefore(now)
	}
}

func (d *Detector) sentBefore(t time.Time) {
	if t.After(d.sent) {
		d.sent = t
	}
}

// Add adds a sample. One that was not taken after the last is ignored.
func (d *Detector) Add(s Sample) {
	if s.From.Before(d.last.To) {
		return
	}
	if s.Sent != d.last.Sent {
		d.sentBefore(s.To)
	}
	if first := d.last.From.IsZero(); !first && s.RTT != d.last.RTT && s.RTT.measured() {
		d.acked = d.last.From
	}
	d.last = s
	d.owing = d.owing && d.Wait() > 0
}

// Wait returns how long after the last sample all is known to be acknowledged,
// if nothing is sent until then. It is known now if that is not positive.
func (d *Detector) Wait() time.Duration {
	if !d.owing && !d.blind {
		return 0
	}
	wait := 3 * d.last.RTT.PTO()
	if d.owing {
		backoff := min(d.sent.Sub(d.acked), maxBackoff)
		if !d.last.RTT.measured() {
			backoff = min(backoff*(unmeasuredPTO/maxAckDelay), maxBackoff)
		}
		wait += backoff
	}
	return wait - d.last.From.Sub(d.sent)
}

// PTO is that of the last sample.
func (d *Detector) PTO() time.Duration { return d.last.RTT.PTO() }

// Poll returns how long somebody who has waited for so long should wait until
// the next sample: no more than an eighth of the time is lost by that, and a
// peer that keeps sending does not keep us busy.
func Poll(pto, waited time.Duration) time.Duration { return min(max(pto, waited)/8, time.Second) }
