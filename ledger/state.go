package ledger

import (
	"maps"
	"slices"
)

// This file is what the frames of a connection add up to. It knows neither
// QUIC's implementation nor qlog: events go in, in the order in which one end
// sent and received them, and counts and streams come out.

const (
	maxComplete = 1024    // complete streams of a kind that are kept one by one
	maxRecords  = 1 << 18 // streams of a kind
	maxSilent   = 1 << 12 // ranges of streams of a kind of which no frame was seen
	maxGaps     = 1 << 10 // ranges of bytes of a half that have come out of order
	maxInFlight = 1 << 16 // frames
	maxBehind   = 1 << 14 // packets that a later one overtakes, until it is lost
	maxLabels   = 1 << 10 // of streams not yet seen
	maxNumber   = 1 << 60 // of streams, RFC 9000 section 4.6
	maxOffset   = 1 << 62
)

type op uint8

const (
	opNone op = iota
	// Frames, which have sent and, if it is true, pn.
	opStream            // id, n1 the offset, n2 the length, fin
	opReset             // id, n1 the final size, n2 the reliable size, code
	opStopSending       // id, code
	opMaxStreamData     // id, n1
	opStreamDataBlocked // id
	opMaxData           // n1
	opMaxStreams        // uni, n1
	opStreamsBlocked    // uni, n1
	// Fates of packets that we sent.
	opAcked // the numbers n1 to n2
	opLost  // the numbers n1 to n2
	opRetry // all that was sent so far
	// What else matters.
	opParameters // sent, params
	opRestored   // params, of the last connection, for 0-RTT
	opEarlyKeys  // 0-RTT keys are there
	opEarlyDone  // 0-RTT keys are no longer needed: the server took 0-RTT
	opKeys       // 1-RTT keys are there
	opMetrics    // n1 the congestion window, n2 the bytes in flight
	opLabel      // id, text
	opClosed     // text
)

// An event is something that one end of a connection traced.
type event struct {
	op     op
	sent   bool // by us, not by the peer
	fin    bool
	uni    bool
	at     int64 // nanoseconds since 1970
	pn     int64
	id     int64
	n1, n2 int64
	code   uint64
	params *parameters
	text   string
}

// parameters are the transport parameters that matter.
type parameters struct {
	maxData                     int64
	dataLocal, dataRemote, data int64 // initial_max_stream_data_bidi_local, _bidi_remote and _uni
	streams, streamsUni         int64
}

// A half is one direction of a stream, as far as frames told.
type half struct {
	high      int64 // bytes: the highest offset, or the final size
	final     int64 // -1: not known
	reliable  int64 // of RESET_STREAM_AT
	limit     int64 // the highest MAX_STREAM_DATA, 0 if there was none
	limitSeen int64 // of what we receive: the highest that the peer acknowledged
	code      uint64
	stopCode  uint64
	last      int64 // when its last frame was seen
	got       spans // bytes that were acknowledged, or have come

	fin, reset bool
	endAcked   bool // of what we send: our FIN, or our RESET_STREAM
	stop       bool // its receiver sent STOP_SENDING
	stopAcked  bool // and it was ours, and the peer has it
	torn       bool // too much of it has gaps, or is under way, to tell what is there
}

// A stream is one that the accepting end has, or may have.
type stream struct {
	num        int64
	opened     int64 // when its first frame was seen
	complete   int64 // when it was complete on the wire, 0 if it is not
	label      string
	send, recv half

	candidate bool  // the accepting end may have let go of it
	letGoAt   int64 // how many it had let go of when it became one
	heldAt    int64 // when a slot was given back first after that, 0 if none was
}

// counters are the numbers of a kind.
type counters struct {
	incoming, uni bool
	unit          bool // the accepting end is known to give slots back one by one

	limit int64 // of the transport parameters, -1 if they were not seen
	max   int64 // the highest MAX_STREAMS, and at least limit
	seen  int64 // how many values of MAX_STREAMS were seen above limit

	opened    int64 // streams that the accepting end has
	named     int64 // opened, and those whose first frame is under way to it
	complete  int64 // of all: those that were complete on the wire
	blockedAt int64 // the highest STREAMS_BLOCKED, -1 if there was none

	dropped     int64 // candidates that were found to be let go of
	candidates  int64 // those that were not
	foldedFirst int64 // of them: those not kept one by one, their lowest number
	foldedLast  int64
	folded      int64 // and how many they are
	foldedAt    int64 // the lowest letGoAt among them
	foldedSince int64 // when the first of them was complete
	foldedUntil int64 // and the last
	broken      string
}

// letGo is how many streams the accepting end has let go of.
func (c *counters) letGo() int64 {
	if c.limit < 0 {
		return 0
	}
	return c.max - c.limit
}

func (c *counters) holes() bool { return c.limit >= 0 && c.seen < c.max-c.limit }

// inexact says why the counts may be wrong, or "".
func (c *counters) inexact() string {
	switch {
	case c.broken != "":
		return c.broken
	case c.limit < 0:
		return "the transport parameters were not seen"
	case c.max >= maxNumber:
		return "the limit is so high that MAX_STREAMS is not sent"
	case !c.unit && c.holes():
		return "slots are given back several at a time, or a MAX_STREAMS is under way"
	case c.opened < c.named:
		return "streams are on their way to the peer"
	}
	return ""
}

// A kind is the streams of one direction of opening, bidirectional or not.
type kind struct {
	counters
	streams map[int64]*stream // by number
	peak    int               // the most there were in it
	silent  ranges            // numbers that are opened, of which no frame was seen
	queue   []*stream         // candidates, in the order in which they became ones
	values  ranges            // of MAX_STREAMS, above limit
}

// connection is what is the same for all streams.
type connection struct {
	client    bool
	our, peer *parameters
	restored  *parameters

	sent, sentMax         int64 // bytes of all streams, MAX_DATA and what it allows
	received, receivedMax int64
	receivedMaxSeen       int64 // what the peer acknowledged of MAX_DATA
	congested             bool

	began, ended int64
	reason       string // of the end
	missing      string // what a file lacks
}

// state is what the frames of one connection say.
type state struct {
	connection
	kinds  [4]kind
	flight flight
	labels map[int64]string // of streams of which no frame was seen
	early  bool             // we are a client, and may send 0-RTT
	live   bool             // no event is missing
	// starved is set when the peer needs a slot, and has none. It is for the
	// caller to reset.
	starved bool
}

const (
	kindIncoming, kindIncomingUni = 0, 1
	kindOutgoing, kindOutgoingUni = 2, 3
)

// newState returns the state of a connection. unit tells that this end is
// known to give slots back one by one.
func newState(client, unit bool) *state {
	s := &state{connection: connection{client: client}}
	for i := range s.kinds {
		s.kinds[i].reset(i, unit && i < kindOutgoing)
	}
	return s
}

func (k *kind) reset(i int, unit bool) {
	*k = kind{counters: counters{
		incoming: i < kindOutgoing, uni: i&1 != 0, unit: unit,
		limit: -1, blockedAt: -1,
	}}
}

func indexOf(incoming, uni bool) int {
	i := kindOutgoing
	if incoming {
		i = kindIncoming
	}
	if uni {
		i++
	}
	return i
}

// place returns the kind and the number of a stream.
func (s *state) place(id int64) (i int, num int64) {
	return indexOf(id&1 != 0 == s.client, id&2 != 0), id >> 2
}

// idOf is the inverse of place.
func (c *connection) idOf(i int, num int64) int64 {
	id := num << 2
	if i&1 != 0 {
		id |= 2
	}
	if (i < kindOutgoing) == c.client {
		id |= 1
	}
	return id
}

// hasSend and hasReceive report whether streams of the kind have that half.
func (c *counters) hasSend() bool    { return !c.uni || !c.incoming }
func (c *counters) hasReceive() bool { return !c.uni || c.incoming }

// apply takes e in.
func (s *state) apply(e event) {
	switch e.op {
	case opStream, opReset, opStopSending, opMaxStreamData, opStreamDataBlocked:
		s.applyToStream(e)
	case opMaxData:
		if !e.sent {
			s.sentMax = max(s.sentMax, e.n1)
			return
		}
		s.receivedMax = max(s.receivedMax, e.n1)
		s.flight.add(sentFrame{pn: e.pn, op: e.op, n1: e.n1}, s.untracked)
	case opMaxStreams:
		s.kinds[indexOf(e.sent, e.uni)].maxStreams(e.n1, e.at)
	case opStreamsBlocked:
		k := &s.kinds[indexOf(!e.sent, e.uni)]
		if !e.sent && k.limit >= 0 {
			e.n1 = min(e.n1, k.max) // no more was promised: else one lie would silence all that follow
		}
		if e.n1 > k.blockedAt {
			k.blockedAt = e.n1
			// A lower one is of the past: slots have been given back since.
			s.starved = s.starved || !e.sent && k.limit >= 0 && e.n1 >= k.max
		}
	case opAcked:
		s.flight.settle(e.n1, e.n2, func(f sentFrame) { s.delivered(f, e.at) })
		s.flight.forget(e.n2 - maxBehind)
	case opLost:
		s.flight.settle(e.n1, e.n2, nil)
	case opRetry:
		s.flight.clear()
	case opParameters:
		s.parameters(e)
	case opRestored:
		s.restored = e.params
		s.sentMax = max(s.sentMax, e.params.maxData)
	case opEarlyKeys:
		s.early = s.client
	case opEarlyDone:
		s.early = false
	case opKeys:
		if s.early {
			s.rejected()
		}
	case opMetrics:
		s.congested = e.n1 > 0 && e.n2 >= e.n1
	case opLabel:
		s.setLabel(e.id, e.text)
	case opClosed:
		if s.ended == 0 {
			s.ended, s.reason = e.at, e.text
			s.flight, s.labels = flight{}, nil // nothing comes any more
		}
	}
}

func (s *state) parameters(e event) {
	if e.sent {
		if s.our != nil {
			return
		}
		s.our = e.params
		s.receivedMax = max(s.receivedMax, e.params.maxData)
		s.receivedMaxSeen = max(s.receivedMaxSeen, e.params.maxData)
		s.kinds[kindIncoming].setLimit(e.params.streams)
		s.kinds[kindIncomingUni].setLimit(e.params.streamsUni)
		return
	}
	if s.peer != nil {
		return
	}
	s.peer = e.params
	s.sentMax = max(s.sentMax, e.params.maxData)
	s.kinds[kindOutgoing].setLimit(e.params.streams)
	s.kinds[kindOutgoingUni].setLimit(e.params.streamsUni)
}

func (k *kind) setLimit(n int64) {
	k.limit, k.max = n, max(k.max, n)
	for len(k.values) > 0 && k.values[0].lo <= n { // a MAX_STREAMS that was traced before
		k.values[0].lo = min(n+1, k.values[0].hi)
		if k.values[0].lo == k.values[0].hi {
			k.values = k.values[1:]
		}
	}
	k.seen = k.values.size()
	k.settle()
}

// rejected forgets what was sent in 0-RTT packets, which the server dropped:
// the numbers of streams begin anew.
func (s *state) rejected() {
	s.early = false
	s.flight.clear()
	s.sent, s.sentMax = 0, 0
	s.restored = nil
	for i := kindOutgoing; i < len(s.kinds); i++ {
		s.kinds[i].reset(i, s.kinds[i].unit)
	}
	clear(s.labels)
	if p := s.peer; p != nil {
		s.peer = nil
		s.parameters(event{params: p})
	}
}

func (k *kind) maxStreams(n, at int64) {
	n = min(n, maxNumber)
	if n <= k.limit {
		return
	}
	if !k.unit {
		if !k.values.add(n, n+1, maxGaps) {
			k.fail("MAX_STREAMS comes with gaps")
		}
		k.seen = k.values.size()
	}
	if n <= k.max {
		return
	}
	for i := len(k.queue) - 1; i >= 0 && k.queue[i].heldAt == 0; i-- {
		k.queue[i].heldAt = at // all that came before have one
	}
	k.max = n
	// What is let go of was opened, though we may not have seen that it came.
	k.opened = max(k.opened, min(k.letGo(), k.named))
	k.settle()
}

func (k *kind) fail(why string) {
	if k.broken == "" {
		k.broken = why
	}
}

// touch returns the stream with the number num, of which a frame was just
// seen, and opens it and all below it. It returns nil if the accepting end has
// let go of the stream, or if it is one of too many.
func (s *state) touch(i int, num, at int64) *stream {
	k := &s.kinds[i]
	if str := k.streams[num]; str != nil {
		return str
	}
	switch {
	case s.live && k.incoming && k.limit >= 0 && num >= k.max:
		return nil // quic-go opens none above the limit, and ends the connection
	case num >= k.named:
		if num > k.named {
			if !k.silent.addAt(k.named, num, at, maxSilent) {
				k.fail("too many streams were opened without a frame of their own")
			}
		}
		k.named = num + 1
		if k.incoming {
			k.opened = k.named
		}
	case !k.silent.remove(num, maxSilent):
		return nil // a late frame of a stream that we have done with
	}
	if len(k.streams) >= maxRecords {
		k.fail("too many streams")
		return nil
	}
	str := &stream{num: num, opened: at}
	str.send.final, str.recv.final = -1, -1
	if id := s.idOf(i, num); len(s.labels) > 0 {
		str.label = s.labels[id]
		delete(s.labels, id)
	}
	if k.streams == nil {
		k.streams = make(map[int64]*stream)
	}
	k.streams[num] = str
	k.peak = max(k.peak, len(k.streams))
	return str
}

func (s *state) applyToStream(e event) {
	if e.id < 0 || e.id >= maxOffset || e.n1 < 0 || e.n2 < 0 || e.n1 > maxOffset || e.n2 > maxOffset-e.n1 && e.op == opStream {
		return
	}
	i, num := s.place(e.id)
	k := &s.kinds[i]
	// The half is the one that the sender of STREAM and RESET_STREAM sends.
	sends := e.sent
	if e.op == opStopSending || e.op == opMaxStreamData {
		sends = !e.sent
	}
	if sends && !k.hasSend() || !sends && !k.hasReceive() {
		return
	}
	str := s.touch(i, num, e.at)
	if !k.incoming && !e.sent {
		k.opened = max(k.opened, num+1) // the peer has it, or it could not speak of it
	}
	if e.sent {
		s.flight.add(sentFrame{pn: e.pn, op: e.op, fin: e.fin, kind: uint8(i), num: num, n1: e.n1, n2: e.n2}, s.untracked)
	}
	if str == nil {
		return
	}
	h := &str.recv
	if sends {
		h = &str.send
	}
	h.last = e.at
	switch e.op {
	case opStream:
		s.grow(h, sends, e.n1+e.n2)
		if !sends && !h.got.add(e.n1, e.n1+e.n2) {
			h.torn = true
		}
		if e.fin {
			h.fin, h.final = true, e.n1+e.n2
		}
	case opReset:
		s.grow(h, sends, e.n1)
		// A later one may promise less, and it does not matter which comes first.
		if reliable := min(e.n2, e.n1); !h.reset || reliable < h.reliable {
			h.endAcked = h.sendOver()
			h.reliable = reliable
		}
		h.reset, h.final, h.code = true, e.n1, e.code
	case opStopSending:
		h.stop, h.stopCode = true, e.code
	case opMaxStreamData:
		h.limit = max(h.limit, e.n1)
	}
	s.judgeEnd(k, str, e.at)
}

// grow counts the bytes of h up to high.
func (s *state) grow(h *half, sends bool, high int64) {
	if high <= h.high {
		return
	}
	if sends {
		s.sent += min(high-h.high, maxOffset-s.sent)
	} else {
		s.received += min(high-h.high, maxOffset-s.received)
	}
	h.high = high
}

// delivered is called when the peer has acknowledged f.
func (s *state) delivered(f sentFrame, at int64) {
	if f.op == opMaxData {
		s.receivedMaxSeen = max(s.receivedMaxSeen, f.n1)
		return
	}
	k := &s.kinds[f.kind]
	if !k.incoming {
		k.opened = max(k.opened, min(f.num+1, k.named))
	}
	str := k.streams[f.num]
	if str == nil {
		return
	}
	switch f.op {
	case opStream:
		h := &str.send
		if !h.got.add(f.n1, f.n1+f.n2) {
			h.torn = true
		}
		if f.fin && !h.reset {
			h.endAcked = true
		}
	case opReset:
		if h := &str.send; f.n2 <= h.reliable {
			h.endAcked = true
		}
	case opStopSending:
		str.recv.stopAcked = true
	case opMaxStreamData:
		str.recv.limitSeen = max(str.recv.limitSeen, f.n1)
	}
	s.judgeEnd(k, str, at)
}

// untracked is called when too much is under way to learn what becomes of f.
func (s *state) untracked(f sentFrame) {
	str := s.kinds[f.kind].streams[f.num]
	if str == nil {
		return
	}
	switch f.op {
	case opStream, opReset:
		str.send.torn = true
	case opMaxStreamData:
		str.recv.torn = true
	}
}

// sendOver reports whether all that we have to send is with the peer.
func (h *half) sendOver() bool {
	switch {
	case !h.endAcked:
		return false
	case h.reset:
		return h.got.prefix >= h.reliable
	}
	return h.got.prefix >= h.final
}

// receiveOver reports whether nothing more has to come. With incoming a
// receiver that has sent STOP_SENDING, and knows the final size, wants no more.
// That is our end's view, and where the peer decides it does not count.
func (h *half) receiveOver(incoming bool) bool {
	switch {
	case h.final < 0:
		return false
	case h.reset && h.got.prefix >= h.reliable:
		return true
	case h.fin && h.got.prefix >= h.final:
		return true
	}
	return incoming && h.stop
}

// over reports whether str is complete on the wire, on both ends.
func (k *kind) over(str *stream) bool {
	return (!k.hasSend() || str.send.sendOver()) && (!k.hasReceive() || str.recv.receiveOver(k.incoming))
}

// mayBeLetGo reports whether the accepting end may have let go of str. It is
// true earlier than over: the peer may have what it has not acknowledged yet,
// and an application that cancelled does not wait for bytes.
func (k *kind) mayBeLetGo(str *stream) bool {
	send, recv := &str.send, &str.recv
	if k.incoming {
		return recv.final >= 0 && (k.uni || send.sendOver() || send.torn && send.endAcked)
	}
	return (send.fin || send.reset) && (k.uni || recv.reset || recv.fin && (recv.got.prefix >= recv.final || recv.torn))
}

// judgeEnd notes what str has become.
func (s *state) judgeEnd(k *kind, str *stream, at int64) {
	if str.complete != 0 || !k.mayBeLetGo(str) {
		return
	}
	if k.over(str) {
		str.complete = max(at, 1)
		k.complete++
	}
	if str.candidate {
		return
	}
	str.candidate, str.letGoAt = true, k.letGo()
	k.queue = append(k.queue, str)
	k.candidates++
	k.settle()
	k.fold()
}

// settle drops the candidates if all of them were let go of.
func (k *kind) settle() {
	if k.limit < 0 {
		return
	}
	since := k.letGo() - k.dropped
	if since < k.candidates {
		return
	}
	if since > k.candidates {
		k.fail("more slots were given back than streams have ended")
	}
	for _, str := range k.queue {
		if str.complete == 0 {
			k.complete++ // it was, or it would not have been let go of
		}
		delete(k.streams, str.num)
	}
	clear(k.queue)
	k.queue = k.queue[:0]
	k.dropped = k.letGo()
	k.candidates, k.folded = 0, 0
	if cap(k.queue) > 64 {
		k.queue = nil
	}
	if k.peak > 64 && len(k.streams) < k.peak/4 {
		k.streams, k.peak = maps.Collect(maps.All(k.streams)), len(k.streams) // a map does not shrink
	}
}

// fold keeps the candidates that are kept one by one from being too many.
func (k *kind) fold() {
	if len(k.queue) <= maxComplete {
		return
	}
	i := slices.IndexFunc(k.queue, func(str *stream) bool { return str.complete != 0 })
	if i < 0 {
		return // all have frames under way, and maxRecords bounds them
	}
	str := k.queue[i]
	if k.folded == 0 {
		k.foldedFirst, k.foldedLast = str.num, str.num
		k.foldedAt, k.foldedSince, k.foldedUntil = str.letGoAt, str.complete, 0
	}
	k.foldedFirst, k.foldedLast = min(k.foldedFirst, str.num), max(k.foldedLast, str.num)
	k.foldedAt, k.foldedSince = min(k.foldedAt, str.letGoAt), min(k.foldedSince, str.complete)
	k.foldedUntil = max(k.foldedUntil, str.complete)
	k.folded++
	k.queue = slices.Delete(k.queue, i, i+1)
	delete(k.streams, str.num)
}

func (s *state) setLabel(id int64, text string) {
	if id < 0 || id >= maxOffset {
		return
	}
	i, num := s.place(id)
	k := &s.kinds[i]
	if str := k.streams[num]; str != nil {
		str.label = text
		return
	}
	if num < k.named && !k.silent.has(num) || len(s.labels) >= maxLabels {
		return
	}
	if s.labels == nil {
		s.labels = make(map[int64]string)
	}
	s.labels[id] = text
}
