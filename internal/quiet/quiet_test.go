package quiet_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quiet"
)

const ms = time.Millisecond

// A sender is a simple model of quic-go's loss detection (RFC 9002, 6.2), on a
// network that is down at times.
type sender struct {
	r          *rand.Rand
	rtt        quiet.RTT
	sent       uint64
	missing    bool          // something sent is not acknowledged
	lastProbed time.Duration // when a packet or a probe was last sent
	probes     int
	acks       []time.Duration // when they will arrive
	down       func(time.Duration) bool
}

func (s *sender) send(now time.Duration) {
	s.sent++
	s.missing, s.lastProbed = true, now
	if !s.down(now) && !s.down(now+s.rtt.Smoothed/2) {
		s.acks = append(s.acks, now+s.rtt.Smoothed)
	}
}

func (s *sender) tick(now time.Duration) {
	for len(s.acks) > 0 && s.acks[0] <= now {
		s.missing = s.lastProbed > s.acks[0]-s.rtt.Smoothed
		s.probes, s.acks = 0, s.acks[1:]
		s.rtt.Latest = s.rtt.Smoothed + time.Duration(s.r.IntN(1000))
	}
	if s.missing && now >= s.lastProbed+min(s.rtt.PTO()<<s.probes, time.Minute) {
		s.probes++
		s.send(now)
	}
}

// Whatever happens on the network, and whenever samples are taken, a Detector
// never says that everything was acknowledged when it was not. If a line of
// Detector is broken, this fails at seed 197 at the latest: that is for a time
// of the ACK that is too late.
func TestQuietWhileSomethingIsMissing(t *testing.T) {
	seeds, quietRuns := 1000, 0
	if testing.Short() {
		seeds = 300
	}
	for seed := range uint64(seeds) {
		r := rand.New(rand.NewPCG(seed, 0))
		until := time.Duration(1+r.IntN(5000)) * ms
		from, length := time.Duration(r.Int64N(int64(until))), time.Duration(r.IntN(3000))*ms
		rtt := time.Duration(1+r.IntN(100)) * ms
		s := &sender{r: r, rtt: quiet.RTT{Latest: rtt, Smoothed: rtt, Deviation: rtt / 10},
			down: func(now time.Duration) bool { return from <= now && now < from+length }}
		writes, samples, answers := 1+r.IntN(300), 1+r.IntN(200), r.IntN(2)*(1+r.IntN(1000))
		start := time.Unix(0, 0)
		d := quiet.New(start)
		for now := ms; now < until+10*time.Second; now += ms {
			s.tick(now)
			if now < until && r.IntN(writes) == 0 {
				s.send(now)
				d.Wrote(start.Add(now))
			}
			if answers > 0 && r.IntN(answers) == 0 {
				s.sent++ // an ACK
			}
			if r.IntN(samples) != 0 {
				continue
			}
			d.Add(quiet.Sample{From: start.Add(now), To: start.Add(now), RTT: s.rtt, Sent: s.sent})
			if d.Wait() <= 0 && s.missing {
				t.Fatalf("seed %d: quiet after %v, but something is missing: %+v", seed, now, s)
			}
		}
		if d.Wait() <= 0 {
			quietRuns++
		}
	}
	require.Greater(t, quietRuns, seeds/2, "if it is never quiet, this test shows nothing")
}

// A feed gives samples to the Detector of a connection that began at time 0.
type feed struct {
	quiet.Detector
	t    *testing.T
	rtt  quiet.RTT
	sent uint64
}

var start = time.Unix(1000, 0)

func newFeed(t *testing.T) *feed {
	return &feed{quiet.New(start), t, quiet.RTT{Latest: 50 * ms, Smoothed: 50 * ms, Deviation: ms}, 10}
}

// at adds a sample and requires that Wait returns wait.
func (f *feed) at(now, wait time.Duration) {
	f.t.Helper()
	f.Add(quiet.Sample{From: start.Add(now), To: start.Add(now), RTT: f.rtt, Sent: f.sent})
	require.Equal(f.t, wait, f.Wait(), "how long to wait after %v", now)
}

const pto = (50 + 4 + 25) * ms

func TestWaitOutlastsNextProbe(t *testing.T) {
	for name, run := range map[string]func(f *feed){
		"nothing was written": func(f *feed) {
			f.at(time.Second, 0)
			f.sent++
			f.at(2*time.Second, 0)
		},
		"no ACK since the beginning": func(f *feed) {
			f.Wrote(start.Add(time.Second))
			f.at(time.Second, time.Second+3*pto)
			f.at(2*time.Second, 3*pto)
			f.at(2*time.Second+3*pto, 0)
		},
		"no more than a minute": func(f *feed) {
			f.Wrote(start.Add(time.Hour))
			f.at(time.Hour, time.Minute+3*pto)
		},
		"an ACK came after the sample before": func(f *feed) {
			f.Wrote(start.Add(time.Second))
			f.at(time.Second, time.Second+3*pto)
			f.rtt.Latest++
			f.at(1100*ms, 3*pto-100*ms)
			f.sent++
			f.at(1200*ms, 200*ms+3*pto)
		},
		"all has arrived, what comes then does not matter": func(f *feed) {
			f.Wrote(start)
			f.at(3*pto, 6*pto) // the sample that notices what was sent
			f.at(9*pto, 0)
			f.sent++
			f.at(11*pto, 0)
			f.Wrote(start.Add(12 * pto))
			f.at(12*pto, 15*pto)
		},
		"what is written unseen": func(f *feed) {
			f.Blind()
			f.at(time.Second, 3*pto)
			f.at(time.Second+3*pto, 0)
			f.Asked(start.Add(2 * time.Second))
			f.at(2*time.Second, 3*pto)
		},
		"a sample out of order": func(f *feed) {
			f.at(time.Second, 0)
			f.Wrote(start.Add(time.Second))
			f.rtt.Latest++
			f.Add(quiet.Sample{From: start, To: start, RTT: f.rtt})
			f.rtt.Latest--
			f.at(time.Second, time.Second+3*pto)
		},
		"no round trip is measured yet": func(f *feed) {
			f.rtt = quiet.RTT{}
			f.Wrote(start)
			f.at(0, 600*ms)
			f.rtt = quiet.RTT{Latest: 30 * ms, Smoothed: 30 * ms} // from a token
			f.at(10*ms, 590*ms)
		},
		"a new path": func(f *feed) {
			f.Wrote(start.Add(time.Second))
			f.at(time.Second, time.Second+3*pto)
			f.rtt = quiet.RTT{Latest: 100 * ms, Smoothed: 100 * ms}
			f.at(time.Second, 8*time.Second+600*ms)
		},
	} {
		t.Run(name, func(t *testing.T) { run(newFeed(t)) })
	}
}

// If a peer keeps sending for a long time, it is sampled only some dozen times.
func TestPollDuringLongWaitIsRare(t *testing.T) {
	polls := 0
	for waited := time.Duration(0); waited < 30*time.Second; polls++ {
		next := quiet.Poll(30*ms, waited)
		require.Positive(t, next)
		require.LessOrEqual(t, next, max(30*ms, waited)/8)
		waited += next
	}
	require.Less(t, polls, 90)
}

func TestPollLosesAnEighthOfTheTime(t *testing.T) {
	require.Equal(t, 10*ms, quiet.Poll(80*ms, 0), "as the PTO allows")
	require.Equal(t, 100*ms, quiet.Poll(80*ms, 800*ms), "as who has waited for so long allows")
	require.Equal(t, time.Second, quiet.Poll(80*ms, time.Hour), "the longest")
}
