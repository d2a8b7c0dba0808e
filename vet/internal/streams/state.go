package streams

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/tools/go/ssa"
)

// A Send is how far a send half has come.
type Send uint8

const (
	SendOpen      Send = iota
	SendClosed         // by Close
	SendCancelled      // by CancelWrite
	SendEnded          // by Release and the like, or an error of Write
)

// A Receive is how far a receive half has come.
type Receive uint8

const (
	Unread       Receive = iota
	ReadPart             // as much as was asked for, perhaps without the io.EOF
	ReadMaybe            // perhaps to its end
	ReceiveEnded         // by io.EOF or another error, CancelRead, Release and the like
)

// Halves is what has been done with a stream so far.
type Halves struct {
	Send    Send
	Receive Receive
	Wrote   bool
	Last    op // opRead or opWrite: the last of the two that succeeded, or opNone
}

// join returns the better of two ends. If the walk does not know which of them
// happened, it assumes that the stream was ended.
func (h Halves) join(o Halves) Halves {
	h.Send = max(h.Send, o.Send)
	h.Receive = max(h.Receive, o.Receive)
	h.Wrote = h.Wrote || o.Wrote
	if o.Last != opNone {
		h.Last = o.Last
	}
	return h
}

// state is what is known at a point of a path.
type state struct {
	Halves
	// val has what phis, variables shared with closures, and loads from these
	// variables stand for.
	val map[ssa.Value]ssa.Value
	// isNil and conds have what the branches on the path say.
	isNil map[ssa.Value]bool
	conds map[string]bool
	// ops has the calls that have read or written. A later check of their errors
	// needs them.
	ops map[ssa.Value]op
	// defers has the deferred calls in their order, as far as they matter for the
	// loss of data.
	defers []deferred
	// connEnds says that the connection will be closed on return.
	connEnds bool
	// unsure says that the error of an open went through a check that the walk
	// does not understand, so there may be no stream.
	unsure bool
	// justClosed says that the function has not waited for anything since it
	// closed the stream.
	justClosed bool
}

// deferred is a deferred call: of Close, of CloseWithError, or another.
type deferred struct {
	call   *ssa.Defer
	stream bool
	conn   bool
}

func (s *state) clone() *state {
	c := *s
	c.val = maps.Clone(s.val)
	c.isNil = maps.Clone(s.isNil)
	c.conds = maps.Clone(s.conds)
	c.ops = maps.Clone(s.ops)
	c.defers = slices.Clone(s.defers)
	return &c
}

// key is the same for equal states.
func (s *state) key() string {
	var parts []string
	for k, v := range s.val {
		parts = append(parts, fmt.Sprintf("v%p=%p", k, v))
	}
	for k, v := range s.isNil {
		parts = append(parts, fmt.Sprintf("n%p=%t", k, v))
	}
	for k, v := range s.conds {
		parts = append(parts, fmt.Sprintf("c%s=%t", k, v))
	}
	for k, v := range s.ops {
		parts = append(parts, fmt.Sprintf("o%p=%d", k, v))
	}
	slices.Sort(parts)
	for _, d := range s.defers {
		parts = append(parts, fmt.Sprintf("d%p", d.call))
	}
	return fmt.Sprint(s.Halves, s.connEnds, s.unsure, s.justClosed) + strings.Join(parts, " ")
}
