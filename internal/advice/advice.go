// Package advice says in words what an open stream waits for, for package
// debugpage and package leaktest.
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

// ToDo says what the program should do about s, which is open, or owes its
// credit: one sentence or more.
func ToDo(s quiclife.StreamInfo) string {
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
		return "Close, and read to io.EOF; defer Release for the paths that return before."
	case s.Send == open && s.Receive == open:
		return "defer Release right after it was opened or accepted. Does a path return before anything is done with it?"
	case s.Send == open && s.Receive == quiclife.HalfAborted:
		return "defer Release. The receive half has failed, and that does not end the send half."
	case s.Send == open:
		return "Close when all is written, or defer Release."
	case s.Send == quiclife.HalfAborted:
		return "CancelRead, or defer Release. That the send half was aborted does not end the receive half."
	case s.BytesRead > 0:
		return "read to io.EOF, or defer Release. If all that was expected has come, the peer has not called Close."
	}
	return "read the answer to io.EOF, or defer Release. Close ends the send half only."
}
