// Package quiet infers when everything that was sent on a quic-go connection
// must have been acknowledged. quic-go does not report this. But it has
// statistics, and we take samples of them now and then.
//
// # Why it is right
//
// Suppose that something is not acknowledged. Then quic-go sends a probe when
// its timer fires. It fires PTO << n after the last ack-eliciting packet, but
// no later than 60 s after it. Here n is the number of probes since the last
// ACK that acknowledged something new. Let a be the time of that ACK, and s the
// time of the last packet sent. The first of the n probes may have been sent
// right after a, by a timer that was set before. The others waited for 2, 4,
// ... PTO, so
//
//	s - a >= (2 + 4 + ... + 2^(n-1)) PTO = (2^n - 2) PTO
//
// and the time of the next probe is at most
//
//	s + min(2^n PTO, 60 s) <= s + min(s - a, 60 s) + 2 PTO
//
// (The loss timer, which runs after a later packet was acknowledged, is shorter
// than 2 PTO.) If nothing was sent by then, nothing was missing. We wait for
// one PTO more, in case the process was held up.
//
// This does not depend on what happened on the network. All we need is an a
// that is not too late and an s that is not too early:
//
//   - If (LatestRTT, SmoothedRTT, MeanDeviation) changes from one sample to the
//     next, an ACK has come between the two. We take the time of the first of
//     the two as a. A received packet proves nothing: it may not have been an
//     ACK. If an ACK leaves no trace, our a is earlier than the real one, which
//     does no harm. Before the first change, a is the beginning of the
//     connection. ACKs during a client's handshake do not stop its backoff, so
//     samples must be taken after the handshake.
//   - s is the time of the last sample in which the number of packets sent had
//     changed, whatever the packets were.
//
// So samples may be rare. Frequent samples only make the wait shorter.
//
// A client sets no timer for its streams before the server has confirmed the
// handshake. Until then the client's last handshake packet is outstanding, and
// there are probes for it too: a quic-go server confirms the handshake, and
// never acknowledges that packet. Once the handshake is confirmed, the timer
// for the streams is set as if it had been running all along, without backoff.
//
// When a connection moves to another path, quic-go forgets the RTT, but not n.
// It begins with a guess of the RTT again, which does not prove an ACK. The
// probes are then up to eight times as far apart as before.
package quiet

import "time"

// A Sample is quic-go's statistics at some time between From and To.
type Sample struct {
	From, To time.Time
	RTT      RTT
	Sent     uint64 // packets
}

// RTT is what quic-go knows about the round trip time.
type RTT struct{ Latest, Smoothed, Deviation time.Duration }

// measured reports whether quic-go has measured a round trip. Before that, and
// again on a new path, it uses a guess: 100 ms, the value of a token, or 0.
func (r RTT) measured() bool { return r.Deviation != 0 || r.Latest != r.Smoothed }

const (
	maxAckDelay   = 25 * time.Millisecond // the default of RFC 9000, section 18.2
	granularity   = time.Millisecond
	unmeasuredPTO = 200 * time.Millisecond
	maxBackoff    = 60 * time.Second
)

// PTO returns quic-go's probe timeout, for a peer whose max_ack_delay is at
// most the default (RFC 9002, 6.2.1).
func (r RTT) PTO() time.Duration {
	pto := r.Smoothed + max(4*r.Deviation, granularity) + maxAckDelay
	if !r.measured() { // or all round trips took the same time, which happens only in tests
		return max(pto, unmeasuredPTO)
	}
	return pto
}

// A Detector infers from samples whether everything is acknowledged. It is not
// safe for concurrent use.
type Detector struct {
	acked time.Time // the last ACK came after this
	sent  time.Time // the last packet was sent before this
	last  Sample
	// owing says that something was written that may not be acknowledged yet.
	owing bool
	blind bool // see Blind
}

// New returns a Detector for a connection that began at start or later.
func New(start time.Time) Detector { return Detector{acked: start} }

// Began sets the start, if that becomes known only after New.
func (d *Detector) Began(start time.Time) { d.acked = start }

// Blind notes that from now on something may be written without a call of
// Wrote. The Detector then has only the statistics to go by.
func (d *Detector) Blind() { d.blind = true }

// Wrote notes that something that must arrive was handed to quic-go, at now or
// before.
func (d *Detector) Wrote(now time.Time) {
	d.owing = true
	d.sentBefore(now)
}

// Asked notes that somebody begins to wait.
func (d *Detector) Asked(now time.Time) {
	if d.blind { // something may just have been handed to quic-go
		d.sentBefore(now)
	}
}

func (d *Detector) sentBefore(t time.Time) {
	if t.After(d.sent) {
		d.sent = t
	}
}

// Add adds a sample. It ignores a sample that was not taken after the last one.
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

// Wait returns how long after the last sample everything is known to be
// acknowledged, if nothing is sent until then. If the result is not positive,
// it is known now.
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

// PTO returns the PTO of the last sample.
func (d *Detector) PTO() time.Duration { return d.last.RTT.PTO() }

// Poll returns how long to wait until the next sample, for a caller that has
// waited for waited so far. So at most an eighth of the time is lost, and a
// peer that keeps sending does not keep us busy.
func Poll(pto, waited time.Duration) time.Duration { return min(max(pto, waited)/8, time.Second) }
