package main

import (
	"flag"
	"fmt"
	"io"
	"sync"
	"time"
)

// The two handlers, written by different people. What is wrong with the one of
// the clients is easily overlooked. The flag -clients puts another in its place,
// for the alerts: one that is in order, and one that quiclife cannot help.

var (
	clientsAnswer = answerAsClient
	noticeEvery   = 12 // pings
)

func init() {
	flag.Func("clients", "how the handler of the clients is: careless (the default), mended, or faulty", func(how string) error {
		switch how {
		case "careless":
		case "mended":
			clientsAnswer = answerAsServer
		case "faulty":
			clientsAnswer = (&hoarder{start: time.Now()}).answer
			noticeEvery = 2
		default:
			return fmt.Errorf("it can be careless, mended or faulty")
		}
		return nil
	})
}

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

// A hoarder answers as a client that keeps notices for later, and never looks at
// them again. As the program refers to their streams, nobody can end these for it.
// Some it forgets altogether.
type hoarder struct {
	start time.Time

	mu   sync.Mutex // guards the field below
	kept []stream
}

// perSecond is how many notices are kept, so that it takes as long on any machine
// until there are too many.
const perSecond = 80

func (h *hoarder) answer(s stream, answered func()) {
	m, err := read(s)
	if err != nil || m.kind() == notice && !h.keep(s) {
		s.Close()
		return
	}
	if m.kind() != notice && write(s, m) == nil && s.Close() == nil {
		answered()
	}
}

func (h *hoarder) keep(s stream) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.kept) > int(perSecond*time.Since(h.start).Seconds()) {
		return false
	}
	if len(h.kept)%16 == 0 {
		s = nil // forgotten
	}
	h.kept = append(h.kept, s)
	return true
}
