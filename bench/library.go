package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
)

// A stream is a library's own stream, so that no code of ours is measured with
// it. Close means what the library says.
type stream = io.ReadWriteCloser

// A library multiplexes streams over a connection. Its methods do what its
// documentation tells its users to do.
type library interface {
	// connect makes a connection over loopback, both ends in this process, with
	// the library's defaults.
	connect() (*link, error)
	// flush sends what was written.
	flush(stream)
	// finish ends the send half: the peer reads what was written, then io.EOF.
	finish(stream)
	// done is called for a stream whose halves have both ended.
	done(stream)
	// stopReading aborts the receive half. It returns false if the library has
	// no call for that.
	stopReading(stream) bool
	// abort ends the halves that have not ended.
	abort(stream)
	// bind unblocks calls on the stream when ctx ends, until stop is called.
	bind(ctx context.Context, s stream) (stop func() bool)
}

// An end is one end of a connection.
type end struct {
	open   func(context.Context) (stream, error)
	accept func(context.Context) (stream, error)
	held   func() int // how many streams the library keeps, nil if it does not say
}

// A link is a connection.
type link struct {
	library        library
	client, server end
	close          func()
}

const (
	requestSize = 100
	bufferSize  = 1000 // more than a request, so that Read sees the io.EOF
)

// serve starts workers that accept streams and echo each request, until the
// connection ends.
func (l *link) serve(workers int) {
	for range workers {
		go func() {
			buf := make([]byte, bufferSize)
			for {
				s, err := l.server.accept(context.Background())
				if err != nil {
					return
				}
				n, err := io.ReadFull(s, buf)
				if err != io.ErrUnexpectedEOF {
					l.library.abort(s)
					continue
				}
				s.Write(buf[:n])
				l.library.finish(s)
				l.library.done(s)
			}
		}()
	}
}

// cycle opens a stream, sends a request, reads the answer to its end and ends the
// stream.
func (l *link) cycle(buf []byte) error {
	s, err := l.client.open(context.Background())
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if _, err := s.Write(buf[:requestSize]); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	l.library.finish(s)
	n, err := io.ReadFull(s, buf)
	if err == nil || !errors.Is(err, io.ErrUnexpectedEOF) || n != requestSize {
		return fmt.Errorf("the answer has %d bytes, not %d, and ended with: %w", n, requestSize, err)
	}
	l.library.done(s)
	return nil
}

func (l *link) end() { l.close() }

// endAll calls fs from the last to the first.
func endAll(fs []func()) {
	for i := range fs {
		fs[len(fs)-1-i]()
	}
}

func listenUDP() (*net.UDPConn, error) {
	return net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
}
