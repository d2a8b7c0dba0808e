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

// bufferSize is the size of each of a call's two buffers.
const bufferSize = 64 << 10

// A stream is a *quic.Stream or a *quiclife.Stream.
type stream interface {
	io.ReadWriteCloser
	Context() context.Context
}

// A request is all that the caller sends on a stream. The answer is all that the
// server sends back, up to the end of the stream.
type request struct {
	Method string
	Body   []byte
}

// A service has the methods of the server.
type service struct {
	maxHeap int64

	mu    sync.Mutex // guards the fields below
	cache [][]byte
}

// handle answers a call. It is careless in one way: it never reads the end of
// the request. The caller sends that end once it has the answer.
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
		<-ctx.Done() // like waiting for a lock that nobody unlocks
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

// load fills the cache until the heap is well above the limit.
func (sv *service) load() {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	const chunk = 1 << 20
	for missing := sv.maxHeap*5/4 - int64(rig.LiveHeap()); missing > 0; missing -= chunk {
		sv.cache = append(sv.cache, make([]byte, chunk))
	}
	runtime.GC() // the limit is compared with the heap at the last collection
}

func (sv *service) drop() {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	sv.cache = nil // freed by the collection that the Guard asks for
}
