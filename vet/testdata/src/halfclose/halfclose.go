package halfclose

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quiclife/quiclife"

	"helpers"
)

func exact(ctx context.Context, c *quic.Conn) error {
	s, err := c.OpenStreamSync(ctx) // want `the receive half of this stream leaks: Close ends the send half only, and the path that returns at line \d+ may not have read to io.EOF; read to io.EOF, or CancelRead`
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Write(nil); err != nil {
		return err
	}
	buf := make([]byte, 10)
	_, err = io.ReadFull(s, buf)
	return err
}

func notAtAll(c *quic.Conn) error {
	s, err := c.OpenStream() // want `does not read the answer; read`
	if err != nil {
		return err
	}
	if _, err := s.Write(nil); err != nil {
		return err
	}
	return s.Close()
}

func once(c *quic.Conn) error {
	s, err := c.OpenStream() // want `may not have read to io.EOF`
	if err != nil {
		return err
	}
	defer s.Close()
	s.SetReadDeadline(time.Now())
	buf := make([]byte, 100)
	n, err := s.Read(buf)
	if err != nil {
		return err
	}
	log.Println(n)
	return nil
}

func lengthPrefixed(c *quic.Conn) error {
	s, err := c.OpenStream() // want `may not have read to io.EOF`
	if err != nil {
		return err
	}
	defer s.Close()
	var n uint16
	if err := binary.Read(s, binary.BigEndian, &n); err != nil {
		return err
	}
	_, err = io.ReadFull(s, make([]byte, n))
	return err
}

func helper(c *quic.Conn) error {
	s, err := c.OpenStream() // want `may not have read to io.EOF`
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = helpers.ReadMessage(s)
	return err
}

func decoder(c *quic.Conn) (err error) {
	s, err := c.OpenStream() // want `may not have read to io.EOF`
	if err != nil {
		return err
	}
	defer s.Close()
	var v struct{}
	return json.NewDecoder(s).Decode(&v)
}

func serve(ctx context.Context, c *quic.Conn) {
	for {
		s, err := c.AcceptStream(ctx) // want `the path that goes on to the next stream may not have read to io.EOF`
		if err != nil {
			return
		}
		go answer(s)
	}
}

func answer(s *quic.Stream) {
	defer s.Close()
	msg, err := helpers.ReadMessage(s)
	if err != nil {
		return
	}
	s.Write(msg)
}

func cancelWriteOnly(ctx context.Context, c *quic.Conn) {
	s, err := c.AcceptStream(ctx) // want `CancelWrite ends the send half only, and the path that returns at line \d+ may not have read to io.EOF`
	if err != nil {
		return
	}
	if msg, err := helpers.ReadMessage(s); err == nil && len(msg) == 0 {
		s.CancelWrite(0)
		return
	}
	s.CancelRead(0)
	s.CancelWrite(0)
}

// Whoever calls it may close the connection.
func fails(c *quic.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	defer s.Close()
	if s.StreamID() > 10 {
		return errors.New("many")
	}
	_, err = io.ReadAll(s)
	return err
}

// These read to the end, or fail, or cancel.

func all(c *quic.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = io.ReadAll(s)
	return err
}

func cancelled(c *quic.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	defer s.CancelRead(0)
	defer s.Close()
	_, err = io.ReadFull(s, nil)
	return err
}

func cancelledInClosure(c *quic.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	defer func() {
		s.CancelRead(0)
		s.Close()
	}()
	_, err = s.Write(nil)
	return err
}

func untilError(c *quic.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		if _, err := s.Read(nil); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func untilErrorIsSet(c *quic.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	defer s.Close()
	buf := make([]byte, 10)
	for err == nil {
		_, err = s.Read(buf)
	}
	return err
}

func scanned(c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	defer s.Close()
	lines := bufio.NewScanner(s)
	for lines.Scan() {
		log.Println(lines.Text())
	}
}

func copied(c *quic.Conn, w io.Writer) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	defer s.Close()
	io.Copy(w, s)
}

func drained(c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	defer s.Close()
	helpers.Drain(s)
}

func reset(c *quic.Conn) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	s.CancelWrite(0)
	s.CancelRead(0)
}

// These leave the function.

func returned(c *quic.Conn, bad bool) (*quic.Stream, error) {
	s, err := c.OpenStream()
	if err != nil {
		return nil, err
	}
	if bad {
		s.Close()
		return nil, errors.New("bad")
	}
	return s, nil
}

func readElsewhere(c *quic.Conn, w io.Writer, done chan io.Reader) {
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	done <- s
	s.Close()
}

func connClosed(c *quic.Conn) {
	defer c.CloseWithError(0, "")
	s, err := c.OpenStream()
	if err != nil {
		return
	}
	s.Close()
}

// Others.

func ours(c *quiclife.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = io.ReadFull(s, nil)
	return err
}

func uni(c *quic.Conn) error {
	s, err := c.OpenUniStream()
	if err != nil {
		return err
	}
	return s.Close()
}

func silenced(c *quic.Conn) error {
	s, err := c.OpenStream() //quiclife:ended by the peer, which never answers
	if err != nil {
		return err
	}
	return s.Close()
}
