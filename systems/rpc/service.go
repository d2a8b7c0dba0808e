package main

import (
	"bufio"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/quiclife/quiclife/internal/rig"
)

// bufferSize is of each of the two buffers that each call gets.
const bufferSize = 64 << 10

// A stream is what the service and the callers need of *quic.Stream and of
// *quiclife.Stream.
type stream interface {
	io.ReadWriteCloser
	Context() context.Context
}

// A request is the first thing on a stream. What follows it, up to the
// stream's end, is the answer.
type request struct {
	Method string
	Body   []byte
}

// A service is what the server does.
type service struct {
	maxHeap int64

	mu    sync.Mutex // guards the fields below
	cache [][]byte
}

// handle answers a call. It is careless in one way: it never reads the end of
// the request, which the caller sends when it has the answer.
func (sv *service) handle(s stream) error {
	r, w := bufio.NewReaderSize(s, bufferSize), bufio.NewWriterSize(s, bufferSize)
	var req request
	if err := gob.NewDecoder(r).Decode(&req); err != nil {
		return err
	}
	if err := sv.call(s.Context(), req, w); err != nil {
		return err
	}
	return w.Flush()
}

func (sv *service) call(ctx context.Context, req request, w io.Writer) error {
	switch req.Method {
	case "Echo":
		_, err := w.Write(req.Body)
		return err
	case "Panic":
		panic("a defect of this method")
	case "Hang":
		<-ctx.Done() // a lock that nobody unlocks, say
		return ctx.Err()
	case "Fail":
		return errors.New("the database is gone")
	case "Load":
		sv.load()
		return nil
	case "Drop":
		sv.drop()
		return nil
	default:
		return fmt.Errorf("no method %q", req.Method)
	}
}

// load fills the cache until the heap is a good deal above the limit.
func (sv *service) load() {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	const chunk = 1 << 20
	for missing := sv.maxHeap*5/4 - int64(rig.LiveHeap()); missing > 0; missing -= chunk {
		sv.cache = append(sv.cache, make([]byte, chunk))
	}
	runtime.GC() // the limit goes by what the last collection found
}

func (sv *service) drop() {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	sv.cache = nil // found by the collection that the Guard asks for
}
