package helpers

import (
	"io"

	"github.com/quic-go/quic-go"
)

func ReadMessage(r io.Reader) ([]byte, error) { // want ReadMessage:"0 borrows"
	buf := make([]byte, 10)
	_, err := io.ReadFull(r, buf)
	return buf, err
}

func CloseBoth(s *quic.Stream) { // want CloseBoth:"0 ends"
	s.CancelRead(0)
	s.CancelWrite(0)
}

func ID(s *quic.Stream) quic.StreamID { return s.StreamID() } // want ID:"0 borrows"

var registry []*quic.Stream

func Keep(s *quic.Stream) { registry = append(registry, s) } // want Keep:"0 keeps"

// CloseOnError ends the stream if it fails, and only then.
func CloseOnError(s *quic.Stream) error { // want CloseOnError:"0 borrows"
	if _, err := s.Write(nil); err != nil {
		s.CancelRead(0)
		s.CancelWrite(0)
		return err
	}
	return nil
}

func Hangup(c *quic.Conn) { c.CloseWithError(0, "") } // want Hangup:"closes the connection"

func Drain[R io.Reader](r R) { // want Drain:"0 borrows"
	buf := make([]byte, 10)
	for {
		if _, err := r.Read(buf); err != nil {
			return
		}
	}
}

func Flip(s *quic.Stream) { Flop(s) } // want Flip:"0 keeps"

func Flop(s *quic.Stream) { // want Flop:"0 keeps"
	if s.StreamID() > 10 {
		Flip(s)
	}
}
