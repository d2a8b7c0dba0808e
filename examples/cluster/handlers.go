package main

import "io"

// The two handlers, written by different people. What is wrong with the one of
// the clients looks like nothing.

// answerAsServer answers a stream that a client has opened. It ends both halves
// on all paths.
func (e *end) answerAsServer(s stream) {
	defer io.Copy(io.Discard, s) // up to the client's end of the stream, whichever it is
	defer s.Close()
	m, err := read(s)
	if err != nil || m.kind() == notice {
		return
	}
	if write(s, m.answer()) == nil && s.Close() == nil {
		e.theirs.given.Add(1)
	}
}

// answerAsClient answers a stream that a server has opened.
func (e *end) answerAsClient(s stream) {
	m, err := read(s)
	if err != nil || m.kind() == notice {
		return // careless: the send half stays open; "nothing to answer, so nothing to close"
	}
	if write(s, m.answer()) == nil && s.Close() == nil {
		e.theirs.given.Add(1)
	}
	// careless: the server's io.EOF comes after the answer, and nobody reads it
}
