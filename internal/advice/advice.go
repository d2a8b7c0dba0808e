// Package advice tells the readers of debugpage and leaktest what to do about
// an open stream.
package advice

import (
	"fmt"

	"github.com/quiclife/quiclife"
)

// Halves returns the states of the halves that s has.
func Halves(s quiclife.StreamInfo) string {
	switch {
	case s.Send == quiclife.HalfAbsent:
		return "receive half " + s.Receive.String()
	case s.Receive == quiclife.HalfAbsent:
		return "send half " + s.Send.String()
	}
	return fmt.Sprintf("send half %v, receive half %v", s.Send, s.Receive)
}

// ToDo says what the program should do about s, in one or more sentences. s is
// open, or has ended without its stream credit being returned.
func ToDo(s quiclife.StreamInfo) string {
	todo := toDo(s)
	if s.Incoming && !s.Dropped && (s.Send == quiclife.HalfOpen || s.Receive == quiclife.HalfOpen) {
		todo += " If Serve accepted it, its handler has not returned yet."
	}
	return todo
}

func toDo(s quiclife.StreamInfo) string {
	const open = quiclife.HalfOpen
	moved := s.BytesRead+s.BytesWritten > 0
	switch {
	case s.Send != open && s.Receive != open:
		return "ReleaseStreamCredit, or defer Release."
	case s.Unidirectional && s.Send == open:
		return "Close, or defer Release."
	case s.Unidirectional:
		return "read to io.EOF, or defer Release."
	case s.Send == open && s.Receive == open && moved:
		return "Close, and read to io.EOF; defer Release for paths that return early."
	case s.Send == open && s.Receive == open:
		return "defer Release right after opening or accepting it. Does a path return before it uses the stream?"
	case s.Send == open && s.Receive == quiclife.HalfAborted:
		return "defer Release. The receive half has failed, which does not end the send half."
	case s.Send == open:
		return "Close when all is written, or defer Release."
	case s.Send == quiclife.HalfAborted:
		return "CancelRead, or defer Release. Aborting the send half does not end the receive half."
	case s.BytesRead > 0:
		return "read to io.EOF, or defer Release. If all expected data has come, the peer has not called Close."
	}
	return "read the answer to io.EOF, or defer Release. Close ends the send half only."
}
