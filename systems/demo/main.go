// Demo runs one careless request loop twice: on quic-go, then on quiclife.
// On quic-go the loop stops once forgotten streams have used up the limit.
//
//	go run ./systems/demo
//
// The code makes three common mistakes:
//
//   - It reads the bytes it expects, and never the io.EOF after them.
//   - When a request is cancelled while it is being sent, the client does
//     nothing more with the stream.
//   - When a Read fails, the server's handler returns without ending its own
//     half.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

const (
	maxStreams  = 100                    // the server's MaxIncomingStreams
	cancelEvery = 10                     // every tenth request is cancelled
	userLeaves  = time.Millisecond       // a cancelled request is cancelled after this time
	logTime     = 100 * time.Microsecond // how long the server takes to write a line to its log
	maxGrowth   = 4 << 20                // bytes by which the heap may have grown at the end
	timeLimit   = 60 * time.Second       // for each loop, so that a bug cannot hang it
	settleTime  = 5 * time.Second        // for the last streams to be freed
	goneCode    = quic.StreamErrorCode(1)
)

var (
	small  = message(100)
	large  = message(2 << 20) // sending it takes far longer than the user stays
	answer = bytes.Repeat([]byte("answer "), 200)
)

// message returns a request: the length of the body, then the body.
func message(size int) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(size)), make([]byte, size)...)
}

// A stream is a *quic.Stream or a *quiclife.Stream.
type stream interface {
	io.ReadWriteCloser
	CancelWrite(quic.StreamErrorCode)
}

// A conn is a *quic.Conn or a *quiclife.Conn.
type conn[S stream] interface {
	OpenStreamSync(context.Context) (S, error)
	AcceptStream(context.Context) (S, error)
	CloseWithError(quic.ApplicationErrorCode, string) error
}

// serve is the server's accept loop.
func serve[S stream](c conn[S]) {
	for {
		s, err := c.AcceptStream(context.Background())
		if err != nil {
			return // the connection has ended
		}
		go handle(s)
	}
}

// handle answers a request. It makes three mistakes, marked as careless.
func handle(s stream) {
	var size [4]byte
	if _, err := io.ReadFull(s, size[:]); err != nil {
		return // careless: the send half stays open
	}
	if _, err := io.CopyN(io.Discard, s, int64(binary.BigEndian.Uint32(size[:]))); err != nil {
		return // careless: here too
	}
	defer s.Close() // careless: nobody reads the io.EOF of the request
	if _, err := s.Write(answer); err != nil {
		return
	}
	time.Sleep(logTime) // meanwhile the answer goes out, so the FIN follows in a separate frame
}

var errCancelled = errors.New("request cancelled")

// request makes one request. It waits for a free slot until patience has
// passed. If the request is to be cancelled, the user leaves while it is being
// sent.
func request[S stream](ctx context.Context, c conn[S], patience time.Duration, cancelled bool) error {
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := c.OpenStreamSync(wait)
	if err != nil {
		return err
	}

	user, body := ctx, small
	if cancelled {
		body = large
		user, cancel = context.WithTimeout(ctx, userLeaves)
		defer cancel()
	}
	stop := context.AfterFunc(user, func() { s.CancelWrite(goneCode) })
	_, err = s.Write(body)
	if !stop() {
		return errCancelled // careless: the receive half stays open
	}
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	got := make([]byte, len(answer))
	if _, err := io.ReadFull(s, got); err != nil {
		return err
	}
	if !bytes.Equal(got, answer) {
		return errors.New("wrong answer")
	}
	return nil // careless: nobody reads the io.EOF of the answer
}

// A result is the outcome of a loop.
type result struct {
	answered, cancelled int
	took                time.Duration
	err                 error // what stopped the loop; nil if it made all requests
}

func (r result) done() int { return r.answered + r.cancelled }

// loop makes requests, one after another. It stops when one fails.
func loop[S stream](client, server conn[S], opt options) (r result) {
	ctx, cancel := context.WithTimeout(context.Background(), timeLimit)
	defer cancel()
	defer context.AfterFunc(ctx, func() { client.CloseWithError(0, "out of time") })()
	go serve(server)

	start := time.Now()
	for r.err == nil && r.done() < opt.requests {
		switch err := request(ctx, client, opt.patience, r.done()%cancelEvery == cancelEvery-1); err {
		case nil:
			r.answered++
		case errCancelled:
			r.cancelled++
		default:
			r.err = err
		}
	}
	r.took = time.Since(start)
	return r
}

type options struct {
	requests int
	patience time.Duration // how long to wait for a free slot
	http     string        // address at which to serve the page and the metrics
}

func main() {
	opt := options{patience: 3 * time.Second}
	flag.IntVar(&opt.requests, "n", 10_000, "number of requests")
	flag.StringVar(&opt.http, "http", "", lab.HTTPUsage)
	flag.Parse()
	if err := run(os.Stdout, opt); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run makes both runs. It returns an error if quiclife left anything behind.
func run(w io.Writer, opt options) error {
	if opt.http != "" {
		stop, err := lab.ServeHTTP(w, opt.http)
		if err != nil {
			return err
		}
		defer stop()
	}
	fmt.Fprintf(w, `A client makes %d requests of a server over loopback, one after the other, each on a QUIC
stream of its own. The server allows %d streams at a time. The code makes common mistakes: it never
reads to the end of a stream, and every %dth request is cancelled, and its stream then forgotten.
The same loop runs on quic-go, then on quiclife. Both together take about ten seconds.
`, opt.requests, maxStreams, cancelEvery)
	plain, err := runPlain(w, opt)
	if err != nil {
		return err
	}
	if err := runQuiclife(w, opt); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nok: quic-go %s. With quiclife all %d were made, and nothing is left.\n", plain, opt.requests)
	return nil
}

// runPlain makes the run on quic-go. outcome says in words how it ended.
func runPlain(w io.Writer, opt options) (outcome string, err error) {
	client, server, end, err := connect(quic.ListenAddr, quic.DialAddr)
	if err != nil {
		return "", err
	}
	defer end()
	r := loop(client, server, opt)
	runtime.GC() // to be fair to quic-go, though it does not help here

	fmt.Fprintf(w, "\nquic-go\n")
	fmt.Fprintf(w, "  requests  %d of %d\n", r.done(), opt.requests)
	outcome = fmt.Sprintf("got stuck after %d requests", r.done())
	switch {
	case r.err == nil:
		fmt.Fprintf(w, "  stopped   not at all, this time\n")
		outcome = "did not get stuck this time"
	case errors.Is(r.err, context.DeadlineExceeded):
		fmt.Fprintf(w, "  stopped   no stream could be opened for %v: %v\n", opt.patience, r.err)
	default:
		fmt.Fprintf(w, "  stopped   %v\n", r.err)
	}
	fmt.Fprintf(w, "  left      %d streams at the client, %d at the server, though their requests are over\n", held(client), held(server))
	return outcome, nil
}

func runQuiclife(w io.Writer, opt options) error {
	var leaks leaks
	guard := lab.Watched("demo", &quiclife.Guard{
		OnLeak: leaks.add,
		Logger: slog.New(slog.DiscardHandler), // otherwise each leak is logged
	})
	client, server, end, err := connect(guard.ListenAddr, guard.DialAddr)
	if err != nil {
		return err
	}
	defer end()
	before := heap()
	r := loop(client, server, opt)

	// Streams that the loop dropped are freed after a garbage collection. A busy
	// program collects all the time. This one is done, so it starts collections.
	left := func() int { return held(client.Unwrap()) + held(server.Unwrap()) }
	open := func() int64 { return client.Stats().Open() + server.Stats().Open() }
	for start := time.Now(); left()+int(open()) > 0 && time.Since(start) < settleTime; time.Sleep(10 * time.Millisecond) {
		runtime.GC()
	}
	after := heap()
	out, in := client.Stats().Outgoing, server.Stats().Incoming
	reported, first := leaks.get()

	fmt.Fprintf(w, "\nquiclife, the same loop\n")
	fmt.Fprintf(w, "  requests  %d of %d, %.0f a second: %d answered, %d cancelled\n",
		r.done(), opt.requests, float64(r.done())/r.took.Seconds(), r.answered, r.cancelled)
	fmt.Fprintf(w, "  left      %d streams at the client, %d at the server\n", held(client.Unwrap()), held(server.Unwrap()))
	fmt.Fprintf(w, "  heap      %.1f MiB before, %.1f MiB after\n", mib(before), mib(after))
	fmt.Fprintf(w, "  leaks     %d streams were forgotten; quiclife found, ended and reported each\n", reported)
	if reported > 0 {
		fmt.Fprintf(w, "            the first: %s\n", first)
	}
	fmt.Fprintf(w, "\n  How its streams ended, as quiclife counts them at each end:\n")
	fmt.Fprintf(w, "  %-8s%10s%10s%11s%11s%12s\n", "", "opened", "finished", "cancelled", "forgotten", "still open")
	for _, row := range []struct {
		name string
		quiclife.StreamStats
	}{{"client", out}, {"server", in}} {
		fmt.Fprintf(w, "  %-8s%10d%10d%11d%11d%12d\n", row.name, row.Opened, row.Finished, row.Reset, row.Reclaimed, row.Open)
	}

	n := int64(opt.requests)
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(r.err == nil, "stopped after %d requests: %w", r.done(), r.err)
	check(client.Context().Err() == nil && server.Context().Err() == nil, "the connection has ended")
	check(left() == 0, "%d streams are left", left())
	check(open() == 0, "%d streams are counted open", open())
	check(out.Opened == n && in.Opened == n, "not every stream was counted")
	check(after < before+maxGrowth, "the heap has grown by %.1f MiB", mib(after)-mib(before))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("quiclife: %w", err)
	}
	return nil
}

// leaks counts the leaks that OnLeak reports, and describes the first.
type leaks struct {
	mu    sync.Mutex // guards the fields below
	n     int
	first string
}

func (l *leaks) add(leak quiclife.Leak) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n++; l.n == 1 {
		l.first = fmt.Sprintf("stream %d, send half %v, receive half %v", leak.Stream.ID, leak.Stream.Send, leak.Stream.Receive)
	}
}

func (l *leaks) get() (n int, first string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n, l.first
}
