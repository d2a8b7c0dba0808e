package quiclife

import (
	"time"

	"github.com/quic-go/quic-go"
)

// RawStream returns quic-go's stream of s, for tests that watch it go.
func RawStream(s *Stream) *quic.Stream { return s.raw }

// ForgetCollections lets the next open at a limit ask for a collection, as if
// no other had for long.
func ForgetCollections() {
	for _, c := range []*collectorState{&collector, &heapCollector} {
		c.mu.Lock()
		c.last, c.interval = time.Time{}, 0
		c.mu.Unlock()
	}
}

// AfterClose has f called when s has closed quic-go's stream, but has not
// noted it yet.
func AfterClose(s *SendStream, f func()) { s.st.send = afterClose{s.st.send, f} }

type afterClose struct {
	sender
	f func()
}

func (s afterClose) Close() error {
	err := s.sender.Close()
	s.f()
	return err
}

// AfterTryWriteAll has f called when s has queued something with quic-go, but
// has not noted it yet.
func AfterTryWriteAll(s *Stream, f func()) { s.st.send = afterTryWriteAll{s.st.send, f} }

type afterTryWriteAll struct {
	sender
	f func()
}

func (s afterTryWriteAll) TryWriteAll(p []byte) error {
	err := s.sender.TryWriteAll(p)
	s.f()
	return err
}
