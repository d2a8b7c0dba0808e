package quiclife

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/quic-go/quic-go"
)

// A LimitScope says whose limit was reached.
type LimitScope string

const (
	// PeerLimit: the peer allows no more streams for now (its MAX_STREAMS).
	PeerLimit LimitScope = "the peer's limit"
	// OutgoingLimit: Guard.MaxOutgoingStreams or Guard.MaxOutgoingUniStreams.
	OutgoingLimit LimitScope = "this side's limit"
	// GroupLimit, ConnLimit and HeapLimit: Guard.MaxStreams, MaxConns, MaxHeap.
	GroupLimit LimitScope = "limit of streams of the group"
	ConnLimit  LimitScope = "limit of connections of the group"
	HeapLimit  LimitScope = "limit of live heap"
)

// A LimitError says that no stream could be opened, or no connection made, and
// who holds the slots.
//
// At the peer's limit it matches [*StreamLimitReachedError], with [errors.As]
// and with [errors.Is], in the pointer and the value form. If a context ended
// the wait for a slot, it matches that context's error instead.
type LimitError struct {
	Scope          LimitScope
	Unidirectional bool // the kind of stream that was to be opened
	// Open and Opened are the outgoing streams of this kind that this side has
	// open, and has opened in all. At the peer's limit, a small Open says that
	// it is the peer who has not ended its halves. At a limit of the group,
	// Open is what the limit is of: streams, connections, or bytes of heap.
	Open, Opened int64
	// Limit is the limit that was reached, 0 for the peer's, of which quic-go
	// does not tell.
	Limit int64
	// Oldest is the oldest of the open streams, the zero StreamInfo if none is.
	Oldest StreamInfo
	// Err is quic-go's error, or that of the context that ended the wait, or nil.
	Err error
}

func (e *LimitError) Error() string {
	switch e.Scope {
	case GroupLimit, ConnLimit, HeapLimit:
		s := fmt.Sprintf("quiclife: %s reached: %d of %d", e.Scope, e.Open, e.Limit)
		if e.Err != nil {
			s += ": " + e.Err.Error()
		}
		return s
	}
	kind := "bidirectional"
	if e.Unidirectional {
		kind = "unidirectional"
	}
	s := fmt.Sprintf("quiclife: %s of %s streams reached: ", e.Scope, kind)
	if e.Limit > 0 {
		s += fmt.Sprintf("limit %d, ", e.Limit)
	}
	s += fmt.Sprintf("%d open here of %d opened", e.Open, e.Opened)
	switch {
	case e.Scope != PeerLimit || e.Open == e.Opened:
	case e.Open == 0:
		s += ", the peer has not ended the others"
	default:
		s += ", the peer may not have ended the others"
	}
	if e.Open > 0 {
		s += fmt.Sprintf(", the oldest: %v", e.Oldest)
	}
	if e.Err != nil && !isPeerLimit(e.Err) {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns e.Err.
func (e *LimitError) Unwrap() error { return e.Err }

// Is reports a match with [StreamLimitReachedError] in either form, if it was
// the peer's limit. (Pointers to zero-size values cannot be compared.)
func (e *LimitError) Is(target error) bool {
	switch target.(type) {
	case quic.StreamLimitReachedError, *quic.StreamLimitReachedError:
		return isPeerLimit(e.Err)
	}
	return false
}

// As finds [StreamLimitReachedError] in its value form; the pointer is Err.
func (e *LimitError) As(target any) bool {
	_, ok := target.(*quic.StreamLimitReachedError)
	return ok && isPeerLimit(e.Err)
}

func isPeerLimit(err error) bool {
	_, ok := errors.AsType[*quic.StreamLimitReachedError](err)
	return ok
}

// logStuck logs that opens wait in vain. They may have no deadline, and never
// return an error that says so.
func (c *Conn) logStuck(k kind) {
	scope := PeerLimit
	c.mu.Lock()
	if c.kinds[k].slots.Waiting() > 0 {
		scope = OutgoingLimit
	}
	c.mu.Unlock()
	c.limitError(k, scope, nil)
}

// limitError counts what is open, and logs it.
func (c *Conn) limitError(k kind, scope LimitScope, err error) error {
	c.mu.Lock()
	r := &c.kinds[k]
	e := &LimitError{
		Scope:          scope,
		Unidirectional: k.uni(),
		Open:           r.stats.Open,
		Opened:         r.stats.Opened,
		Err:            err,
	}
	if scope == OutgoingLimit {
		e.Limit = r.stats.Limit
	}
	oldest := r.streams.first
	c.mu.Unlock()

	if oldest != nil {
		e.Oldest = oldest.info()
	}
	c.guard.log(slog.LevelWarn, recordKind{msg: "quiclife: stream limit reached", of: string(scope) + string('0'+rune(k))},
		"remote", c.RemoteAddr(), "error", e)
	return e
}
