package ledger

import (
	"maps"
	"slices"
)

// This file works out counts and streams from the frames of a connection. Its
// input is events, in the order in which one end sent and received the frames.
// It depends neither on quic-go nor on qlog.

const (
	maxComplete = 1024    // complete streams of a kind that are kept one by one
	maxRecords  = 1 << 18 // streams of a kind
	maxSilent   = 1 << 12 // ranges of streams of a kind without a frame of their own
	maxGaps     = 1 << 10 // ranges of bytes of a half that came out of order
	maxInFlight = 1 << 16 // frames under way
	maxBehind   = 1 << 14 // a packet this far behind an acknowledged one is given up
	maxLabels   = 1 << 10 // labels of streams without a frame yet
	maxNumber   = 1 << 60 // streams of a kind, by RFC 9000, section 4.6
	maxOffset   = 1 << 62
)

type op uint8

const (
	opNone op = iota
	// Frames. They set sent, and those that we sent also set pn.
	opStream            // id, n1: the offset, n2: the length, fin
	opReset             // id, n1: the final size, n2: the reliable size, code
	opStopSending       // id, code
	opMaxStreamData     // id, n1: the limit
	opStreamDataBlocked // id
	opMaxData           // n1: the limit
	opMaxStreams        // uni, n1: the limit
	opStreamsBlocked    // uni, n1: the limit
	// What became of packets that we sent.
	opAcked // packets n1 to n2
	opLost  // packets n1 to n2
	opRetry // all packets so far
	// Other events.
	opParameters // sent, params
	opRestored   // params: those of an earlier connection, for 0-RTT
	opEarlyKeys  // we have 0-RTT keys
	opEarlyDone  // 0-RTT keys were discarded: the server accepted 0-RTT
	opKeys       // we have 1-RTT keys
	opMetrics    // n1: the congestion window, n2: the bytes in flight
	opLabel      // id, text
	opClosed     // text: the reason
)

// An event is one thing that one end of a connection traced.
type event struct {
	op     op
	sent   bool // we sent it; if false, the peer did
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

// parameters are the transport parameters that we use.
type parameters struct {
	maxData                     int64
	dataLocal, dataRemote, data int64 // initial_max_stream_data_bidi_local, _bidi_remote and _uni
	streams, streamsUni         int64
}

// A half is one direction of a stream, as the frames so far describe it.
type half struct {
	high      int64 // bytes: the highest offset, or the final size
	final     int64 // the final size, -1 if it is not known
	reliable  int64 // the reliable size of RESET_STREAM_AT
	limit     int64 // the highest MAX_STREAM_DATA, 0 if none was seen
	limitSeen int64 // receive half: the highest limit that the peer acknowledged
	code      uint64
	stopCode  uint64
	last      int64 // when its last frame was seen
	got       spans // send half: bytes acknowledged; receive half: bytes that came

	fin, reset bool
	endAcked   bool // send half: our FIN or our RESET_STREAM was acknowledged
	stop       bool // the receiver sent STOP_SENDING
	stopAcked  bool // receive half: the peer acknowledged our STOP_SENDING
	torn       bool // too many gaps, or too much under way, to keep track of the bytes
}

// A stream holds a slot of the accepting end, or may hold one.
type stream struct {
	num        int64
	opened     int64 // when its first frame was seen
	complete   int64 // when it was complete on the wire, 0 if it is not
	label      string
	send, recv half

	candidate bool  // the accepting end may have let go of it
	letGoAt   int64 // how many streams that end had let go of when candidate was set
	heldAt    int64 // when the next slot was given back, 0 if none was
}

// counters are the counts of one kind of streams.
type counters struct {
	incoming, uni bool
	unit          bool // the accepting end is known to give slots back one by one

	limit int64 // from the transport parameters, -1 if they were not seen
	max   int64 // the highest MAX_STREAMS, but at least limit
	seen  int64 // how many different values of MAX_STREAMS above limit were seen

	opened    int64 // streams that have reached the accepting end
	named     int64 // opened, plus the streams whose first frame is under way
	complete  int64 // streams that became complete on the wire, in all
	blockedAt int64 // the highest STREAMS_BLOCKED, -1 if none was seen

	dropped     int64  // candidates that we know were let go of
	candidates  int64  // the other candidates
	foldedFirst int64  // candidates that are not kept one by one: the lowest number
	foldedLast  int64  // their highest number
	folded      int64  // how many there are
	foldedAt    int64  // the lowest letGoAt among them
	foldedSince int64  // when the first of them was complete
	foldedUntil int64  // when the last of them was complete
	broken      string // why the counts can no longer be exact, "" if they can
}

// letGo returns how many streams the accepting end has let go of.
func (c *counters) letGo() int64 {
	if c.limit < 0 {
		return 0
	}
	return c.max - c.limit
}

// holes reports whether some values between limit and max were not seen.
func (c *counters) holes() bool { return c.limit >= 0 && c.seen < c.max-c.limit }

// inexact returns why the counts may be wrong, or "".
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

// A kind is all bidirectional or all unidirectional streams that one end opened.
type kind struct {
	counters
	streams map[int64]*stream // by number
	peak    int               // the highest len(streams) since the map was made
	silent  ranges            // opened by a later stream, without a frame of their own
	queue   []*stream         // candidates, in the order in which they became candidates
	values  ranges            // values of MAX_STREAMS above limit
}

// connection is the state that all streams share.
type connection struct {
	client    bool
	our, peer *parameters
	restored  *parameters

	sent, sentMax         int64 // bytes of all streams, and the MAX_DATA for them
	received, receivedMax int64
	receivedMaxSeen       int64 // the highest MAX_DATA that the peer acknowledged
	congested             bool

	began, ended int64
	reason       string // why it ended
	missing      string // what a file lacks
}

// A state is what we know of one connection from its frames.
type state struct {
	connection
	kinds  [4]kind
	flight flight
	labels map[int64]string // labels of streams without a frame yet
	early  bool             // we are a client that has 0-RTT keys
	live   bool             // the events come from a running quic-go, so none is missing
	// starved is set when the peer needs a slot and has none. The caller clears it.
	starved bool
}

const (
	kindIncoming, kindIncomingUni = 0, 1
	kindOutgoing, kindOutgoingUni = 2, 3
)

// newState returns the state of a new connection. unit says that our end is
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

// hasSend and hasReceive report whether streams of this kind have that half at
// our end.
func (c *counters) hasSend() bool    { return !c.uni || !c.incoming }
func (c *counters) hasReceive() bool { return !c.uni || c.incoming }

// apply updates s with e.
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
			// The peer cannot know a limit above max. If we believed it, we would
			// ignore its later STREAMS_BLOCKED.
			e.n1 = min(e.n1, k.max)
		}
		if e.n1 > k.blockedAt {
			k.blockedAt = e.n1
			// A lower limit is out of date: slots were given back since.
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
			s.flight, s.labels = flight{}, nil // no more frames will come
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
	for len(k.values) > 0 && k.values[0].lo <= n { // seen before the transport parameters
		k.values[0].lo = min(n+1, k.values[0].hi)
		if k.values[0].lo == k.values[0].hi {
			k.values = k.values[1:]
		}
	}
	k.seen = k.values.size()
	k.settle()
}

// rejected forgets what was sent in 0-RTT packets. The server has ignored them,
// so the stream numbers start again.
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
		k.queue[i].heldAt = at // all earlier candidates have one already
	}
	k.max = n
	// A stream that was let go of has reached the peer, even if no ACK said so.
	k.opened = max(k.opened, min(k.letGo(), k.named))
	k.settle()
}

func (k *kind) fail(why string) {
	if k.broken == "" {
		k.broken = why
	}
}

// touch is called for each frame of a stream. It opens the stream and all
// streams below it, and returns the stream. It returns nil if we no longer keep
// the stream, if its number is above the limit, or if there are too many streams.
func (s *state) touch(i int, num, at int64) *stream {
	k := &s.kinds[i]
	if str := k.streams[num]; str != nil {
		return str
	}
	switch {
	case s.live && k.incoming && k.limit >= 0 && num >= k.max:
		return nil // quic-go does not open it, and ends the connection
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
		return nil // a late frame of a stream that we no longer keep
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
	// A STREAM or RESET_STREAM is about the half of the end that sent it. A
	// STOP_SENDING or MAX_STREAM_DATA is about the half of the other end.
	sends := e.sent
	if e.op == opStopSending || e.op == opMaxStreamData {
		sends = !e.sent
	}
	if sends && !k.hasSend() || !sends && !k.hasReceive() {
		return
	}
	str := s.touch(i, num, e.at)
	if !k.incoming && !e.sent {
		k.opened = max(k.opened, num+1) // the peer sent a frame about it, so it knows the stream
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
		// A second RESET_STREAM_AT may promise less. The lower size counts, in
		// whichever order they come.
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

// grow raises h.high to high, and adds the new bytes to those of the connection.
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

// delivered notes that the peer has acknowledged f.
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

// untracked notes that we will not learn what becomes of f, because too many
// frames are under way.
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

// sendOver reports whether the peer has acknowledged all that we have to send.
func (h *half) sendOver() bool {
	switch {
	case !h.endAcked:
		return false
	case h.reset:
		return h.got.prefix >= h.reliable
	}
	return h.got.prefix >= h.final
}

// receiveOver reports whether nothing more has to come. incoming says that our
// end gives back the slot. quic-go then needs nothing more once it has sent
// STOP_SENDING and knows the final size. For streams that we opened this does
// not count, because the peer decides.
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

// over reports whether str is complete on the wire, in both directions.
func (k *kind) over(str *stream) bool {
	return (!k.hasSend() || str.send.sendOver()) && (!k.hasReceive() || str.recv.receiveOver(k.incoming))
}

// mayBeLetGo reports whether the accepting end may have let go of str. It turns
// true before over does, for two reasons. The peer may have received what it has
// not acknowledged yet. And an application that cancelled does not wait for the
// missing bytes.
func (k *kind) mayBeLetGo(str *stream) bool {
	send, recv := &str.send, &str.recv
	if k.incoming {
		return recv.final >= 0 && (k.uni || send.sendOver() || send.torn && send.endAcked)
	}
	return (send.fin || send.reset) && (k.uni || recv.reset || recv.fin && (recv.got.prefix >= recv.final || recv.torn))
}

// judgeEnd checks whether str is now complete, and whether it is now a candidate.
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

// settle forgets the candidates once all of them were let go of.
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
			k.complete++ // it was complete: otherwise it would not have been let go of
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

// fold bounds the queue. If the queue is too long, fold replaces one complete
// candidate by counts.
func (k *kind) fold() {
	if len(k.queue) <= maxComplete {
		return
	}
	i := slices.IndexFunc(k.queue, func(str *stream) bool { return str.complete != 0 })
	if i < 0 {
		return // no candidate is complete, and maxRecords bounds them
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
