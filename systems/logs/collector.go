package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"
)

// The error codes that producers see on quiclife when a batch is refused.
const (
	codeFailed quic.StreamErrorCode = iota + 1
	codeMalformed
	codePanic
	codeShutdown
)

// A collector stores batches in a file.
type collector struct {
	stored, refused, panicked atomic.Int64 // batches
	lines                     atomic.Int64 // lines stored

	file    *os.File
	syncing sync.Mutex // held while the file is synced; locked before mu
	synced  int        // batches known to be on the disk, guarded by syncing

	mu      sync.Mutex // guards the fields below, and the end of the file
	written int        // batches written to the file
	err     error      // the first error; after it nobody knows what is in the file
}

func newCollector(name string) (*collector, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &collector{file: f}, nil
}

// store appends a batch to the file. If it returns nil, the batch is on the
// disk.
func (c *collector) store(batch []byte) error {
	c.mu.Lock()
	if c.err == nil {
		_, c.err = c.file.Write(batch)
		c.written++
	}
	mine, err := c.written, c.err
	c.mu.Unlock()
	if err != nil {
		return err
	}

	c.syncing.Lock()
	defer c.syncing.Unlock()
	if c.synced >= mine {
		return nil // another call has synced this batch too
	}
	c.mu.Lock()
	written, err := c.written, c.err
	c.mu.Unlock()
	if err == nil {
		err = c.file.Sync()
	}
	if err != nil {
		c.mu.Lock()
		c.err = err
		c.mu.Unlock()
		return err
	}
	c.synced = written
	return nil
}

// A session is a producer's connection, as the collector sees it.
type session struct {
	*collector

	mu   sync.Mutex // guards the field below
	acks io.Writer  // the control stream
}

// handle handles a stream, and counts how it ends.
func (s *session) handle(stream io.Reader) error {
	outcome := &s.panicked
	defer func() { outcome.Add(1) }()
	err := s.batch(stream)
	if outcome = &s.stored; err != nil {
		outcome = &s.refused
	}
	return err
}

// batch reads, stores and acknowledges a batch. A batch begins with its number
// and its number of lines. The lines follow.
func (s *session) batch(stream io.Reader) error {
	var head [8]byte
	if _, err := io.ReadFull(stream, head[:]); err != nil {
		return err
	}
	id, lines := binary.BigEndian.Uint32(head[:4]), int(binary.BigEndian.Uint32(head[4:]))
	in := bufio.NewReader(stream)
	var batch bytes.Buffer
	for n := range lines {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("line %d of %d: %w", n, lines, err)
		}
		rec := records.Get().(*record)
		defer records.Put(rec) // careless: runs at the end of the stream, not at the end of the line
		if err := rec.parse(line); err != nil {
			return err // careless: the rest of the stream is not read
		}
		if rec.batch != int(id) || rec.line != n {
			return fmt.Errorf("%w: line %d of batch %d in the place of line %d of batch %d", errMalformed, rec.line, rec.batch, n, id)
		}
		batch.Write(line)
	}
	if _, err := in.ReadByte(); err != io.EOF {
		return errors.Join(errMalformed, err)
	}
	if err := s.store(batch.Bytes()); err != nil {
		return err
	}
	s.lines.Add(int64(lines))
	return s.acknowledge(id)
}

// greet sends something on the control stream. Before that the producer does not
// know that the stream exists.
func (s *session) greet() error { return s.acknowledge(0) }

func (s *session) acknowledge(id uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.acks.Write(binary.BigEndian.AppendUint32(nil, id))
	return err
}

// finish ends the acknowledgements. It waits until the producer has read them
// all and has closed its half.
func finish(acks io.ReadWriteCloser) error {
	if err := acks.Close(); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, acks)
	return err
}
