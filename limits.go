package quiclife

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/quic-go/quic-go"
)

// A LimitScope says which limit was reached.
type LimitScope uint8

const (
	LimitPeer     LimitScope = iota // the peer allows no more streams for now (its MAX_STREAMS)
	LimitOutgoing                   // Guard.MaxOutgoingStreams or Guard.MaxOutgoingUniStreams
	LimitStreams                    // Guard.MaxStreams
	LimitConns                      // Guard.MaxConns
	LimitHeap                       // Guard.MaxHeap

	numScopes = iota
)

// String returns "peer", "outgoing", "streams", "conns" or "heap".
func (s LimitScope) String() string {
	return nameOf(s, "peer", "outgoing", "streams", "conns", "heap")
}

// MarshalText returns what String does.
func (s LimitScope) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// prose describes the limit for an error text.
func (s LimitScope) prose() string {
	return nameOf(s, "the peer's limit of %s streams", "this side's limit of %s streams", "limit of handled streams", "limit of connections", "limit of live heap")
}

// nameOf returns the name of a value of an enumeration.
func nameOf[E ~uint8](value E, names ...string) string {
	if int(value) < len(names) {
		return names[value]
	}
	return "invalid"
}

// A LimitError says that a stream could not be opened, or a connection not
// made, because a limit was reached. It also says what holds the slots.
//
// At the peer's limit it matches StreamLimitReachedError, with [errors.As] and
// [errors.Is], as a pointer and as a value. If a context ended the wait for a
// slot, it matches that context's error instead.
type LimitError struct {
	Scope          LimitScope
	Unidirectional bool // the stream to be opened was unidirectional
	// Open is how many outgoing streams of this kind are open here, and Opened
	// how many this side has opened in all. If Open is small at the peer's
	// limit, then it is the peer that has not ended its halves. At MaxStreams,
	// MaxConns and MaxHeap, Open is the count that the limit applies to:
	// streams being handled, connections, or bytes of live heap.
	Open, Opened int64
	// Limit is the limit that was reached. It is 0 for the peer's limit, which
	// quic-go does not reveal.
	Limit int64
	// Oldest is the oldest open stream of this kind. It is the zero StreamInfo
	// if none is open.
	Oldest StreamInfo
	// Err is quic-go's error, or the error of the context that ended the wait,
	// or nil.
	Err error
}

func (e *LimitError) Error() string {
	switch e.Scope {
	case LimitStreams, LimitConns, LimitHeap:
		s := fmt.Sprintf("quiclife: %s reached: %d of %d", e.Scope.prose(), e.Open, e.Limit)
		if e.Err != nil {
			s += ": " + e.Err.Error()
		}
		return s
	}
	s := "quiclife: " + fmt.Sprintf(e.Scope.prose(), e.kind()) + " reached: "
	if e.Limit > 0 {
		s += fmt.Sprintf("limit %d, ", e.Limit)
	}
	s += fmt.Sprintf("%d open here of %d opened", e.Open, e.Opened)
	switch {
	case e.Scope != LimitPeer || e.Open == e.Opened:
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

func (e *LimitError) kind() string {
	if e.Unidirectional {
		return "unidirectional"
	}
	return "bidirectional"
}

// LogValue returns the fields as attributes.
func (e *LimitError) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("scope", e.Scope.String()), slog.Int64("open", e.Open), slog.Int64("limit", e.Limit)}
	if e.Scope == LimitPeer || e.Scope == LimitOutgoing {
		attrs = append(attrs, slog.String("kind", e.kind()), slog.Int64("opened", e.Opened))
	}
	if e.Oldest != (StreamInfo{}) {
		attrs = append(attrs, slog.Any("oldest", e.Oldest))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	return slog.GroupValue(attrs...)
}

// Unwrap returns e.Err.
func (e *LimitError) Unwrap() error { return e.Err }

// Is reports whether target is a [StreamLimitReachedError], as a pointer or as
// a value, and e is for the peer's limit. (errors.Is itself cannot compare such
// pointers, because the type has size zero.)
func (e *LimitError) Is(target error) bool {
	switch target.(type) {
	case quic.StreamLimitReachedError, *quic.StreamLimitReachedError:
		return isPeerLimit(e.Err)
	}
	return false
}

// As matches [StreamLimitReachedError] as a value. errors.As finds the pointer
// in Err.
func (e *LimitError) As(target any) bool {
	_, ok := target.(*quic.StreamLimitReachedError)
	return ok && isPeerLimit(e.Err)
}

func isPeerLimit(err error) bool {
	_, ok := errors.AsType[*quic.StreamLimitReachedError](err)
	return ok
}

// logStuck logs that calls that open streams wait in vain. They may have no
// deadline, and so never return an error that says so.
func (c *Conn) logStuck(k kind) {
	scope := LimitPeer
	c.mu.Lock()
	if c.kinds[k].slots.Waiting() > 0 {
		scope = LimitOutgoing
	}
	c.mu.Unlock()
	c.logLimit(c.describeLimit(k, scope, nil))
}

// limitError counts and logs an open that has failed at a limit, and returns
// its error.
func (c *Conn) limitError(k kind, scope LimitScope, err error) error {
	c.guard.totals.limitErrors[scope].Add(1)
	e := c.describeLimit(k, scope, err)
	c.logLimit(e)
	return e
}

// describeLimit makes a LimitError from the current counts.
func (c *Conn) describeLimit(k kind, scope LimitScope, err error) *LimitError {
	c.mu.Lock()
	r := &c.kinds[k]
	e := &LimitError{
		Scope:          scope,
		Unidirectional: k.uni(),
		Open:           r.stats.Open,
		Opened:         r.stats.Opened,
		Err:            err,
	}
	if scope == LimitOutgoing {
		e.Limit = r.stats.Limit
	}
	oldest := r.streams.first
	c.mu.Unlock()

	if oldest != nil {
		e.Oldest = oldest.info()
	}
	return e
}

func (c *Conn) logLimit(e *LimitError) {
	c.guard.log(slog.LevelWarn, recordKind{msg: "quiclife: stream limit reached", of: e.Scope.String() + e.kind()},
		"remote", c.RemoteAddr().String(), "scope", e.Scope.String(), "kind", e.kind(), "open", e.Open, "limit", e.Limit, "error", e.Error())
}
