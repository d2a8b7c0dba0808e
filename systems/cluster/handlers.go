package main

import (
	"flag"
	"fmt"
	"io"
	"sync"
	"time"
)

// The servers and the clients have different handlers, as if different people
// had written them. The mistakes in the clients' handler are easy to overlook.
// The flag -clients replaces that handler, to try the alerts: one replacement is
// correct, and the other keeps streams, which quiclife cannot prevent.

var (
	clientsAnswer = answerAsClient
	noticeEvery   = 12 // pings
)

func init() {
	flag.Func("clients", "which handler the clients use: careless (the default), mended, or faulty", func(how string) error {
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
	defer io.Copy(io.Discard, s) // reads until the client has finished or aborted its half
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
		return // careless: the send half stays open, because "there is nothing to answer"
	}
	if write(s, m) == nil && s.Close() == nil {
		answered()
	}
	// careless: the server's io.EOF comes after the answer, and nobody reads it
}

// A hoarder answers as a client does, but keeps the streams of notices for later
// and never looks at them again. The program still refers to these streams, so
// quiclife cannot end them. Other streams the hoarder drops.
type hoarder struct {
	start time.Time

	mu   sync.Mutex // guards the field below
	kept []stream
}

// perSecond is how many notices are kept per second. The rate is fixed so that
// it takes the same time on any machine until there are too many.
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
		s = nil // drop this one
	}
	h.kept = append(h.kept, s)
	return true
}
