package main

import "io"

// The two handlers, written by different people. What is wrong with the one of
// the clients is easily overlooked.

// answerAsServer answers a stream that a client has opened. It ends both halves
// on all paths.
func answerAsServer(s stream, answered func()) {
	defer io.Copy(io.Discard, s) // up to the client's end of the stream, whichever it is
	defer s.Close()
	m, err := read(s)
	if err != nil || m.kind() == notice {
		return
	}
	if write(s, m) == nil && s.Close() == nil {
		answered()
	}
}

// answerAsClient answers a stream that a server has opened.
func answerAsClient(s stream, answered func()) {
	m, err := read(s)
	if err != nil || m.kind() == notice {
		return // careless: the send half stays open; "nothing to answer, so nothing to close"
	}
	if write(s, m) == nil && s.Close() == nil {
		answered()
	}
	// careless: the server's io.EOF comes after the answer, and nobody reads it
}
