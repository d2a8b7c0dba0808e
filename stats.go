package quiclife

import (
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"time"
)

// Stats counts the streams of a connection, by kind. Streams that were opened
// or accepted through [Conn.Unwrap] are not among them.
type Stats struct {
	Outgoing    StreamStats // bidirectional, opened here
	OutgoingUni StreamStats // unidirectional, opened here
	Incoming    StreamStats // bidirectional, accepted here
	IncomingUni StreamStats // unidirectional, accepted here
}

// Open is the number of open streams of all kinds.
func (s Stats) Open() int64 {
	return s.Outgoing.Open + s.OutgoingUni.Open + s.Incoming.Open + s.IncomingUni.Open
}

// StreamStats counts the streams of one kind. A stream is open from OpenStream
// or AcceptStream until both of its halves have ended on this side, then it is
// counted in just one of Finished, Released, Reset, Reclaimed and Detached. So
// at all times
//
//	Opened == Open + Finished + Released + Reset + Reclaimed + Detached
type StreamStats struct {
	Open   int64 // open now
	Peak   int64 // the most that were ever open at once
	Opened int64 // in all

	Finished  int64 // ended with FIN sent, and all read up to the peer's FIN, as far as it has these halves
	Released  int64 // ended by Release or the Close of a NetConn, with a half still open; none had been aborted before
	Reset     int64 // else ended with a half aborted by either side, or by the connection's end
	Reclaimed int64 // leaked, and ended for it; a leak may also end otherwise, and be counted there
	Detached  int64 // handed to the program with Detach

	EOFs int64 // of Finished: the peer's FIN was read for the program, which had stopped at the last byte

	// Limit is how many may be open: for incoming streams what the connection
	// was configured with, for outgoing ones Guard.MaxOutgoingStreams or
	// Guard.MaxOutgoingUniStreams, 0 if there is no limit of our own.
	Limit int64
}

// An outcome is how a stream has ended.
type outcome uint8

const (
	finished      outcome = iota
	finishedForIt         // of finished: the EOF was read for the program
	released
	aborted
	reclaimed
	detached
)

func (s *StreamStats) count(as outcome) {
	switch as {
	case finished:
		s.Finished++
	case finishedForIt:
		s.Finished++
		s.EOFs++
	case released:
		s.Released++
	case aborted:
		s.Reset++
	case reclaimed:
		s.Reclaimed++
	case detached:
		s.Detached++
	}
}

// A StreamInfo is a snapshot of a stream.
type StreamInfo struct {
	ID             StreamID
	Incoming       bool // opened by the peer
	Unidirectional bool
	Opened         time.Time     // when it was opened or accepted here
	Age            time.Duration // since then, when the snapshot was taken
	Dropped        bool          // the program no longer holds it, as the garbage collector has found
	Send, Receive  HalfState
	BytesWritten   int64 // taken by Write, not necessarily sent
	BytesRead      int64
	// Stack tells where the stream was opened or accepted, innermost call
	// first, one "function file:line" a line. For a stream that Serve accepted it
	// is the handler. It may be empty without Guard.CaptureStacks.
	Stack string
}

// A HalfState is the state of the send or the receive half of a stream.
type HalfState uint8

const (
	HalfAbsent   HalfState = iota // a unidirectional stream has only one half
	HalfOpen                      // not ended
	HalfFinished                  // sending: FIN was sent; receiving: all was read up to the peer's FIN
	HalfAborted                   // reset by either side, or ended by the connection's end

	halfEnding   // claimed, not yet settled
	halfDetached // given away with Detach
)

// String returns "absent", "open", "finished" or "aborted".
func (h HalfState) String() string {
	return nameOf(h, "absent", "open", "finished", "aborted", "ending", "detached")
}

// GoString returns the constant's name, for failures of tests.
func (h HalfState) GoString() string {
	return nameOf(h, "quiclife.HalfAbsent", "quiclife.HalfOpen", "quiclife.HalfFinished", "quiclife.HalfAborted", "halfEnding", "halfDetached")
}

// MarshalText returns what String does.
func (h HalfState) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// public hides that a half is just being ended.
func (h HalfState) public() HalfState {
	if h >= halfEnding {
		return HalfOpen
	}
	return h
}

func (h HalfState) ended() bool { return h != HalfOpen && h != halfEnding }

// attrs are the attributes of i in a record: scalars, each of one type.
func (i StreamInfo) attrs() []any {
	return []any{
		"stream", int64(i.ID), "incoming", i.Incoming, "unidirectional", i.Unidirectional,
		"send", i.Send.String(), "receive", i.Receive.String(), "age", i.Age,
		"written", i.BytesWritten, "read", i.BytesRead, "opener", i.Stack,
	}
}

// LogValue has the fields as attributes.
func (i StreamInfo) LogValue() slog.Value {
	return slog.GroupValue(slog.Group("", i.attrs()...).Value.Group()...)
}

func (i StreamInfo) String() string {
	by := "by us"
	if i.Incoming {
		by = "by the peer"
	}
	at := ""
	if where, _, ok := strings.Cut(i.Stack, "\n"); ok {
		at = " at " + where
	}
	if i.Dropped {
		at += ", dropped"
	}
	return fmt.Sprintf("stream %d (opened %s %v ago%s, send %v, receive %v, %d bytes written, %d read)",
		i.ID, by, i.Age.Round(time.Millisecond), at, i.Send, i.Receive, i.BytesWritten, i.BytesRead)
}

// A Leak tells of a stream that the program did not end. Reason is one of
// [LeakDropped], [LeakUnread], [LeakIdle] and [LeakUncredited].
type Leak struct {
	Conn   *Conn
	Stream StreamInfo
	Reason LeakReason
}

// A LeakReason says how a stream leaked.
type LeakReason uint8

const (
	// LeakDropped: the program no longer holds the stream and has not ended it.
	LeakDropped LeakReason = iota
	// LeakUnread: the send half had ended, and for Guard.HalfCloseTimeout
	// nobody read from the receive half.
	LeakUnread
	// LeakIdle: for Guard.IdleTimeout no byte was read or written.
	LeakIdle
	// LeakUncredited: the stream had ended, but with RequireStreamCreditRelease
	// its credit was not returned before the program dropped it.
	LeakUncredited

	numReasons = iota
)

// String returns "dropped", "unread", "idle" or "uncredited".
func (r LeakReason) String() string { return nameOf(r, "dropped", "unread", "idle", "uncredited") }

// MarshalText returns what String does.
func (r LeakReason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Stats returns the counts of the connection's streams. They are consistent
// with each other. It does not block.
func (c *Conn) Stats() Stats {
	c.refresh()
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{
		Outgoing:    c.kinds[outgoing].stats,
		OutgoingUni: c.kinds[outgoingUni].stats,
		Incoming:    c.kinds[incoming].stats,
		IncomingUni: c.kinds[incomingUni].stats,
	}
}

// Streams returns the open streams, oldest first within each kind. The set is
// that of the moment when the iteration starts, each StreamInfo that of its
// turn. No lock is held while the loop's body runs.
func (c *Conn) Streams() iter.Seq[StreamInfo] {
	return func(yield func(StreamInfo) bool) {
		c.refresh()
		text := rememberStacks()
		for _, st := range c.all() {
			if !yield(st.infoWith(text)) {
				return
			}
		}
	}
}

// refresh makes what a caller is about to read exact.
func (c *Conn) refresh() {
	c.endIfClosed()
	if c.inBubble {
		tell(c.look())
	}
}

func (st *streamState) info() StreamInfo { return st.infoWith((*stack).String) }

func (st *streamState) infoWith(text func(*stack) string) StreamInfo {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.infoLocked(text)
}

func (st *streamState) infoLocked(text func(*stack) string) StreamInfo {
	return StreamInfo{
		ID:             st.id(),
		Incoming:       st.kind.incoming(),
		Unidirectional: st.kind.uni(),
		Opened:         st.conn.start.Add(st.opened),
		Age:            st.conn.now() - st.opened,
		Dropped:        st.isDropped(),
		Send:           st.sendHalf.public(),
		Receive:        st.receiveHalf.public(),
		BytesWritten:   st.written.Load(),
		BytesRead:      st.read.Load(),
		Stack:          text(st.openerLocked()),
	}
}
