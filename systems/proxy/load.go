package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	chunk = 4 << 10              // the origin makes answers in parts of this size, and sends each at once
	pace  = 5 * time.Millisecond // how long it then works before the next part
)

// content holds random bytes. Answers and uploads are parts of it.
var content = func() []byte {
	b := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}()

// serveOrigin answers a GET with the part of content that it asks for. It
// answers an upload with the checksum of the bytes that arrived.
func serveOrigin(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		got, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Write(sum(got))
		return
	}
	var at, size int
	if _, err := fmt.Sscanf(r.URL.Path, "/%d/%d", &at, &size); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(size))
	flush := http.NewResponseController(w).Flush
	for rest := content[at : at+size]; len(rest) > 0; time.Sleep(pace) {
		n := min(chunk, len(rest))
		if _, err := w.Write(rest[:n]); err != nil || flush() != nil || r.Context().Err() != nil {
			return // the client has left
		}
		rest = rest[n:]
	}
}

func sum(b []byte) []byte { return fmt.Appendf(nil, "%08x", crc32.ChecksumIEEE(b)) }

// A request downloads or uploads size bytes of content. If leave is set, its
// client leaves half-way.
type request struct {
	method string
	size   int
	leave  bool
}

var (
	get         = request{http.MethodGet, 4 << 10, false}
	getLarge    = request{http.MethodGet, 64 << 10, false}
	upload      = request{http.MethodPost, 64 << 10, false}
	leaveAnswer = request{http.MethodGet, 64 << 10, true}
	leaveUpload = request{http.MethodPost, 64 << 10, true}
)

// mix lists the kinds of requests. Clients make them in this order, again and
// again.
var mix = [...]request{
	get, get, getLarge, get, leaveAnswer, get, get, get, upload, get,
	get, get, getLarge, get, leaveUpload, get, get, get, upload, get,
}

// A load makes the clients' requests and counts how they end.
type load struct {
	url                       string
	next, whole, left, failed atomic.Int64 // requests

	mu    sync.Mutex // guards the field below
	first error      // the first failure of a request
}

// run makes the clients' requests until ctx is done. Each client makes at least
// one.
func (l *load) run(ctx context.Context) {
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: requestTime}
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for ok := true; ok; ok = ctx.Err() == nil {
				l.count(l.do(client, mix[l.next.Add(1)%int64(len(mix))]))
			}
		})
	}
	all.Wait()
}

func (l *load) count(err error) {
	switch {
	case err == nil:
		l.whole.Add(1)
		return
	case errors.Is(err, errLeft):
		l.left.Add(1)
		return
	}
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		l.first = err
	}
}

var errLeft = errors.New("the client has left")

// do makes a request and checks the answer. It returns errLeft if the client was
// to leave, and did.
func (l *load) do(client *http.Client, q request) error {
	at := rand.IntN(len(content) - q.size)
	part := content[at : at+q.size]
	half := part[:q.size/2]
	req, err := http.NewRequest(q.method, fmt.Sprintf("%s/%d/%d", l.url, at, q.size), nil)
	if err != nil {
		return err
	}
	want, most := part, q.size+1 // one byte more than expected, to notice answers that are too long
	if q.leave {
		most = len(half)
	}
	if q.method == http.MethodPost {
		want, req.ContentLength = sum(part), int64(q.size)
		req.Body = io.NopCloser(bytes.NewReader(part))
		if q.leave {
			req.Body = io.NopCloser(io.MultiReader(bytes.NewReader(half), leaver{}))
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() // ends the connection if the answer was not read to its end
	got, err := io.ReadAll(io.LimitReader(resp.Body, int64(most)))
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s", resp.Status, got)
	case q.leave && bytes.Equal(got, half):
		return errLeft
	case !bytes.Equal(got, want):
		return fmt.Errorf("%s of %d bytes: a wrong answer, of %d bytes", q.method, q.size, len(got))
	}
	return nil
}

// A leaver is the rest of an upload whose client leaves: reading it fails.
type leaver struct{}

func (leaver) Read([]byte) (int, error) { return 0, errLeft }
