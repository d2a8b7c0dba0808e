package ledger

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quic-go/quic-go"
)

// Blame says whose move it is: what a stream, or a half of it, waits for. It
// does not say that nobody else has to move after that.
type Blame uint8

const (
	// BlameUnknown means that the frames do not tell. [Stream.Proof] says why. If
	// only some blames are possible, [Stream.Candidates] lists them.
	BlameUnknown Blame = iota
	// BlameOurApp is the application at the end that was traced. If the application
	// has made all the calls that it has to, then quic-go holds the stream.
	BlameOurApp
	// BlamePeerApp is the application at the other end.
	BlamePeerApp
	// BlameWire means that frames are on their way, or were lost.
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

// HalfState is the state of one direction of a stream, on the wire.
type HalfState uint8

const (
	HalfNone     HalfState = iota // the stream has no such half
	HalfOpen                      // neither FIN nor RESET_STREAM was sent
	HalfEnding                    // FIN or RESET_STREAM was sent, and frames are under way
	HalfFinished                  // it ended with FIN, and all bytes have arrived
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
	Delivered int64  // how many of them have arrived for sure, up to the first gap
	Limit     int64  // how many the flow control limit allows, -1 if it was not seen
	Stopped   bool   // the receiver has sent STOP_SENDING
	Code      uint64 // the error code of RESET_STREAM, or else of STOP_SENDING
}

// A Stream holds a slot of the accepting end, or may hold one. One Stream value
// may stand for several streams: see Last.
type Stream struct {
	ID quic.StreamID
	// Last is ID and Count is 1, unless this Stream stands for Count streams between
	// ID and Last. Those are either complete streams, if there are too many to keep
	// each of them, or streams without a frame that a later stream has opened.
	Last  quic.StreamID
	Count int64

	Incoming, Unidirectional bool

	// Label is the method and path of an HTTP/3 request, or the type of stream that
	// http3 reports.
	Label string

	Opened   time.Time // when its first frame was seen
	Complete time.Time // when it became complete on the wire, zero if it is not
	Since    time.Time // when its last frame was seen, or Complete
	// KnownHeld is the last time at which the stream held its slot for sure.
	// Usually that is now. For a complete stream, it is the time at which a slot was
	// given back that may have been the stream's, if there was one. The longer that
	// time is after Complete, the more suspicious the stream. KnownHeld is zero for
	// complete streams that are not kept one by one.
	KnownHeld time.Time

	Send, Receive Half

	Blame      Blame
	Candidates []Blame // if Blame is BlameUnknown: the possible blames, if they are known
	Proof      string  // the reason, and the frames that show it
}

// freshFor is how long a frame may be under way: the MAX_STREAMS for a complete
// stream, or the first frame of a stream that a later one has opened.
const freshFor = 3 * time.Second

// sentWithin is how long our own MAX_STREAMS may take until it is sent.
const sentWithin = 100 * time.Millisecond

// A view is what we need to judge a stream, besides the stream itself.
type view struct {
	connection
	kinds [4]counters
	now   int64

	verdicts [2]verdict // memory for the verdicts on a stream, reused
	buf      []byte     // memory for its proof, reused
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

// A verdict is about one half, or about a complete stream.
type verdict struct {
	state HalfState
	limit int64   // flow control limit in bytes, -1 if it is not known
	over  bool    // the half needs no more frames
	whom  Blame   // what it waits for
	among []Blame // if whom is BlameUnknown: the possible blames, nil if it may be any

	// The text is form, with a number in place of each %d. It is put together
	// late, because a verdict has to be cheap: most callers read no proof.
	form    string
	numbers [3]int64
}

// say sets the blame and the text.
func (d *verdict) say(whom Blame, form string, numbers ...int64) {
	d.whom, d.form = whom, form
	copy(d.numbers[:], numbers)
}

// doubt sets the blame to unknown, and the text. among lists the possible blames.
// If it is nil, any blame is possible.
func (d *verdict) doubt(among []Blame, form string, numbers ...int64) {
	d.say(BlameUnknown, form, numbers...)
	d.among = among
}

// appendText appends the text of d.
func (d *verdict) appendText(b []byte) []byte {
	form, numbers := d.form, d.numbers[:]
	for {
		before, after, found := strings.Cut(form, "%d")
		b = append(b, before...)
		if !found {
			return b
		}
		b = strconv.AppendInt(b, numbers[0], 10)
		form, numbers = after, numbers[1:]
	}
}

var (
	bothApps      = []Blame{BlameOurApp, BlamePeerApp}
	ourAppOrWire  = []Blame{BlameOurApp, BlameWire}
	peerAppOrWire = []Blame{BlamePeerApp, BlameWire}
)

// initial returns the initial limit of a half from the transport parameters.
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
		return p.dataRemote, true // p is of the end that accepts the stream
	}
	return p.dataLocal, true
}

// sending judges our send half.
func (v *view) sending(c *counters, h *half) verdict {
	d := v.verdict(c, h, true, h.sendOver())
	unacked := h.high - h.got.prefix
	switch {
	case d.over && h.reset:
		d.say(BlameUnknown, "our RESET_STREAM (code %d) is acknowledged", int64(h.code))
	case d.over:
		d.say(BlameUnknown, "our FIN at %d is acknowledged with all before it", h.final)
	case h.torn:
		d.doubt(nil, "too much that we sent is not acknowledged to keep track of it")
	case h.reset && h.endAcked && d.limit >= 0 && h.got.prefix >= d.limit:
		d.say(BlamePeerApp, "our RESET_STREAM_AT promises %d bytes, and the peer's MAX_STREAM_DATA allows no more than %d", h.reliable, d.limit)
	case h.reset && h.endAcked && v.sentMax > 0 && v.sent >= v.sentMax:
		d.doubt(peerAppOrWire, "our RESET_STREAM_AT promises %d bytes, %d of which are acknowledged, and the peer's MAX_DATA is used up", h.reliable, h.got.prefix)
	case h.reset && h.endAcked:
		d.say(BlameWire, "%d of the %d bytes that our RESET_STREAM_AT promises are not acknowledged yet", h.reliable-h.got.prefix, h.reliable)
	case h.reset:
		d.say(BlameWire, "our RESET_STREAM is not acknowledged yet")
	case h.fin:
		d.say(BlameWire, "our FIN at %d, or some of the last %d bytes, are not acknowledged yet", h.final, unacked)
	case h.stop:
		d.say(BlameWire, "the peer has sent STOP_SENDING, and our RESET_STREAM has not left yet")
	case unacked > 0:
		d.say(BlameWire, "some of the last %d bytes that we sent are not acknowledged yet", unacked)
	case d.limit < 0:
		d.doubt(nil, "we have sent neither FIN nor RESET_STREAM, and the peer's transport parameters were not seen")
	case d.limit == 0:
		d.doubt(bothApps, "we have sent nothing, and the peer's transport parameters allow no byte")
	case h.high >= d.limit:
		d.say(BlamePeerApp, "we have sent all of the %d bytes that the peer's MAX_STREAM_DATA allows, and the peer does not raise it by reading", d.limit)
	case v.sent >= v.sentMax:
		d.doubt(bothApps, "we have sent %d bytes and neither FIN nor RESET_STREAM, but the peer's MAX_DATA of %d is used up, so we may be unable to send more", h.high, v.sentMax)
	case v.congested:
		d.doubt(ourAppOrWire, "we have sent %d bytes and neither FIN nor RESET_STREAM, but our congestion window is full, so more may be waiting", h.high)
	default:
		d.say(BlameOurApp, "we have sent %d bytes and neither FIN nor RESET_STREAM, though MAX_STREAM_DATA allows %d", h.high, d.limit)
	}
	return d
}

// receiving judges our receive half.
func (v *view) receiving(c *counters, h *half) verdict {
	d := v.verdict(c, h, false, h.receiveOver(c.incoming))
	initial, _ := v.initial(c, false)
	switch {
	case d.over && h.reset:
		d.say(BlameUnknown, "the peer's RESET_STREAM (code %d) has come", int64(h.code))
	case d.over && h.got.prefix < h.final:
		d.say(BlameUnknown, "the peer's FIN at %d has come, and we have sent STOP_SENDING", h.final)
	case d.over:
		d.say(BlameUnknown, "the peer's FIN at %d has come with all before it", h.final)
	case h.torn:
		d.doubt(nil, "what has come has too many gaps to keep track of it")
	case h.reset && d.limit >= 0 && h.got.prefix >= d.limit:
		d.say(BlameOurApp, "the peer's RESET_STREAM_AT promises %d bytes, and our MAX_STREAM_DATA allows no more than %d", h.reliable, d.limit)
	case h.reset && v.receivedMax > 0 && v.received >= v.receivedMax:
		d.doubt(ourAppOrWire, "the peer's RESET_STREAM_AT promises %d bytes, %d of which have come, and our MAX_DATA is used up", h.reliable, h.got.prefix)
	case h.reset:
		d.say(BlameWire, "%d of the %d bytes that the peer's RESET_STREAM_AT promises have not come yet", h.reliable-h.got.prefix, h.reliable)
	case h.fin:
		d.say(BlameWire, "the peer's FIN at %d has come, but only %d bytes without a gap", h.final, h.got.prefix)
	case h.stop && h.stopAcked:
		d.say(BlameWire, "the peer has our STOP_SENDING, and its RESET_STREAM has not come yet")
	case h.stop:
		d.say(BlameWire, "we have sent STOP_SENDING, and the peer's RESET_STREAM has not come yet")
	case h.got.prefix < h.high:
		d.say(BlameWire, "%d bytes have come from the peer, but only %d without a gap", h.got.prefix+h.got.rest.size(), h.got.prefix)
	case d.limit < 0:
		d.doubt(nil, "the peer has sent neither FIN nor RESET_STREAM, and our transport parameters were not seen")
	case d.limit == 0:
		d.doubt(bothApps, "the peer has sent nothing, and our transport parameters allow no byte")
	case h.high >= d.limit:
		d.say(BlameOurApp, "the peer has sent all of the %d bytes that our MAX_STREAM_DATA allows, and we do not raise it by reading", d.limit)
	case h.high >= max(initial, h.limitSeen):
		d.say(BlameWire, "our MAX_STREAM_DATA of %d is not acknowledged yet", d.limit)
	case v.received >= v.receivedMax:
		d.doubt(bothApps, "the peer has sent %d bytes and neither FIN nor RESET_STREAM, but our MAX_DATA of %d is used up, so it may be unable to send more", h.high, v.receivedMax)
	case v.received >= v.receivedMaxSeen:
		d.say(BlameWire, "our MAX_DATA of %d is not acknowledged yet", v.receivedMax)
	default:
		d.say(BlamePeerApp, "the peer has sent %d bytes and neither FIN nor RESET_STREAM, though MAX_STREAM_DATA allows %d", h.high, d.limit)
	}
	return d
}

// verdict returns what sending and receiving have in common.
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
	out, halves := v.halves(i, str)
	if slices.ContainsFunc(halves, func(d verdict) bool { return !d.over }) {
		out.Blame, out.Candidates = combine(halves)
		b := v.waitsFor(&out)
		b = append(appendTexts(append(b, ": "...), halves), '.')
		out.Proof = v.proof(b)
		return out
	}
	if str.complete != 0 {
		out.Since = out.Complete
	}
	if str.heldAt != 0 {
		out.KnownHeld = timeOf(str.heldAt)
	}
	d := v.complete(&v.kinds[i], str.letGoAt, str.complete)
	out.Blame, out.Candidates = d.whom, slices.Clone(d.among)
	b := appendTexts(append(v.buf[:0], "It is complete on the wire ("...), halves)
	b = d.appendText(append(b, "). "...))
	if after := out.KnownHeld.Sub(out.Complete); str.heldAt != 0 && after >= time.Millisecond {
		b = append(b, " It still held its slot "...)
		b = append(b, after.Round(time.Millisecond).String()...)
		b = append(b, " after it was complete."...)
	}
	out.Proof = v.proof(b)
	return out
}

// halves returns the Stream for str, which is of kind i, without blame and
// proof. It also returns the verdicts on its halves.
func (v *view) halves(i int, str *stream) (Stream, []verdict) {
	c := &v.kinds[i]
	id := quic.StreamID(v.idOf(i, str.num))
	out := Stream{
		ID: id, Last: id, Count: 1, Incoming: c.incoming, Unidirectional: c.uni, Label: str.label,
		Opened: timeOf(str.opened), Complete: timeOf(str.complete),
		Since: timeOf(max(str.opened, str.send.last, str.recv.last)), KnownHeld: timeOf(v.now),
	}
	halves := v.verdicts[:0]
	if c.hasReceive() {
		d := v.receiving(c, &str.recv)
		out.Receive = d.half(&str.recv)
		halves = append(halves, d)
	}
	if c.hasSend() {
		d := v.sending(c, &str.send)
		out.Send = d.half(&str.send)
		halves = append(halves, d)
	}
	return out, halves
}

func appendTexts(b []byte, halves []verdict) []byte {
	for i := range halves {
		if i > 0 {
			b = append(b, "; "...)
		}
		b = halves[i].appendText(b)
	}
	return b
}

// proof returns b as a string, and keeps the memory of b for the next proof.
func (v *view) proof(b []byte) string {
	v.buf = b
	return string(b)
}

// combine judges a stream by its halves that are not over.
func combine(halves []verdict) (Blame, []Blame) {
	var may [BlameWire + 1]bool
	n, open := 0, false // n: how many blames are possible; open: any blame is possible
	add := func(b Blame) {
		if !may[b] {
			may[b] = true
			n++
		}
	}
	sure := true
	for _, d := range halves {
		switch {
		case d.over:
		case d.whom == BlameWire:
			return BlameWire, nil // frames under way come first
		case d.whom != BlameUnknown:
			add(d.whom)
		default:
			sure = false
			open = open || len(d.among) == 0
			for _, b := range d.among {
				add(b)
			}
		}
	}
	if open {
		return BlameUnknown, nil
	}
	var all []Blame
	for b := BlameOurApp; b <= BlameWire; b++ {
		switch {
		case may[b] && n == 1 && sure:
			return b, nil
		case may[b]:
			all = append(all, b)
		}
	}
	return BlameUnknown, all
}

// waitsFor begins a proof with what s waits for.
func (v *view) waitsFor(s *Stream) []byte {
	b := v.buf[:0]
	switch {
	case s.Blame != BlameUnknown:
		return append(append(b, "It waits for "...), inWords(s.Blame)...)
	case len(s.Candidates) == 0:
		return append(b, "The frames do not tell whom it waits for"...)
	}
	b = append(b, "It waits for "...)
	for i, c := range s.Candidates {
		if i > 0 {
			b = append(b, " or "...)
		}
		b = append(b, inWords(c)...)
	}
	return b
}

func inWords(b Blame) string {
	switch b {
	case BlameOurApp:
		return "our application"
	case BlamePeerApp:
		return "the peer's application"
	}
	return "the network"
}

// complete judges streams that are complete on the wire. since is when they
// became complete. letGoAt is how many streams had been let go of when they
// became candidates.
func (v *view) complete(c *counters, letGoAt, since int64) (d verdict) {
	letGo := c.letGo()
	fresh, among := v.now-since < int64(sentWithin), ourAppOrWire
	if !c.incoming {
		fresh, among = v.now-since < int64(freshFor), peerAppOrWire
	}
	switch {
	case c.broken != "":
		d.doubt(nil, "Whether its slot was given back is not known: "+c.broken+".")
	case c.limit < 0:
		d.doubt(nil, "Whether its slot was given back is not known: the transport parameters were not seen.")
	case c.max >= maxNumber:
		d.doubt(nil, "Whether its slot was given back is not known: the limit is so high that MAX_STREAMS is not sent.")
	case letGo > letGoAt:
		d.doubt(nil, "So are %d streams of its kind in all, and the highest MAX_STREAMS, %d, has given back %d of their slots. No frame says which.", c.candidates, c.max, letGo-c.dropped)
	case v.ended != 0 && fresh:
		d.doubt(among, "The connection ended before a MAX_STREAMS could give back its slot.")
	case c.incoming && v.congested:
		d.doubt(among, "We have sent no MAX_STREAMS since, but one may be waiting for our congestion window.")
	case !c.incoming && fresh:
		d.say(BlameWire, "The MAX_STREAMS that gives back its slot may be on its way.")
	case !v.givesBackOneByOne(c):
		d.doubt(among, "No MAX_STREAMS has given back a slot since, but it was not seen that slots are given back one by one.")
	case c.incoming:
		d.say(BlameOurApp, "We have sent no MAX_STREAMS since, so it waits for our application to accept it and to read it to its end.")
	default:
		d.say(BlamePeerApp, "The peer has sent no MAX_STREAMS since, so it waits for the peer's application to accept it and to read it to its end.")
	}
	return d
}

// givesBackOneByOne reports whether the accepting end of c would have sent
// MAX_STREAMS if it had let go of a stream.
func (v *view) givesBackOneByOne(c *counters) bool {
	if c.unit || c.opened >= c.max { // an end whose limit is used up gives back what it can
		return true
	}
	first := kindOutgoing
	if c.incoming {
		first = kindIncoming
	}
	a, b := &v.kinds[first], &v.kinds[first+1]
	return a.seen+b.seen > 0 && !a.holes() && !b.holes()
}

// silent judges the streams r of kind i, which have no frame of their own yet.
func (v *view) silent(i int, r interval) Stream {
	c := &v.kinds[i]
	none := stream{num: r.lo, opened: r.at}
	none.send.final, none.recv.final = -1, -1
	out, halves := v.halves(i, &none)
	out.Last, out.Count = quic.StreamID(v.idOf(i, r.hi-1)), r.hi-r.lo
	out.Blame, out.Candidates = combine(halves)
	proof := "A later stream has opened it, and we have sent no frame of its own. "
	if c.incoming {
		proof = "A later stream has opened it, and no frame of its own has come. "
		switch fresh := v.now-r.at < int64(freshFor); {
		case fresh && v.ended == 0:
			out.Blame, out.Candidates = BlameWire, nil
		case fresh:
			out.Blame, out.Candidates = BlameUnknown, nil
			proof = "A later stream has opened it, and the connection ended before a frame of its own came. "
		}
	}
	out.Proof = proof + v.proof(append(v.waitsFor(&out), '.'))
	return out
}

// foldedStreams judges the complete streams of kind i that are not kept one by one.
func (v *view) foldedStreams(i int) Stream {
	c := &v.kinds[i]
	d := v.complete(c, c.foldedAt, c.foldedUntil)
	b := append(v.buf[:0], "Each of these "...)
	b = append(strconv.AppendInt(b, c.folded, 10), " streams is complete on the wire. "...)
	return Stream{
		ID: quic.StreamID(v.idOf(i, c.foldedFirst)), Last: quic.StreamID(v.idOf(i, c.foldedLast)), Count: c.folded,
		Incoming: c.incoming, Unidirectional: c.uni,
		Complete: timeOf(c.foldedSince), Since: timeOf(c.foldedSince),
		Blame: d.whom, Candidates: slices.Clone(d.among), Proof: v.proof(d.appendText(b)),
	}
}

func timeOf(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds)
}
