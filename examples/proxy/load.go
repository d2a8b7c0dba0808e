package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	smallSize = 4 << 10
	largeSize = 64 << 10
	chunk     = 4 << 10              // answers are made in such parts, and sent at once,
	pace      = 5 * time.Millisecond // with so much work after each
)

// content is what answers and uploads are parts of.
var content = func() []byte {
	b := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}()

// serveOrigin answers a GET with the part of content that it asks for, and an
// upload with the sum of what came.
func serveOrigin(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		sum := crc32.NewIEEE()
		if _, err := io.Copy(sum, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, sum.Sum32())
		return
	}
	at, err1 := strconv.Atoi(r.FormValue("at"))
	size, err2 := strconv.Atoi(r.FormValue("size"))
	if err := errors.Join(err1, err2); err != nil || min(at, size) < 0 || at+size > len(content) {
		http.Error(w, fmt.Sprintf("no such part: %v", err), http.StatusBadRequest)
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

// A load is what the clients do, and what comes of it.
type load struct {
	url    string
	client *http.Client

	whole, left, failed atomic.Int64 // requests
	kinds               [numKinds]atomic.Int64

	mu    sync.Mutex // guards the field below
	first error      // of a request that failed
}

type kind int

const (
	getSmall kind = iota
	getLarge
	upload
	leaveAnswer
	leaveUpload
	numKinds
)

// mix is what the requests are, in turn: one in ten is left.
var mix = [...]kind{
	getSmall, getSmall, getLarge, getSmall, leaveAnswer, getSmall, getSmall, getSmall, upload, getSmall,
	getSmall, getSmall, getLarge, getSmall, leaveUpload, getSmall, getSmall, getSmall, upload, getSmall,
}

func newLoad(url string) *load {
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	return &load{url: url, client: &http.Client{Transport: transport, Timeout: requestTime}}
}

// run has the clients make requests until ctx is done.
func (l *load) run(ctx context.Context) {
	defer l.client.CloseIdleConnections()
	var all sync.WaitGroup
	var next atomic.Uint64
	for range clients {
		all.Go(func() {
			for ctx.Err() == nil {
				k := mix[next.Add(1)%uint64(len(mix))]
				l.kinds[k].Add(1)
				switch err := l.request(k, rand.IntN(len(content)-largeSize)); {
				case err == nil:
					l.whole.Add(1)
				case err == errLeft:
					l.left.Add(1)
				default:
					l.fail(err)
				}
			}
		})
	}
	all.Wait()
}

func (l *load) fail(err error) {
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		l.first = err
	}
}

var errLeft = errors.New("the client left")

// request makes a request about the part of content at at, and checks what
// comes of it. It returns errLeft if it left half-way, as it was to.
func (l *load) request(k kind, at int) error {
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	switch k {
	case upload:
		part := content[at : at+largeSize]
		got, err := l.do(ctx, http.MethodPost, l.url, bytes.NewReader(part), math.MaxInt)
		if want := fmt.Sprint(crc32.ChecksumIEEE(part)); err == nil && string(got) != want {
			return fmt.Errorf("upload: the origin has got %q, not %s", got, want)
		}
		return err
	case leaveUpload:
		half := &leaving{rest: content[at : at+largeSize/2], leave: leave}
		_, err := l.do(ctx, http.MethodPost, l.url, half, 0)
		if half.left.Load() && errors.Is(err, context.Canceled) {
			return errLeft
		}
		return fmt.Errorf("upload that is left: %w", cmp.Or(err, errors.New("answered")))
	}
	size := largeSize
	if k == getSmall {
		size = smallSize
	}
	url := fmt.Sprintf("%s/?at=%d&size=%d", l.url, at, size)
	if k == leaveAnswer {
		_, err := l.do(ctx, http.MethodGet, url, nil, size/2)
		return cmp.Or(err, errLeft)
	}
	got, err := l.do(ctx, http.MethodGet, url, nil, math.MaxInt)
	if err == nil && crc32.ChecksumIEEE(got) != crc32.ChecksumIEEE(content[at:at+size]) {
		return fmt.Errorf("a wrong answer, %d bytes of %d", len(got), size)
	}
	return err
}

// do makes a request and reads the answer, or so much of it, and then leaves.
func (l *load) do(ctx context.Context, method, url string, body io.Reader, most int) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.ContentLength = largeSize
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() // which ends the connection if not all was read
	got, err := io.ReadAll(io.LimitReader(resp.Body, int64(most)))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", resp.Status, got)
	}
	return got, nil
}

// leaving is half of an upload, after which the client leaves.
type leaving struct {
	rest  []byte
	leave context.CancelFunc
	left  atomic.Bool
}

func (u *leaving) Read(p []byte) (int, error) {
	if len(u.rest) == 0 {
		u.left.Store(true)
		u.leave()
		return 0, context.Canceled
	}
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}

// judge says what went wrong with the requests.
func (l *load) judge() (errs []error) {
	for k := range l.kinds {
		if l.kinds[k].Load() == 0 {
			errs = append(errs, fmt.Errorf("no request of kind %d was made", k))
		}
	}
	if n := l.failed.Load(); n > 0 {
		errs = append(errs, fmt.Errorf("%d requests failed, the first: %w", n, l.first))
	}
	return errs
}
