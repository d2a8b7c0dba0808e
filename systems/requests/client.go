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
	atOnce   = 16               // requests under way
	patience = 10 * time.Second // with an answer
)

// A stream is what the client needs of *quic.Stream and of *quiclife.Stream.
type stream interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// An opener is what it needs of *quic.Conn and of *quiclife.Conn.
type opener[S stream] interface {
	OpenStream() (S, error)
	OpenStreamSync(context.Context) (S, error)
}

// request makes a request. At the limit it asks both of OpenStream and
// OpenStreamSync, to see what each says.
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
	return nil // careless: the io.EOF after the answer was never read
}

// load makes n requests, some at a time, until ctx is done or one fails. Those
// under way when ctx is done are finished.
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

// A tally is what comes of the requests on a connection.
type tally struct {
	made, failed atomic.Int64 // of the client
	unanswered   atomic.Int64 // by the server
	reached      func()       // is called when the client is at the limit, the first time
	last         atomic.Int64 // when the last answer came, in Unix nanoseconds

	mu      sync.Mutex // guards the fields below
	full    error      // what OpenStream said at the limit, the first time
	stopped error      // the first failure of the client
}

// note keeps err if it is the first of its kind, and says whether it is.
func (t *tally) note(first *error, err error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if *first != nil {
		return false
	}
	*first = err
	return true
}
