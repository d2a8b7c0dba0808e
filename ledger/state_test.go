package ledger

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	h3qlog "github.com/quic-go/quic-go/http3/qlog"
	"github.com/quic-go/quic-go/qlog"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
)

// A wire is a state to which a test applies frames, one second apart.
type wire struct {
	*state
	at, pn int64
}

var testParameters = &parameters{
	maxData: 1 << 20, dataLocal: 1000, dataRemote: 1000, data: 1000, streams: 10, streamsUni: 10,
}

// atServer returns the wire of a server. It accepts the streams 0, 4, 8 ...
func atServer() *wire {
	w := &wire{state: newState(false, true), at: int64(time.Hour)}
	w.apply(event{op: opParameters, sent: true, params: testParameters})
	w.apply(event{op: opParameters, params: testParameters})
	return w
}

func (w *wire) received(e event) {
	w.at += int64(time.Second)
	e.at = w.at
	w.apply(e)
}

// sentFrame applies a frame that we send, and returns the packet number.
func (w *wire) sentFrame(e event) int64 {
	w.pn++
	e.sent, e.pn = true, w.pn
	w.received(e)
	return w.pn
}

func (w *wire) acked(pn int64) { w.received(event{op: opAcked, n1: pn, n2: pn}) }

func data(id, offset, length int64, fin bool) event {
	return event{op: opStream, id: id, n1: offset, n2: length, fin: fin}
}

// exchange makes the stream id complete on the wire.
func (w *wire) exchange(id int64) {
	w.received(data(id, 0, 5, true))
	w.acked(w.sentFrame(data(id, 0, 5, true)))
}

// giveBack sends the MAX_STREAMS by which n slots in all are given back.
func (w *wire) giveBack(n int64) { w.sentFrame(event{op: opMaxStreams, n1: 10 + n}) }

func (w *wire) streams() []Stream {
	c := &Conn{state: w.state, last: w.at}
	return slices.Collect(c.Streams())
}

func (w *wire) requireCount(t *testing.T, kind int, opened, letGo, complete int64) {
	t.Helper()
	c := w.kinds[kind].count()
	require.Equal(t, []int64{opened, letGo, opened - letGo, complete}, []int64{c.Opened, c.LetGo, c.Held, c.HeldComplete}, "opened, let go, held, complete: %+v", c)
}

// blames lists the IDs and blames of w's streams.
func (w *wire) blames() (all []string) {
	for _, s := range w.streams() {
		all = append(all, fmt.Sprintf("%d %v", s.ID, s.Blame))
	}
	return all
}

func TestRetransmissionsCountOnce(t *testing.T) {
	w := atServer()
	for range 3 {
		w.received(data(0, 0, 5, false))
		w.received(data(0, 5, 5, true))
		w.received(data(0, 2, 6, false))
	}
	first := w.sentFrame(data(0, 0, 7, true))
	w.received(event{op: opLost, n1: first, n2: first})
	second := w.sentFrame(data(0, 0, 7, true))
	w.acked(first) // too late: it was declared lost
	s := w.streams()[0]
	require.EqualValues(t, 10, s.Receive.Bytes)
	require.Equal(t, HalfFinished, s.Receive.State)
	require.EqualValues(t, 7, s.Send.Bytes)
	require.Equal(t, HalfEnding, s.Send.State)
	require.Equal(t, BlameWire, s.Blame)
	require.EqualValues(t, 10, w.received0())
	w.acked(second)
	require.Equal(t, []string{"0 our-app"}, w.blames())
	w.requireCount(t, kindIncoming, 1, 0, 1)
	w.giveBack(1)
	require.Empty(t, w.blames())
	w.requireCount(t, kindIncoming, 1, 1, 0)
	// Late frames do not open the stream again.
	w.received(data(0, 0, 5, false))
	w.received(event{op: opReset, id: 0, n1: 10})
	w.requireCount(t, kindIncoming, 1, 1, 0)
	require.Empty(t, w.blames())
}

func (w *wire) received0() int64 { return w.connection.received }

func TestPacketsOutOfOrder(t *testing.T) {
	w := atServer()
	w.received(data(0, 6, 4, true))
	require.Equal(t, []string{"0 wire"}, w.blames())
	w.received(data(0, 0, 3, false))
	require.Equal(t, []string{"0 wire"}, w.blames())
	require.EqualValues(t, 3, w.streams()[0].Receive.Delivered)
	w.received(data(0, 3, 3, false))
	require.Equal(t, []string{"0 our-app"}, w.blames())
	require.Equal(t, HalfOpen, w.streams()[0].Send.State)
}

// RFC 9000, section 2.1: a stream opens all streams of its type with lower numbers.
func TestAStreamOpensThoseBelow(t *testing.T) {
	w := atServer()
	w.received(data(12, 0, 1, false))
	w.requireCount(t, kindIncoming, 4, 0, 0)
	w.requireCount(t, kindIncomingUni, 0, 0, 0)
	all := w.streams()
	require.Len(t, all, 2)
	require.Equal(t, []int64{0, 8, 3}, []int64{int64(all[0].ID), int64(all[0].Last), all[0].Count})
	require.Equal(t, BlameWire, all[0].Blame, "their frames may be late")
	w.at += int64(time.Minute)
	require.Equal(t, []string{"0 unknown", "12 unknown"}, w.blames())
	w.received(data(4, 0, 1, true))
	w.at += int64(time.Minute)
	require.Equal(t, []string{"0 unknown", "4 our-app", "8 unknown", "12 unknown"}, w.blames())
	w.requireCount(t, kindIncoming, 4, 0, 0)
	// Frames about the other half do the same.
	w.received(event{op: opStopSending, id: 20})
	w.requireCount(t, kindIncoming, 6, 0, 0)
	w.received(event{op: opMaxStreamData, id: 24, n1: 1})
	w.requireCount(t, kindIncoming, 7, 0, 0)
	w.received(event{op: opStreamDataBlocked, id: 2 + 4})
	w.requireCount(t, kindIncomingUni, 2, 0, 0)
}

// The peer counts a stream of ours once it has received a frame of it.
func TestWhatWeOpenCountsWhenItHasArrived(t *testing.T) {
	w := atServer()
	pn := w.sentFrame(data(1, 0, 3, false))
	w.sentFrame(data(9, 0, 3, false))
	w.requireCount(t, kindOutgoing, 0, 0, 0)
	require.False(t, w.kinds[kindOutgoing].count().Exact)
	w.acked(pn)
	w.requireCount(t, kindOutgoing, 1, 0, 0)
	w.received(event{op: opMaxStreamData, id: 5, n1: 2000}) // the third stream has arrived, or the peer would not know the second
	w.requireCount(t, kindOutgoing, 2, 0, 0)
	w.acked(pn + 1)
	w.requireCount(t, kindOutgoing, 3, 0, 0)
	require.True(t, w.kinds[kindOutgoing].count().Exact)
}

// TestWhichCompleteStreamIsHeld completes three streams, and lets go of one.
func TestWhichCompleteStreamIsHeld(t *testing.T) {
	w := atServer()
	w.exchange(0)
	require.Equal(t, []string{"0 our-app"}, w.blames())
	w.exchange(4)
	require.Equal(t, []string{"0 our-app", "4 our-app"}, w.blames())
	held := w.at
	w.giveBack(1)
	require.Equal(t, []string{"0 unknown", "4 unknown"}, w.blames())
	w.exchange(8)
	all := w.streams()
	require.Equal(t, []string{"0 unknown", "4 unknown", "8 our-app"}, w.blames(), "no slot was given back since the last was complete")
	require.Equal(t, timeOf(held).Add(time.Second), all[0].KnownHeld)
	require.Equal(t, timeOf(w.at), all[2].KnownHeld)
	require.Contains(t, all[0].Proof, "It still held its slot 4s after it was complete.")
	w.requireCount(t, kindIncoming, 3, 1, 2)
	w.giveBack(3)
	require.Empty(t, w.blames())
	w.requireCount(t, kindIncoming, 3, 3, 0)
	require.True(t, w.kinds[kindIncoming].count().Exact)
}

// A slot that is given back cannot be that of a stream with an open half.
func TestOpenStreamIsNoneOfThoseThatMayBeLetGo(t *testing.T) {
	w := atServer()
	w.acked(w.sentFrame(data(1, 0, 1, true)))
	w.received(data(9, 0, 1, true)) // only the peer's half has ended
	w.acked(w.sentFrame(data(9, 0, 1, false)))
	w.acked(w.sentFrame(data(5, 0, 1, true)))
	w.received(data(5, 0, 1, true))
	w.received(event{op: opMaxStreams, n1: 11})
	require.Equal(t, []string{"1 peer-app", "9 our-app"}, w.blames(), "it was stream 5")
	w.received(data(1, 0, 1, true))
	w.acked(w.sentFrame(data(9, 1, 0, true)))
	w.at += int64(time.Minute)
	require.Equal(t, []string{"1 peer-app", "9 peer-app"}, w.blames())
	w.requireCount(t, kindOutgoing, 3, 1, 2)
}

// quic-go sends queued MAX_STREAMS in reverse order, and may send one again.
func TestMaxStreamsOutOfOrder(t *testing.T) {
	w := atServer()
	for id := range int64(4) {
		w.exchange(4 * id)
	}
	for _, n := range []int64{3, 2, 1, 3} {
		w.giveBack(n)
		w.requireCount(t, kindIncoming, 4, 3, 1)
	}
}

func TestPeerThatGivesBackSeveralSlotsAtATimeIsNotBlamed(t *testing.T) {
	for _, steps := range [][]int64{{11, 12}, {12}} {
		w := atServer()
		for id := range int64(3) {
			pn := w.sentFrame(data(4*id+1, 0, 1, true))
			w.received(data(4*id+1, 0, 1, true))
			w.acked(pn)
		}
		require.Equal(t, "9 wire", w.blames()[2], "MAX_STREAMS may be on its way")
		w.at += int64(time.Minute)
		require.Equal(t, []string{"1 unknown", "5 unknown", "9 unknown"}, w.blames(), "it may give back several at a time")
		for _, n := range steps {
			w.received(event{op: opMaxStreams, n1: n})
		}
		w.requireCount(t, kindOutgoing, 3, 2, 1)
		w.acked(w.sentFrame(data(13, 0, 1, true)))
		w.received(data(13, 0, 1, true))
		w.at += int64(time.Minute)
		oneByOne := len(steps) == 2
		require.Equal(t, oneByOne, w.kinds[kindOutgoing].count().Exact)
		want := BlameUnknown
		if oneByOne {
			want = BlamePeerApp
		}
		require.Equal(t, want, w.streams()[3].Blame)
	}
}

// A peer whose slots are all taken gives back every slot that it can.
func TestPeerWithoutSlotsIsBlamed(t *testing.T) {
	w := atServer()
	for id := range int64(10) {
		w.acked(w.sentFrame(data(4*id+1, 0, 1, true)))
		w.received(data(4*id+1, 0, 1, true))
	}
	w.at += int64(time.Minute)
	for _, s := range w.streams() {
		require.Equal(t, BlamePeerApp, s.Blame, s.Proof)
	}
}

func TestWindowsThatAreFull(t *testing.T) {
	w := atServer()
	w.received(data(0, 0, 1000, false))
	require.Equal(t, BlameOurApp, w.streams()[0].Blame, "both: %s", w.streams()[0].Proof)
	pn := w.sentFrame(event{op: opMaxStreamData, id: 0, n1: 2000})
	require.Equal(t, BlameWire, w.streams()[0].Blame, "MAX_STREAM_DATA is under way")
	w.acked(pn)
	require.Equal(t, BlameUnknown, w.streams()[0].Blame)
	require.Equal(t, bothApps, w.streams()[0].Candidates)

	w = atServer()
	w.received(data(0, 0, 1, true))
	w.acked(w.sentFrame(data(0, 0, 1000, false)))
	require.Equal(t, []string{"0 peer-app"}, w.blames())
	w.received(event{op: opMaxStreamData, id: 0, n1: 1001})
	require.Equal(t, []string{"0 our-app"}, w.blames())
	// Other streams fill the connection's window: first the peer's, then ours.
	v := atServer()
	v.acked(v.sentFrame(data(0, 0, 1, true)))
	for id := int64(4); v.connection.received < v.receivedMax; id += 4 {
		v.acked(v.sentFrame(event{op: opMaxStreamData, id: id, n1: 1 << 30}))
		v.received(data(id, 0, 1<<20, true))
	}
	require.Equal(t, BlameUnknown, v.streams()[0].Blame, v.streams()[0].Proof)
	raise := v.sentFrame(event{op: opMaxData, n1: 1 << 30})
	require.Equal(t, BlameWire, v.streams()[0].Blame, "MAX_DATA is under way")
	v.acked(raise)
	require.Equal(t, BlamePeerApp, v.streams()[0].Blame)
	for id := int64(1); w.connection.sent < w.sentMax; id += 4 {
		w.received(event{op: opMaxStreamData, id: id, n1: 1 << 30})
		w.acked(w.sentFrame(data(id, 0, 1<<20, true)))
	}
	require.Equal(t, BlameUnknown, w.streams()[0].Blame, w.streams()[0].Proof)
	w.received(event{op: opMaxData, n1: 1 << 30})
	require.Equal(t, BlameOurApp, w.streams()[0].Blame)
	w.received(event{op: opMetrics, n1: 10_000, n2: 10_000})
	require.Equal(t, []Blame{BlameOurApp, BlameWire}, w.streams()[0].Candidates, "the congestion window is full")
}

// Each half has the limit that its receiver set. The receiver has one limit for
// streams that it opened itself, and another for those that the other end opened.
func TestLimitsOfTheTransportParameters(t *testing.T) {
	w := &wire{state: newState(false, true)}
	w.apply(event{op: opParameters, sent: true, params: &parameters{maxData: 1 << 20, dataLocal: 1, dataRemote: 2, data: 3, streams: 10, streamsUni: 10}})
	w.apply(event{op: opParameters, params: &parameters{maxData: 1 << 20, dataLocal: 4, dataRemote: 5, data: 6, streams: 10, streamsUni: 10}})
	for id := range int64(4) {
		if id != 3 {
			w.received(data(id, 0, 0, false))
		} else {
			w.sentFrame(data(id, 0, 0, false))
		}
	}
	var limits [][2]int64
	for _, s := range w.streams() {
		limits = append(limits, [2]int64{s.Receive.Limit, s.Send.Limit})
	}
	require.Equal(t, [][2]int64{{2, 4}, {3, 0}, {1, 5}, {0, 6}}, limits, "of streams 0, 2, 1 and 3")
}

// A RESET_STREAM_AT may promise more than the window allows.
func TestReliableResetBeyondTheWindow(t *testing.T) {
	w := atServer()
	w.received(data(2, 0, 1000, false))
	w.received(event{op: opReset, id: 2, n1: 2000, n2: 1500})
	require.Equal(t, []string{"2 our-app"}, w.blames())
	w.acked(w.sentFrame(event{op: opMaxStreamData, id: 2, n1: 2000}))
	require.Equal(t, []string{"2 wire"}, w.blames())
	w.received(data(2, 1000, 500, false))
	w.requireCount(t, kindIncomingUni, 1, 0, 1)

	w = atServer()
	w.acked(w.sentFrame(data(3, 0, 1000, false)))
	w.acked(w.sentFrame(event{op: opReset, id: 3, n1: 2000, n2: 1500}))
	require.Equal(t, []string{"3 peer-app"}, w.blames())
	w.received(event{op: opMaxStreamData, id: 3, n1: 2000})
	require.Equal(t, []string{"3 wire"}, w.blames())
}

// An end that closes the connection right after the last answer leaves no time
// for the MAX_STREAMS.
func TestConnectionThatEndsBeforeMaxStreamsBlamesNobody(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		want  []string
	}{
		{sentWithin / 2, []string{"0 unknown", "1 unknown"}},
		{sentWithin, []string{"0 our-app", "1 unknown"}},
		{freshFor, []string{"0 our-app", "1 peer-app"}},
	} {
		w := atServer()
		w.exchange(4) // shows that slots are given back one by one
		w.giveBack(1)
		w.received(data(5, 0, 0, true))
		w.acked(w.sentFrame(data(5, 0, 0, true)))
		w.received(event{op: opMaxStreams, n1: 11})
		w.received(data(0, 0, 5, true))
		pn := w.sentFrame(data(0, 0, 5, true))
		w.received(data(1, 0, 0, true))
		w.pn++
		w.apply(event{op: opStream, sent: true, pn: w.pn, id: 1, fin: true, at: w.at})
		w.received(event{op: opAcked, n1: pn, n2: w.pn})
		w.apply(event{op: opClosed, at: w.at + int64(c.after)})
		require.Equal(t, c.want, w.blames(), "%v after they were complete", c.after)
		for i, s := range w.streams() {
			if s.Blame == BlameUnknown {
				require.Equal(t, [][]Blame{ourAppOrWire, peerAppOrWire}[i], s.Candidates)
				require.Contains(t, s.Proof, "The connection ended before a MAX_STREAMS could give back its slot.")
			}
		}
	}
}

// If one half is open and the other cannot be judged, anybody may have to move.
func TestHalfThatCannotBeJudgedLeavesNoCandidates(t *testing.T) {
	w := atServer()
	for n := range int64(maxGaps + 2) {
		w.received(data(0, 2*n+1, 1, false))
	}
	s := w.streams()[0]
	require.Equal(t, BlameUnknown, s.Blame)
	require.Empty(t, s.Candidates, "our application is not the only one that may have to move: %s", s.Proof)
	require.Contains(t, s.Proof, "The frames do not tell whom it waits for: ")
	// The same holds if the peer acknowledges with gaps.
	w = atServer()
	for n := range int64(maxGaps + 2) {
		w.acked(w.sentFrame(data(3, 2*n+1, 1, false)))
	}
	require.Equal(t, []string{"3 unknown"}, w.blames())
}

// One unacknowledged frame does not keep the acknowledged ones in memory.
func TestAcknowledgedFramesAreLetGo(t *testing.T) {
	w := atServer()
	w.sentFrame(data(1, 0, 1, false))
	for n := range int64(10_000) {
		w.acked(w.sentFrame(data(1, n+1, 1, false)))
	}
	require.Less(t, len(w.flight.frames), 200)
}

func TestTimesOfAStream(t *testing.T) {
	w := atServer()
	w.received(data(0, 0, 1, false))
	opened := timeOf(w.at)
	w.received(data(0, 1, 1, true))
	s := w.streams()[0]
	require.Equal(t, []time.Time{opened, opened.Add(time.Second), {}}, []time.Time{s.Opened, s.Since, s.Complete})
	pn := w.sentFrame(data(0, 0, 0, true))
	require.Equal(t, opened.Add(2*time.Second), w.streams()[0].Since, "of the other half")
	w.acked(pn)
	w.sentFrame(event{op: opMaxStreamData, id: 0, n1: 5000})
	s = w.streams()[0]
	require.Equal(t, []time.Time{opened, opened.Add(3 * time.Second), opened.Add(3 * time.Second)}, []time.Time{s.Opened, s.Since, s.Complete}, "what comes later does not matter")
	require.Equal(t, timeOf(w.at), s.KnownHeld)
}

func TestProofsInFull(t *testing.T) {
	w := atServer()
	w.received(data(0, 0, 7, true))
	w.received(data(4, 0, 7, false))
	w.acked(w.sentFrame(data(4, 0, 3, false)))
	w.exchange(8)
	w.received(data(6, 0, 7, false))
	w.sentFrame(event{op: opStopSending, id: 6, code: 5})
	var all []string
	for _, s := range w.streams() {
		all = append(all, s.Proof)
	}
	require.Equal(t, []string{
		"It waits for our application: the peer's FIN at 7 has come with all before it; we have sent 0 bytes and neither FIN nor RESET_STREAM, though MAX_STREAM_DATA allows 1000.",
		"It waits for our application or the peer's application: the peer has sent 7 bytes and neither FIN nor RESET_STREAM, though MAX_STREAM_DATA allows 1000; " +
			"we have sent 3 bytes and neither FIN nor RESET_STREAM, though MAX_STREAM_DATA allows 1000.",
		"It is complete on the wire (the peer's FIN at 5 has come with all before it; our FIN at 5 is acknowledged with all before it). " +
			"We have sent no MAX_STREAMS since, so it waits for our application to accept it and to read it to its end.",
		"A later stream has opened it, and no frame of its own has come. It waits for the network.",
		"It waits for the network: we have sent STOP_SENDING, and the peer's RESET_STREAM has not come yet.",
	}, all)
	w.exchange(12)
	w.giveBack(1)
	require.Equal(t, "It is complete on the wire (the peer's FIN at 5 has come with all before it; our FIN at 5 is acknowledged with all before it). "+
		"So are 2 streams of its kind in all, and the highest MAX_STREAMS, 11, has given back 1 of their slots. No frame says which. It still held its slot 6s after it was complete.",
		w.streams()[2].Proof)
}

// quic-go sends a packet again when a timer fires, and does not trace it as lost.
func TestPacketsThatAreNeverTracedAsLostAreForgotten(t *testing.T) {
	w := atServer()
	w.at = 1
	for n := range int64(3 * maxInFlight) {
		w.sentFrame(data(1, n, 1, false))
		pn := w.sentFrame(data(1, n, 1, false))
		w.acked(pn)
	}
	require.LessOrEqual(t, len(w.flight.frames), 2*maxBehind)
	require.False(t, w.kinds[kindOutgoing].streams[0].send.torn)
	require.EqualValues(t, 3*maxInFlight, w.kinds[kindOutgoing].streams[0].send.got.prefix)
}

// If more frames are under way than we keep, we do not learn what becomes of them.
func TestFramesThatAreNotKeptBlameNobody(t *testing.T) {
	w := atServer()
	w.received(data(0, 0, 1, true))
	w.sentFrame(data(0, 0, 1, true))
	w.sentFrame(event{op: opReset, id: 1})
	w.sentFrame(event{op: opMaxStreamData, id: 5, n1: 2000})
	require.Equal(t, []string{"0 wire", "1 wire", "5 unknown"}, w.blames())
	for n := range int64(maxInFlight) {
		w.sentFrame(data(9, n, 1, false))
	}
	w.acked(4) // no longer kept by now
	require.Equal(t, []string{"0 unknown", "1 unknown", "5 unknown"}, w.blames()[:3])
	require.Empty(t, w.streams()[2].Candidates)
}

// The opener may have jumped over streams long before its last jump.
func TestSilentStreamsHaveTheirOwnAge(t *testing.T) {
	w := atServer()
	w.received(data(6, 0, 1, false))
	first := w.at
	for id := int64(14); id <= 62; id += 8 {
		w.received(data(id, 0, 1, false))
	}
	all := w.streams()
	require.Equal(t, BlamePeerApp, all[0].Blame, all[0].Proof)
	require.Equal(t, timeOf(first), all[0].Opened)
	require.EqualValues(t, 58, all[len(all)-2].ID)
	require.Equal(t, BlameWire, all[len(all)-2].Blame, "it may be under way: %s", all[len(all)-2].Proof)
	require.Equal(t, timeOf(w.at), all[len(all)-2].Opened)
	w.apply(event{op: opClosed, at: w.at})
	all = w.streams()
	require.Equal(t, BlamePeerApp, all[0].Blame)
	require.Equal(t, BlameUnknown, all[len(all)-2].Blame, all[len(all)-2].Proof)
}

// If a peer opens more than it may, quic-go opens nothing and ends the connection.
func TestStreamsAboveTheLimitAreNotCounted(t *testing.T) {
	w := atServer()
	w.live = true
	w.received(data(4*(maxNumber-1), 0, 1, false))
	w.received(data(4*10, 0, 1, false))
	w.requireCount(t, kindIncoming, 0, 0, 0)
	w.received(data(4*9, 0, 1, false))
	w.requireCount(t, kindIncoming, 10, 0, 0)
	w.giveBack(1)
	w.received(data(4*10, 0, 1, false))
	w.requireCount(t, kindIncoming, 11, 1, 0)
}

// Two streams may claim more bytes than an int64 can count.
func TestSumOfBytesDoesNotOverflow(t *testing.T) {
	w := atServer()
	for id := range int64(3) {
		w.received(data(4*id, maxOffset-1, 1, false))
		w.sentFrame(data(4*id, maxOffset-1, 1, false))
	}
	require.Equal(t, int64(maxOffset), w.connection.received)
	require.Equal(t, int64(maxOffset), w.connection.sent)
}

// Once a connection has ended, its frames under way do not matter.
func TestConnectionThatEndedKeepsNoFrames(t *testing.T) {
	w := atServer()
	w.sentFrame(data(1, 0, 5, false))
	w.apply(event{op: opLabel, id: 100, text: "early"})
	w.apply(event{op: opClosed, at: w.at})
	require.Nil(t, w.flight.frames)
	require.Nil(t, w.labels)
	require.Equal(t, []string{"1 wire"}, w.blames())
}

// In a file, the packet numbers may start again without a Retry.
func TestPacketNumbersThatBeginAnew(t *testing.T) {
	w := atServer()
	w.pn = 100
	first := w.sentFrame(data(1, 0, 5, false))
	w.pn = 0
	second := w.sentFrame(data(5, 0, 5, false))
	w.acked(first)
	require.Equal(t, []string{"1 wire", "5 wire"}, w.blames())
	w.acked(second)
	require.Equal(t, []string{"1 wire", "5 unknown"}, w.blames())
}

// Initial and Handshake packets have packet number spaces of their own.
func TestOtherPacketNumberSpaces(t *testing.T) {
	c := newConn(true, true)
	c.state.apply(event{op: opParameters, sent: true, params: testParameters})
	c.state.apply(event{op: opParameters, params: testParameters})
	stream := []qlog.Frame{{Frame: &qlog.StreamFrame{Length: 5}}}
	ack := []qlog.Frame{{Frame: &qlog.AckFrame{AckRanges: []qlog.AckRange{{Smallest: 0, Largest: 9}}}}}
	c.record(qlog.PacketSent{Header: qlog.PacketHeader{PacketType: qlog.PacketType1RTT, PacketNumber: 3}, Frames: stream})
	blame := func() Blame {
		for s := range c.Streams() {
			return s.Blame
		}
		return BlameUnknown
	}
	c.record(qlog.PacketReceived{Header: qlog.PacketHeader{PacketType: qlog.PacketTypeHandshake}, Frames: ack})
	require.Equal(t, BlameWire, blame())
	c.record(qlog.PacketReceived{Header: qlog.PacketHeader{PacketType: qlog.PacketTypeRetry}})
	c.record(qlog.PacketReceived{Header: qlog.PacketHeader{PacketType: qlog.PacketType1RTT}, Frames: ack})
	require.Equal(t, BlameWire, blame(), "it was sent before the Retry")
	c.record(qlog.PacketSent{Header: qlog.PacketHeader{PacketType: qlog.PacketType1RTT, PacketNumber: 4}, Frames: stream})
	c.record(qlog.PacketReceived{Header: qlog.PacketHeader{PacketType: qlog.PacketType1RTT}, Frames: ack})
	require.Equal(t, BlameUnknown, blame(), "both ends have their half open")
}

func TestStopSending(t *testing.T) {
	w := atServer()
	pn := w.sentFrame(event{op: opStopSending, id: 0, code: 7})
	w.acked(w.sentFrame(data(0, 0, 1, true)))
	require.Equal(t, []string{"0 wire"}, w.blames())
	w.acked(pn)
	require.Equal(t, []string{"0 wire"}, w.blames())
	require.Contains(t, w.streams()[0].Proof, "the peer has our STOP_SENDING")
	require.EqualValues(t, 7, w.streams()[0].Receive.Code)
	// An end that has cancelled waits only for the final size.
	w.received(data(0, 9, 1, true))
	w.requireCount(t, kindIncoming, 1, 0, 1)
	w.giveBack(1)
	w.requireCount(t, kindIncoming, 1, 1, 0)

	// A stream that we opened is complete once we have all bytes or the reset.
	w = atServer()
	w.acked(w.sentFrame(event{op: opStopSending, id: 1}))
	w.acked(w.sentFrame(data(1, 0, 1, true)))
	w.received(data(1, 9, 1, true))
	w.requireCount(t, kindOutgoing, 1, 0, 0)
	require.Equal(t, []string{"1 wire"}, w.blames())
	w.received(event{op: opReset, id: 1, n1: 10})
	w.requireCount(t, kindOutgoing, 1, 0, 1)

	// The peer's STOP_SENDING makes us reset the stream, even after FIN.
	w = atServer()
	w.received(data(0, 0, 1, true))
	fin := w.sentFrame(data(0, 0, 5, true))
	w.received(event{op: opStopSending, id: 0})
	reset := w.sentFrame(event{op: opReset, id: 0, n1: 5})
	w.received(event{op: opLost, n1: fin, n2: fin})
	require.Equal(t, []string{"0 wire"}, w.blames())
	w.acked(reset)
	require.Equal(t, []string{"0 our-app"}, w.blames())
	require.Equal(t, HalfReset, w.streams()[0].Send.State)
}

// A reset after FIN has to be acknowledged, unless all bytes were before.
func TestResetAfterFin(t *testing.T) {
	w := atServer()
	w.received(data(0, 0, 1, true))
	lost := w.sentFrame(data(0, 0, 5, false))
	w.acked(w.sentFrame(data(0, 5, 0, true)))
	w.received(event{op: opLost, n1: lost, n2: lost})
	reset := w.sentFrame(event{op: opReset, id: 0, n1: 5})
	require.Equal(t, []string{"0 wire"}, w.blames())
	w.acked(reset)
	require.Equal(t, []string{"0 our-app"}, w.blames())
}

func TestResetThatIsTakenFurtherBack(t *testing.T) {
	w := atServer()
	w.received(data(0, 0, 1, true))
	w.sentFrame(data(0, 0, 50, false))
	first := w.sentFrame(event{op: opReset, id: 0, n1: 50, n2: 20})
	w.acked(first)
	require.Equal(t, []string{"0 wire"}, w.blames(), "what it promises has not arrived")
	second := w.sentFrame(event{op: opReset, id: 0, n1: 50})
	require.Equal(t, []string{"0 wire"}, w.blames())
	w.acked(second)
	require.Equal(t, []string{"0 our-app"}, w.blames())

	// The first does not count once the second was sent.
	w = atServer()
	w.received(data(0, 0, 1, true))
	first = w.sentFrame(event{op: opReset, id: 0, n1: 50, n2: 20})
	second = w.sentFrame(event{op: opReset, id: 0, n1: 50})
	w.acked(first)
	require.Equal(t, []string{"0 wire"}, w.blames())
	w.acked(second)
	require.Equal(t, []string{"0 our-app"}, w.blames())
}

// An application may cancel when the FIN has come and bytes are missing. Then
// quic-go sends no STOP_SENDING, and lets go of the stream before it is complete
// on the wire.
func TestStreamThatIsLetGoOfBeforeItsBytesCome(t *testing.T) {
	w := atServer()
	w.received(data(2, 0, 1, true))
	w.received(data(6, 5, 1, true))
	w.giveBack0(1)
	require.Equal(t, []string{"2 unknown", "6 wire"}, w.blames(), "it was not the first for sure")
	w.requireCount(t, kindIncomingUni, 2, 1, 0)
	w.received(data(6, 0, 5, false))
	require.Equal(t, []string{"2 unknown", "6 unknown"}, w.blames())
	w.requireCount(t, kindIncomingUni, 2, 1, 1)
}

// giveBack0 is giveBack for unidirectional streams.
func (w *wire) giveBack0(n int64) { w.sentFrame(event{op: opMaxStreams, uni: true, n1: 10 + n}) }

// After a Retry the packet numbers start again. What was sent in 0-RTT packets
// before it is sent again.
func TestAcknowledgementsAfterRetry(t *testing.T) {
	w := &wire{state: newState(true, true)}
	w.apply(event{op: opParameters, sent: true, params: testParameters})
	w.apply(event{op: opRestored, params: testParameters})
	pn := w.sentFrame(data(0, 0, 5, true))
	w.received(event{op: opRetry})
	w.apply(event{op: opParameters, params: testParameters})
	w.acked(pn) // a packet with the same number and without the frame
	require.Equal(t, []string{"0 wire"}, w.blames())
	w.requireCount(t, kindOutgoing, 0, 0, 0)
}

// STREAMS_BLOCKED is out of date if a slot was given back while it was under way.
func TestStarvedOnlyWhileThereIsNoSlot(t *testing.T) {
	w := atServer()
	blocked := func(limit int64) bool {
		w.starved = false
		w.received(event{op: opStreamsBlocked, n1: limit})
		return w.starved
	}
	require.True(t, blocked(10))
	require.False(t, blocked(10), "said again")
	w.exchange(0)
	w.giveBack(1)
	w.exchange(4)
	w.giveBack(2)
	require.False(t, blocked(11))
	require.True(t, blocked(12))
	w.exchange(8)
	w.giveBack(3)
	require.True(t, blocked(maxNumber), "it lies about the limit")
	w.exchange(12)
	w.giveBack(4)
	require.False(t, w.kinds[kindIncoming].count().Blocked)
	require.True(t, blocked(14), "a lie must not silence what follows")
	require.True(t, w.kinds[kindIncoming].count().Blocked)
	w.sentFrame(event{op: opStreamsBlocked, n1: 10})
	require.True(t, w.kinds[kindOutgoing].count().Blocked)
	require.True(t, w.starved)
	w.received(event{op: opMaxStreams, n1: 11})
	require.False(t, w.kinds[kindOutgoing].count().Blocked)

	none := &wire{state: newState(false, true)} // allows no stream from the start
	none.apply(event{op: opParameters, sent: true, params: &parameters{}})
	none.received(event{op: opStreamsBlocked})
	require.True(t, none.starved)
	require.True(t, none.kinds[kindIncoming].count().Blocked)
}

func TestLimitSoHighThatMaxStreamsIsNeverSent(t *testing.T) {
	w := &wire{state: newState(false, true)}
	p := *testParameters
	p.streams = maxNumber
	w.apply(event{op: opParameters, sent: true, params: &p})
	w.apply(event{op: opParameters, params: testParameters})
	w.exchange(0)
	require.False(t, w.kinds[kindIncoming].count().Exact)
	require.Equal(t, []string{"0 unknown"}, w.blames())
}

func TestLabelsWaitForTheirStream(t *testing.T) {
	w := atServer()
	w.apply(event{op: opLabel, id: 4, text: "GET /early"})
	w.received(data(8, 0, 1, false))
	w.received(data(4, 0, 1, false))
	w.apply(event{op: opLabel, id: 8, text: "GET /late"})
	require.Equal(t, "GET /early", w.streams()[1].Label)
	require.Equal(t, "GET /late", w.streams()[2].Label)
	require.Empty(t, w.labels)
	w.exchange(4)
	w.giveBack(1)
	w.apply(event{op: opLabel, id: 4, text: "GET /gone"}) // this stream was let go of
	require.Empty(t, w.labels)
	for id := range int64(5000) {
		w.apply(event{op: opLabel, id: 1000 + 4*id, text: "never"})
	}
	require.LessOrEqual(t, len(w.labels), maxLabels)
}

// TestStreamsThatWereDoneWithTakeNoMemory is the part of
// TestStreamsThatEndedTakeNoMemory that needs no connection.
func TestStreamsThatWereDoneWithTakeNoMemory(t *testing.T) {
	all := int64(100_000)
	if testing.Short() {
		all = 20_000
	}
	for _, held := range []int64{0, 1} {
		w := atServer()
		for id := range held {
			w.exchange(4 * id)
		}
		cycle := func(from, to int64) {
			for n := from; n < to; n++ {
				w.exchange(4 * (held + n))
				w.giveBack(n + 1)
			}
		}
		cycle(0, 2000)
		before := quictest.HeapAlloc()
		cycle(2000, all)
		after := quictest.HeapAlloc()
		require.Less(t, int64(after)-int64(before), int64(20<<10), "%d held", held)
		w.requireCount(t, kindIncoming, all+held, all, held)
		n := int64(0)
		for _, s := range w.streams() {
			n += s.Count
		}
		require.Equal(t, held*(all+1), n)
		runtime.KeepAlive(w)
	}
}

// If all complete streams are held, they are blamed even though they are not kept
// one by one.
func TestMoreHeldCompleteStreamsThanAreKept(t *testing.T) {
	w := atServer()
	for id := range int64(3000) {
		w.exchange(4 * id)
	}
	w.requireCount(t, kindIncoming, 3000, 0, 3000)
	all := w.streams()
	require.Len(t, all, maxComplete+1)
	require.Equal(t, BlameOurApp, all[0].Blame, all[0].Proof)
	require.EqualValues(t, 3000-maxComplete, all[0].Count)
	w.giveBack(1)
	require.Equal(t, BlameUnknown, w.streams()[0].Blame)
	w.giveBack(3000)
	require.Empty(t, w.streams())
}

// A hostile peer may open any number of streams with one frame, and leave gaps.
func TestMemoryIsBoundedAgainstHostilePeers(t *testing.T) {
	w := atServer()
	w.received(data(4*(maxNumber-1), 0, 1, false))
	require.Len(t, w.streams(), 2)
	w = atServer()
	for n := range int64(100_000) {
		w.received(data(8*n, 0, 1, false)) // every second one
	}
	require.LessOrEqual(t, len(w.kinds[kindIncoming].silent), maxSilent)
	require.False(t, w.kinds[kindIncoming].count().Exact)
	w = atServer()
	for n := range int64(100_000) {
		w.received(data(0, 2*n, 1, false))
	}
	require.LessOrEqual(t, len(w.kinds[kindIncoming].streams[0].recv.got.rest), maxGaps)
	w.received(data(0, 200_000, 1, true))
	w.acked(w.sentFrame(data(0, 0, 1, true)))
	require.Equal(t, []string{"0 unknown"}, w.blames())
	for n := range int64(200_000) {
		w.sentFrame(data(4, n, 1, false))
	}
	require.LessOrEqual(t, len(w.flight.frames), maxInFlight)
}

func TestRanges(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var set ranges
		var in [64]bool
		for range 30 {
			lo, hi := r.Int64N(64), r.Int64N(65)
			if r.IntN(3) > 0 {
				require.True(t, set.add(lo, hi, 100))
				for x := lo; x < hi; x++ {
					in[x] = true
				}
			} else {
				require.Equal(t, in[lo], set.remove(lo, 100))
				in[lo] = false
			}
		}
		n := int64(0)
		for x, is := range in {
			require.Equal(t, is, set.has(int64(x)))
			if is {
				n++
			}
		}
		require.Equal(t, n, set.size())
		for i := 1; i < len(set); i++ {
			require.Less(t, set[i-1].hi, set[i].lo)
		}
	}
}

// FuzzEvents applies any events in any order, and checks the invariants.
func FuzzEvents(f *testing.F) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 3))
		b := make([]byte, 400)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w := &wire{state: newState(len(b)%2 == 0, len(b)%3 == 0), at: 1}
		next := func() int64 {
			if len(b) == 0 {
				return 0
			}
			x := int64(b[0])
			b = b[1:]
			switch {
			case x < 250:
				return x % 16 // small numbers, so that events are about the same streams
			case x == 250:
				return -1
			}
			return maxOffset>>(x-251) - 1
		}
		for len(b) > 0 {
			flags := b[0]
			e := event{
				op: op(next() % int64(opClosed+1)), sent: flags&1 != 0, fin: flags&2 != 0, uni: flags&4 != 0,
				id: next(), n1: next(), n2: next(), at: w.at, pn: w.pn,
			}
			if flags&8 != 0 {
				w.pn++
			}
			w.at += 1 << (flags >> 2)
			if e.op == opParameters || e.op == opRestored {
				e.params = &parameters{next(), next(), next(), next(), next(), next()}
			}
			w.apply(e)
			w.check(t)
		}
		for _, s := range w.streams() {
			require.NotEmpty(t, s.Proof)
			require.Positive(t, s.Count)
			require.LessOrEqual(t, s.ID, s.Last)
			if s.Blame != BlameUnknown {
				require.Empty(t, s.Candidates)
			}
		}
	})
}

// check checks the invariants. It uses no require, so that the fuzzer is fast.
func (w *wire) check(t *testing.T) {
	for i := range w.kinds {
		k := &w.kinds[i]
		c := k.count()
		silent := k.silent.size()
		ok := k.opened <= k.named &&
			k.candidates == int64(len(k.queue))+k.folded &&
			int64(len(k.streams))+silent <= k.named &&
			c.LetGo >= 0 && c.HeldComplete >= 0 && c.Held >= c.HeldComplete &&
			(!c.Exact || c.Opened == c.LetGo+c.Held)
		for num, str := range k.streams {
			ok = ok && num == str.num && !k.silent.has(num) && (!k.over(str) || k.mayBeLetGo(str))
		}
		for _, str := range k.queue {
			ok = ok && str == k.streams[str.num]
		}
		if !ok {
			t.Fatalf("kind %d: %+v\n%+v, %d streams, %d silent, %d queued", i, c, k.counters, len(k.streams), silent, len(k.queue))
		}
	}
}

// A log line leaves out kinds without streams.
func TestReportInALine(t *testing.T) {
	w := atServer()
	c := &Conn{state: w.state, remote: "10.0.0.2:5"}
	require.Equal(t, "server ?, peer 10.0.0.2:5; no streams", c.Report().String())
	for id := range int64(10) {
		w.exchange(4 * id)
	}
	w.giveBack(3)
	w.received(event{op: opStreamsBlocked, n1: 13})
	w.sentFrame(data(3, 0, 1, false))
	w.acked(w.sentFrame(data(3, 0, 1, false)))
	w.sentFrame(data(7, 0, 1, false))
	require.Equal(t, "server ?, peer 10.0.0.2:5; incoming: 7 held of 10, 7 of them complete, 10 opened, blocked; "+
		"outgoing uni: 1? held of 10, 1 opened (streams are on their way to the peer)", c.Report().String())
	w.apply(event{op: opClosed, at: w.at})
	require.Contains(t, fmt.Sprintf("%+v", c.Report()), "peer 10.0.0.2:5, ended; incoming: ")
}

// Keys are also updated in the middle of a connection.
func TestStreamsOutliveAKeyUpdate(t *testing.T) {
	for _, rejected := range []bool{false, true} {
		w := &wire{state: newState(true, true)}
		w.apply(event{op: opParameters, sent: true, params: testParameters})
		w.apply(event{op: opRestored, params: testParameters})
		w.apply(event{op: opEarlyKeys})
		w.sentFrame(data(0, 0, 1, false))
		want := []string{"0 wire"}
		if rejected {
			want = nil
		} else {
			w.apply(event{op: opEarlyDone})
		}
		w.apply(event{op: opKeys})
		w.apply(event{op: opParameters, params: testParameters})
		require.Equal(t, want, w.blames(), "rejected: %v", rejected)
		w.sentFrame(data(0, 0, 1, false))
		w.apply(event{op: opKeys})
		require.Equal(t, []string{"0 wire"}, w.blames(), "rejected: %v", rejected)
	}
}

// A client that sends 0-RTT may see a MAX_STREAMS before the parameters.
func TestMaxStreamsBeforeTheParameters(t *testing.T) {
	w := &wire{state: newState(true, true)}
	w.apply(event{op: opParameters, sent: true, params: testParameters})
	w.apply(event{op: opRestored, params: testParameters})
	w.acked(w.sentFrame(data(0, 0, 1, true)))
	w.received(data(0, 0, 1, true))
	w.received(event{op: opMaxStreams, n1: 11})
	require.Equal(t, []string{"0 unknown"}, w.blames(), "the limit is not known")
	require.Contains(t, w.streams()[0].Proof, "not known: the transport parameters were not seen.")
	require.False(t, w.kinds[kindOutgoing].count().Exact)
	w.apply(event{op: opParameters, params: testParameters})
	require.Empty(t, w.blames())
	w.requireCount(t, kindOutgoing, 1, 1, 0)
}

// A peer may raise its limit without letting go of a stream.
func TestLetGoIsNotMoreThanOpened(t *testing.T) {
	w := atServer()
	w.acked(w.sentFrame(data(1, 0, 1, false)))
	w.received(event{op: opMaxStreams, n1: 1000})
	c := w.kinds[kindOutgoing].count()
	require.Equal(t, []int64{1, 1, 0}, []int64{c.Opened, c.LetGo, c.Held})
	require.False(t, c.Exact)
}

// The names are labels of metrics, so they must not change.
func TestNames(t *testing.T) {
	for v, want := range map[encoding.TextMarshaler]string{
		BlameUnknown: "unknown", BlameOurApp: "our-app", BlamePeerApp: "peer-app", BlameWire: "wire",
		HalfNone: "none", HalfOpen: "open", HalfEnding: "ending", HalfFinished: "finished", HalfReset: "reset",
	} {
		text, err := v.MarshalText()
		require.NoError(t, err)
		require.Equal(t, want, string(text))
		require.Equal(t, want, fmt.Sprint(v))
	}
}

func TestLabelsOfHTTP3(t *testing.T) {
	long := strings.Repeat("é", 200)
	for _, c := range []struct {
		fields [][2]string
		want   string
	}{
		{[][2]string{{":method", "GET"}, {":path", "/a/b?secret=1"}, {"user-agent", "x"}}, "GET /a/b"},
		{[][2]string{{":method", "CONNECT"}, {":authority", "host:443"}}, "CONNECT host:443"},
		{[][2]string{{":status", "200"}}, ""},
		{[][2]string{{":method", "GET"}, {":path", "/" + long}}, "GET /" + long[:250] + "..."},
	} {
		live := newConn(true, true)
		headers := h3qlog.HeadersFrame{}
		file := `{"frame_type":"headers","headers":[`
		for i, f := range c.fields {
			headers.HeaderFields = append(headers.HeaderFields, h3qlog.HeaderField{Name: f[0], Value: f[1]})
			if i > 0 {
				file += ","
			}
			file += fmt.Sprintf(`{"name":%q,"value":%q}`, f[0], f[1])
		}
		live.record(h3qlog.FrameCreated{StreamID: 4, Frame: h3qlog.Frame{Frame: headers}})
		require.Equal(t, c.want, live.state.labels[4])
		parsed := newConn(false, true)
		parsed.record(h3qlog.FrameParsed{StreamID: 4, Frame: h3qlog.Frame{Frame: headers}})
		require.Equal(t, c.want, parsed.state.labels[4])
		read := newConn(true, true)
		var d eventData
		require.NoError(t, json.Unmarshal([]byte(`{"stream_id":4,"frame":`+file+`]}}`), &d))
		read.read("http3:frame_created", &d, 1)
		require.Equal(t, c.want, read.state.labels[4])
	}
}
