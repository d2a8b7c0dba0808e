package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	atOnce   = 16               // requests that are made at the same time
	patience = 10 * time.Second // how long a request may take
)

// A stream is a *quic.Stream or a *quiclife.Stream.
type stream interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// An opener is a *quic.Conn or a *quiclife.Conn.
type opener[S stream] interface {
	OpenStream() (S, error)
	OpenStreamSync(context.Context) (S, error)
}

// request makes a request. At the limit it calls both OpenStream and
// OpenStreamSync, to see the error of each.
func request[S stream](ctx context.Context, c opener[S], n int64, t *tally) error {
	s, err := c.OpenStream()
	if _, full := errors.AsType[*quic.StreamLimitReachedError](err); full {
		if t.note(&t.full, err) {
			t.reached()
		}
		s, err = c.OpenStreamSync(ctx)
	}
	if err != nil {
		return err
	}
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	body := fmt.Appendf(nil, "request %d", n)
	if _, err := s.Write(body); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	var got [sha256.Size]byte
	if _, err := io.ReadFull(s, got[:]); err != nil {
		return err
	}
	if got != sha256.Sum256(body) {
		return errors.New("wrong answer")
	}
	return nil // careless: nobody reads the io.EOF after the answer
}

// load makes n requests, atOnce at a time. It stops early when ctx is done or
// when a request fails. It finishes requests that have begun.
func load[S stream](ctx context.Context, c opener[S], n int64, t *tally) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for i := next.Add(1); i <= n && ctx.Err() == nil && t.failed.Load() == 0; i = next.Add(1) {
				if err := request(ctx, c, i, t); err != nil {
					t.failed.Add(1)
					t.note(&t.stopped, err)
					return
				}
				t.made.Add(1)
				t.last.Store(time.Now().UnixNano())
			}
		})
	}
	workers.Wait()
}

// A tally counts how the requests on a connection end.
type tally struct {
	made, failed atomic.Int64 // counted by the client
	unanswered   atomic.Int64 // requests that the server failed to answer
	reached      func()       // called when the client first reaches the limit
	last         atomic.Int64 // when the last answer came, in Unix nanoseconds

	mu      sync.Mutex // guards the fields below
	full    error      // the first error of OpenStream at the limit
	stopped error      // the first failure of the client
}

// note stores err in first if first is empty, and reports whether it did.
func (t *tally) note(first *error, err error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if *first != nil {
		return false
	}
	*first = err
	return true
}
