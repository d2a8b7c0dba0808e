package ledger

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quic-go/quic-go"
)

// Blame says whose move it is: what a stream, or a half of it, waits for. It
// does not say that nobody else has to move after that.
type Blame uint8

const (
	// BlameUnknown means that the frames do not tell. [Stream.Candidates] has
	// those that it may be, and [Stream.Proof] says why.
	BlameUnknown Blame = iota
	// BlameOurApp is the application at the end that was traced. Where it has
	// called all it needs to, it is quic-go under it.
	BlameOurApp
	// BlamePeerApp is the application at the other end.
	BlamePeerApp
	// BlameWire means that frames are on their way, or get lost.
	BlameWire
)

// String returns the name of b as metrics may use it.
func (b Blame) String() string {
	switch b {
	case BlameOurApp:
		return "our-app"
	case BlamePeerApp:
		return "peer-app"
	case BlameWire:
		return "wire"
	}
	return "unknown"
}

// MarshalText returns the String of b.
func (b Blame) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// HalfState is how far one direction of a stream is, on the wire.
type HalfState uint8

const (
	HalfNone     HalfState = iota // the stream has no such half
	HalfOpen                      // neither FIN nor RESET_STREAM was sent
	HalfEnding                    // one was, and frames are under way
	HalfFinished                  // it ended with FIN, and all bytes are there
	HalfReset                     // it ended with RESET_STREAM
)

// String returns the name of s as metrics may use it.
func (s HalfState) String() string {
	switch s {
	case HalfOpen:
		return "open"
	case HalfEnding:
		return "ending"
	case HalfFinished:
		return "finished"
	case HalfReset:
		return "reset"
	}
	return "none"
}

// MarshalText returns the String of s.
func (s HalfState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Half is one direction of a stream, as the frames describe it.
type Half struct {
	State     HalfState
	Bytes     int64  // sent so far: the highest offset, or the final size
	Delivered int64  // of them: those that are there, up to the first gap
	Limit     int64  // how many MAX_STREAM_DATA allows, -1 if that was not seen
	Stopped   bool   // the receiver has sent STOP_SENDING
	Code      uint64 // of RESET_STREAM, or else of STOP_SENDING
}

// A Stream holds a slot of the accepting end, or may hold one. It may stand
// for several that are not kept one by one: see Last.
type Stream struct {
	ID quic.StreamID
	// Last is ID, unless this stands for Count streams with numbers from ID to
	// Last: more complete streams than are kept, or streams that a later one has
	// opened and that have sent no frame.
	Last  quic.StreamID
	Count int64

	Incoming, Unidirectional bool

	// Label is the method and path of an HTTP/3 request, or what else http3
	// says about the stream.
	Label string

	Opened   time.Time // when its first frame was seen
	Complete time.Time // when it was complete on the wire, zero if it is not
	Since    time.Time // when its last frame was seen, or Complete
	// KnownHeld is when it held its slot for sure, as of the MAX_STREAMS that
	// were seen: now, or for a complete stream, when the first slot was given back
	// that may have been its. The longer that is after Complete, the more the
	// stream is to be suspected. It is zero for complete streams that are not kept
	// one by one.
	KnownHeld time.Time

	Send, Receive Half

	Blame      Blame
	Candidates []Blame // if Blame is BlameUnknown: what it may be, if that is known
	Proof      string  // why, in one sentence with the frames that tell
}

// freshFor is how long a stream that is complete may have its MAX_STREAMS, and
// one that was opened by a later one its first frame, on the way.
const freshFor = 3 * time.Second

// A view is what is needed to judge a stream, apart from the stream.
type view struct {
	connection
	kinds [4]counters
	now   int64
}

func (s *state) view(now int64) view {
	if s.ended != 0 {
		now = s.ended
	}
	v := view{connection: s.connection, now: now}
	for i := range s.kinds {
		v.kinds[i] = s.kinds[i].counters
	}
	return v
}

// A verdict is about one half.
type verdict struct {
	state HalfState
	limit int64 // of bytes
	over  bool
	whom  Blame
	among []Blame
	text  string
}

var bothApps = []Blame{BlameOurApp, BlamePeerApp}

// initial returns the limit of the transport parameters for a half of c.
func (v *view) initial(c *counters, sends bool) (limit int64, known bool) {
	p, accepts := v.peer, !c.incoming
	if p == nil {
		p = v.restored
	}
	if !sends {
		p, accepts = v.our, c.incoming
	}
	switch {
	case p == nil:
		return 0, false
	case c.uni:
		return p.data, true
	case accepts:
		return p.dataRemote, true // of the streams that the other opens
	}
	return p.dataLocal, true
}

// sending is about what we send.
func (v *view) sending(c *counters, h *half) verdict {
	d := v.verdict(c, h, true, h.sendOver())
	unacked := h.high - h.got.prefix
	switch {
	case d.over && h.reset:
		d.text = fmt.Sprintf("our RESET_STREAM (code %d) is acknowledged", h.code)
	case d.over:
		d.text = fmt.Sprintf("our FIN at %d is acknowledged with all before it", h.final)
	case h.reset && h.endAcked && d.limit >= 0 && h.got.prefix >= d.limit:
		d.whom, d.text = BlamePeerApp, fmt.Sprintf("our RESET_STREAM_AT promises %d bytes, and the peer's MAX_STREAM_DATA allows no more than %d", h.reliable, d.limit)
	case h.reset && h.endAcked && v.sentMax > 0 && v.sent >= v.sentMax:
		d.among, d.text = []Blame{BlamePeerApp, BlameWire}, fmt.Sprintf("our RESET_STREAM_AT promises %d bytes, %d of which are acknowledged, and the peer's MAX_DATA is used up", h.reliable, h.got.prefix)
	case h.reset:
		d.whom, d.text = BlameWire, "our RESET_STREAM is not acknowledged yet"
		if h.endAcked {
			d.text = fmt.Sprintf("%d of the %d bytes that our RESET_STREAM_AT promises are not acknowledged yet", h.reliable-h.got.prefix, h.reliable)
		}
	case h.torn:
		d.text = "what the peer acknowledged has too many gaps to keep"
	case h.fin:
		d.whom, d.text = BlameWire, fmt.Sprintf("our FIN at %d, or some of the last %d bytes, are not acknowledged yet", h.final, unacked)
	case h.stop:
		d.whom, d.text = BlameWire, "the peer has sent STOP_SENDING, and our RESET_STREAM has not left yet"
	case unacked > 0:
		d.whom, d.text = BlameWire, fmt.Sprintf("some of the last %d bytes that we sent are not acknowledged yet", unacked)
	case d.limit < 0:
		d.text = "we have sent neither FIN nor RESET_STREAM, and the peer's transport parameters were not seen"
	case d.limit == 0:
		d.among, d.text = bothApps, "we have sent nothing, and the peer's transport parameters allow no byte"
	case h.high >= d.limit:
		d.whom, d.text = BlamePeerApp, fmt.Sprintf("we have sent all of the %d bytes that the peer's MAX_STREAM_DATA allows, and the peer does not raise it by reading", d.limit)
	case v.sent >= v.sentMax:
		d.among, d.text = bothApps, fmt.Sprintf("we have sent %d bytes and neither FIN nor RESET_STREAM, but the peer's MAX_DATA of %d is used up, so that we may not be able to", h.high, v.sentMax)
	case v.congested:
		d.among, d.text = []Blame{BlameOurApp, BlameWire}, fmt.Sprintf("we have sent %d bytes and neither FIN nor RESET_STREAM, but our congestion window is full, so that more may wait", h.high)
	default:
		d.whom, d.text = BlameOurApp, fmt.Sprintf("we have sent %d bytes and neither FIN nor RESET_STREAM, though MAX_STREAM_DATA allows %d", h.high, d.limit)
	}
	return d
}

// receiving is about what the peer sends.
func (v *view) receiving(c *counters, h *half) verdict {
	d := v.verdict(c, h, false, h.receiveOver(c.incoming))
	initial, _ := v.initial(c, false)
	switch {
	case d.over && h.reset:
		d.text = fmt.Sprintf("the peer's RESET_STREAM (code %d) has come", h.code)
	case d.over && h.got.prefix < h.final:
		d.text = fmt.Sprintf("the peer's FIN at %d has come, and we have sent STOP_SENDING", h.final)
	case d.over:
		d.text = fmt.Sprintf("the peer's FIN at %d has come with all before it", h.final)
	case h.reset && d.limit >= 0 && h.got.prefix >= d.limit:
		d.whom, d.text = BlameOurApp, fmt.Sprintf("the peer's RESET_STREAM_AT promises %d bytes, and our MAX_STREAM_DATA allows no more than %d", h.reliable, d.limit)
	case h.reset && v.receivedMax > 0 && v.received >= v.receivedMax:
		d.among, d.text = []Blame{BlameOurApp, BlameWire}, fmt.Sprintf("the peer's RESET_STREAM_AT promises %d bytes, %d of which have come, and our MAX_DATA is used up", h.reliable, h.got.prefix)
	case h.reset:
		d.whom, d.text = BlameWire, fmt.Sprintf("%d of the %d bytes that the peer's RESET_STREAM_AT promises have not come yet", h.reliable-h.got.prefix, h.reliable)
	case h.torn:
		d.text = "what has come has too many gaps to keep"
	case h.fin:
		d.whom, d.text = BlameWire, fmt.Sprintf("the peer's FIN at %d has come, but only %d bytes without a gap", h.final, h.got.prefix)
	case h.stop:
		d.whom, d.text = BlameWire, "we have sent STOP_SENDING, and the peer's RESET_STREAM has not come yet"
		if h.stopAcked {
			d.text = "the peer has our STOP_SENDING, and its RESET_STREAM has not come yet"
		}
	case h.got.prefix < h.high:
		d.whom, d.text = BlameWire, fmt.Sprintf("%d bytes have come from the peer, but only %d without a gap", h.got.prefix+h.got.rest.size(), h.got.prefix)
	case d.limit < 0:
		d.text = "the peer has sent neither FIN nor RESET_STREAM, and our transport parameters were not seen"
	case d.limit == 0:
		d.among, d.text = bothApps, "the peer has sent nothing, and our transport parameters allow no byte"
	case h.high >= d.limit:
		d.whom, d.text = BlameOurApp, fmt.Sprintf("the peer has sent all of the %d bytes that our MAX_STREAM_DATA allows, and we do not raise it by reading", d.limit)
	case h.high >= max(initial, h.limitSeen):
		d.whom, d.text = BlameWire, fmt.Sprintf("our MAX_STREAM_DATA of %d is not acknowledged yet", d.limit)
	case v.received >= v.receivedMax:
		d.among, d.text = bothApps, fmt.Sprintf("the peer has sent %d bytes and neither FIN nor RESET_STREAM, but our MAX_DATA of %d is used up, so that it may not be able to", h.high, v.receivedMax)
	case v.received >= v.receivedMaxSeen:
		d.whom, d.text = BlameWire, fmt.Sprintf("our MAX_DATA of %d is not acknowledged yet", v.receivedMax)
	default:
		d.whom, d.text = BlamePeerApp, fmt.Sprintf("the peer has sent %d bytes and neither FIN nor RESET_STREAM, though MAX_STREAM_DATA allows %d", h.high, d.limit)
	}
	return d
}

// verdict returns what both have in common.
func (v *view) verdict(c *counters, h *half, sends, over bool) verdict {
	d := verdict{state: HalfOpen, limit: -1, over: over}
	if limit, known := v.initial(c, sends); known || h.limit > 0 {
		d.limit = max(limit, h.limit)
	}
	switch {
	case over && h.reset:
		d.state = HalfReset
	case over:
		d.state = HalfFinished
	case h.final >= 0:
		d.state = HalfEnding
	}
	return d
}

func (d *verdict) half(h *half) Half {
	out := Half{State: d.state, Bytes: h.high, Delivered: min(h.got.prefix, h.high), Limit: d.limit, Stopped: h.stop, Code: h.code}
	if h.stop && !h.reset {
		out.Code = h.stopCode
	}
	return out
}

// stream judges str, of kind i.
func (v *view) stream(i int, str *stream) Stream {
	c := &v.kinds[i]
	id := quic.StreamID(v.idOf(i, str.num))
	out := Stream{
		ID: id, Last: id, Count: 1, Incoming: c.incoming, Unidirectional: c.uni, Label: str.label,
		Opened: timeOf(str.opened), Complete: timeOf(str.complete),
		Since: timeOf(max(str.opened, str.send.last, str.recv.last)), KnownHeld: timeOf(v.now),
	}
	var open []verdict // of the halves that are not over
	var texts []string
	add := func(d verdict) {
		texts = append(texts, d.text)
		if !d.over {
			open = append(open, d)
		}
	}
	if c.hasReceive() {
		d := v.receiving(c, &str.recv)
		out.Receive = d.half(&str.recv)
		add(d)
	}
	if c.hasSend() {
		d := v.sending(c, &str.send)
		out.Send = d.half(&str.send)
		add(d)
	}
	text := strings.Join(texts, "; ")
	if len(open) > 0 {
		out.Blame, out.Candidates = combine(open)
		out.Proof = "It waits for " + waitsFor(out.Blame, out.Candidates) + ": " + text + "."
		return out
	}
	if str.complete != 0 {
		out.Since = out.Complete
	}
	if str.heldAt != 0 {
		out.KnownHeld = timeOf(str.heldAt)
	}
	var why string
	out.Blame, out.Candidates, why = v.complete(c, str.letGoAt, str.complete)
	if d := out.KnownHeld.Sub(out.Complete); str.heldAt != 0 && d >= time.Millisecond {
		why += fmt.Sprintf(", but %v after it was complete none had been given back", d.Round(time.Millisecond))
	}
	out.Proof = "It is complete on the wire (" + text + "), " + why + "."
	return out
}

// combine judges a stream by those of its halves that are not over.
func combine(open []verdict) (Blame, []Blame) {
	var all []Blame
	unknown := false
	for _, d := range open {
		switch {
		case d.whom == BlameWire:
			return BlameWire, nil // what is on its way comes first
		case d.whom == BlameUnknown:
			unknown = true
			all = append(all, d.among...)
		default:
			all = append(all, d.whom)
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) == 1 && !unknown {
		return all[0], nil
	}
	return BlameUnknown, all
}

func waitsFor(b Blame, among []Blame) string {
	words := func(b Blame) string {
		switch b {
		case BlameOurApp:
			return "our application"
		case BlamePeerApp:
			return "the peer's application"
		case BlameWire:
			return "the network"
		}
		return "what the frames do not tell"
	}
	if b != BlameUnknown || len(among) == 0 {
		return words(b)
	}
	all := make([]string, len(among))
	for i, b := range among {
		all[i] = words(b)
	}
	return strings.Join(all, " or ")
}

// complete judges streams that are complete on the wire, since when, and when
// letGoAt streams had been let go of.
func (v *view) complete(c *counters, letGoAt, since int64) (Blame, []Blame, string) {
	app, whose, verb := BlameOurApp, "our application", "sent"
	if !c.incoming {
		app, whose, verb = BlamePeerApp, "the peer's application", "received"
	}
	letGo := c.letGo()
	switch {
	case c.broken != "":
		return BlameUnknown, nil, "but whether its slot was given back is not known: " + c.broken
	case c.limit < 0:
		return BlameUnknown, nil, "but whether its slot was given back is not known: the transport parameters were not seen"
	case c.max >= maxNumber:
		return BlameUnknown, nil, "but whether its slot was given back is not known: the limit is so high that MAX_STREAMS is not sent"
	case letGo > letGoAt:
		return BlameUnknown, nil, fmt.Sprintf("and so are %d streams of its kind in all, of which the highest MAX_STREAMS, %d, gave back %d: it does not say which", c.candidates, c.max, letGo-c.dropped)
	case c.incoming && v.congested:
		return BlameUnknown, []Blame{BlameOurApp, BlameWire}, "and no MAX_STREAMS gave back a slot since, but one may wait for our congestion window"
	case !c.incoming && v.now-since < int64(freshFor) && v.ended == 0:
		return BlameWire, nil, "and a MAX_STREAMS that gives back its slot may be on its way"
	case !v.givesBackOneByOne(c):
		return BlameUnknown, []Blame{app, BlameWire}, fmt.Sprintf("and no MAX_STREAMS was %s since, but it was not seen that slots are given back one by one", verb)
	}
	return app, nil, fmt.Sprintf("and no MAX_STREAMS was %s since, so that it waits for %s to accept it and to read it to its end", verb, whose)
}

// givesBackOneByOne reports whether the accepting end of c would have sent
// MAX_STREAMS if it had let go of a stream.
func (v *view) givesBackOneByOne(c *counters) bool {
	if c.unit || c.opened >= c.max { // who has no slot left to give gives back what it can
		return true
	}
	first := kindOutgoing
	if c.incoming {
		first = kindIncoming
	}
	a, b := &v.kinds[first], &v.kinds[first+1]
	return a.seen+b.seen > 0 && !a.holes() && !b.holes()
}

// silent judges the streams from lo up to hi of kind i, of which no frame was seen.
func (v *view) silent(i int, r interval) Stream {
	c := &v.kinds[i]
	none := stream{num: r.lo, opened: c.silentAt}
	none.send.final, none.recv.final = -1, -1
	out := v.stream(i, &none)
	out.Last, out.Count = quic.StreamID(v.idOf(i, r.hi-1)), r.hi-r.lo
	opened := "A later stream has opened it, and no frame of its own has come"
	if !c.incoming {
		opened = "A later stream has opened it, and no frame of its own was sent"
	} else if v.now-c.silentAt < int64(freshFor) && v.ended == 0 {
		out.Blame, out.Candidates = BlameWire, nil
		out.Proof = opened + " yet."
		return out
	}
	out.Proof = opened + ": it waits for " + waitsFor(out.Blame, out.Candidates) + "."
	return out
}

// foldedStreams judges the complete streams of kind i that are not kept one by one.
func (v *view) foldedStreams(i int) Stream {
	c := &v.kinds[i]
	out := Stream{
		ID: quic.StreamID(v.idOf(i, c.foldedFirst)), Last: quic.StreamID(v.idOf(i, c.foldedLast)), Count: c.folded,
		Incoming: c.incoming, Unidirectional: c.uni,
		Complete: timeOf(c.foldedSince), Since: timeOf(c.foldedSince),
	}
	var why string
	out.Blame, out.Candidates, why = v.complete(c, c.foldedAt, c.foldedUntil)
	out.Proof = fmt.Sprintf("Each of these %d streams is complete on the wire, %s.", c.folded, why)
	return out
}

func timeOf(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds)
}
