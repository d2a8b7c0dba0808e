package quiclife

import (
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"time"
)

// Stats counts the streams of a connection by kind. It does not count streams
// that were opened or accepted through [Conn.Unwrap].
type Stats struct {
	Outgoing    StreamStats // bidirectional, opened here
	OutgoingUni StreamStats // unidirectional, opened here
	Incoming    StreamStats // bidirectional, accepted here
	IncomingUni StreamStats // unidirectional, accepted here
}

// Open returns the number of open streams of all kinds.
func (s Stats) Open() int64 {
	return s.Outgoing.Open + s.OutgoingUni.Open + s.Incoming.Open + s.IncomingUni.Open
}

// StreamStats counts the streams of one kind. A stream counts as open from
// OpenStream or AcceptStream until both of its halves have ended on this side.
// After that it counts in exactly one of Finished, Released, Reset, Reclaimed
// and Detached. So at all times
//
//	Opened == Open + Finished + Released + Reset + Reclaimed + Detached
type StreamStats struct {
	Open   int64 // open now
	Peak   int64 // the most that were ever open at once
	Opened int64 // in all

	Finished  int64 // each half that it has was finished: FIN was sent, and all was read up to the peer's FIN
	Released  int64 // ended by Release or NetConn.Close while a half was open and no half had been aborted
	Reset     int64 // ended otherwise, with a half aborted by either side or by the connection's end
	Reclaimed int64 // ended by quiclife as a leak; leaks that ended otherwise count in the other fields
	Detached  int64 // handed to the program with Detach

	EOFs int64 // of Finished: quiclife read the FIN, after the program had read the last byte

	// Limit is how many streams may be open. For incoming streams it is the
	// limit in the Config. For outgoing streams it is Guard.MaxOutgoingStreams
	// or Guard.MaxOutgoingUniStreams, or 0 if only the peer's limit applies.
	Limit int64
}

// An outcome says how a stream has ended.
type outcome uint8

const (
	finished      outcome = iota
	finishedForIt         // like finished, but we have read the EOF for the program
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
	Age            time.Duration // time from Opened to the snapshot
	Dropped        bool          // the garbage collector has found that the program no longer refers to it
	Send, Receive  HalfState
	BytesWritten   int64 // taken by Write, not necessarily sent
	BytesRead      int64
	// Stack says where the stream was opened or accepted. Each line is
	// "function file:line", with the innermost call first. For a stream that
	// Serve accepted, it is the handler. Without Guard.CaptureStacks it may be
	// empty.
	Stack string
}

// A HalfState is the state of the send or the receive half of a stream.
type HalfState uint8

const (
	HalfAbsent   HalfState = iota // the stream is unidirectional and does not have this half
	HalfOpen                      // not ended
	HalfFinished                  // send half: FIN was sent; receive half: all was read up to the peer's FIN
	HalfAborted                   // aborted by either side, or by the connection's end

	halfEnding   // claimed but not settled yet
	halfDetached // open when Detach was called
)

// String returns "absent", "open", "finished" or "aborted".
func (h HalfState) String() string {
	return nameOf(h, "absent", "open", "finished", "aborted", "ending", "detached")
}

// GoString returns the name of the constant, for the messages of failed tests.
func (h HalfState) GoString() string {
	return nameOf(h, "quiclife.HalfAbsent", "quiclife.HalfOpen", "quiclife.HalfFinished", "quiclife.HalfAborted", "halfEnding", "halfDetached")
}

// MarshalText returns what String does.
func (h HalfState) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// public returns HalfOpen for the states that the program does not see.
func (h HalfState) public() HalfState {
	if h >= halfEnding {
		return HalfOpen
	}
	return h
}

func (h HalfState) ended() bool { return h != HalfOpen && h != halfEnding }

// attrs returns the attributes of i in a log record. They are scalars, and each
// always has the same type.
func (i StreamInfo) attrs() []any {
	return []any{
		"stream", int64(i.ID), "incoming", i.Incoming, "unidirectional", i.Unidirectional,
		"send", i.Send.String(), "receive", i.Receive.String(), "age", i.Age,
		"written", i.BytesWritten, "read", i.BytesRead, "opener", strings.TrimSpace(i.Stack),
	}
}

// LogValue returns the fields as attributes.
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

// A Leak reports a stream that the program did not end. Reason is one of
// [LeakDropped], [LeakUnread], [LeakIdle] and [LeakUncredited].
type Leak struct {
	Conn   *Conn
	Stream StreamInfo
	Reason LeakReason
}

// A LeakReason says how a stream leaked.
type LeakReason uint8

const (
	// LeakDropped: the program no longer refers to the stream, and has not
	// ended it.
	LeakDropped LeakReason = iota
	// LeakUnread: after the send half had ended, nobody read from the receive
	// half for Guard.HalfCloseTimeout.
	LeakUnread
	// LeakIdle: no byte was read or written for Guard.IdleTimeout.
	LeakIdle
	// LeakUncredited: with Config.RequireStreamCreditRelease, the stream has
	// ended, but the program dropped it without returning its stream credit.
	LeakUncredited

	numReasons = iota
)

// String returns "dropped", "unread", "idle" or "uncredited".
func (r LeakReason) String() string { return nameOf(r, "dropped", "unread", "idle", "uncredited") }

// MarshalText returns what String does.
func (r LeakReason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Stats returns the counts of the connection's streams. The counts are
// consistent with each other. Stats does not block.
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

// Streams returns the open streams, oldest first within each kind. The set of
// streams is fixed when the iteration starts. Each StreamInfo is taken when the
// iteration reaches it. No lock is held while the body of the loop runs.
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

// refresh brings the counts up to date before they are read.
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
