package main

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	sockets    = 8                      // UDP sockets of the callers
	dialers    = 2 * sockets            // goroutines that dial; quic-go queues 32 connections for Accept
	patience   = 5 * time.Second        // how long a call may take
	hangTime   = 200 * time.Millisecond // how long a call of Hang may take
	silentSize = 128 << 10              // size of a silent request; only its beginning is sent
	mostSilent = 10                     // silent requests at a time on a connection, to bound memory
)

// quicConfig is for both ends. It is quic-go's default with a longer handshake
// timeout, because handshakes take long on a busy machine.
var quicConfig = &quic.Config{HandshakeIdleTimeout: 20 * time.Second}

// The stream error codes of the protocol.
const (
	codeIdle quic.StreamErrorCode = iota + 1
	codePanic
	codeFailed
)

// A conn is a caller's connection, on either library.
type conn interface {
	Context() context.Context
	// call opens a stream, calls f with it, and ends it.
	call(ctx context.Context, f func(stream) error) error
	leave() error
}

// counts says how calls and connections ended.
type counts struct {
	calls          atomic.Int64 // calls that have not returned
	echoed, failed atomic.Int64 // calls of Echo that were answered, and that failed
	silent, idled  atomic.Int64 // silent calls, and how many of them the server ended
	broken, told   atomic.Int64 // calls of Panic, Hang and Fail, and how many had the right error
	refused        atomic.Int64 // connections that the server refused
	beside         latencies    // of Echo, on connections that also call Panic, Hang and Fail
	elsewhere      latencies    // of Echo, on other connections
}

// A caller is one connection and its calls.
type caller struct {
	conn
	*counts
	stop    context.CancelFunc
	running sync.WaitGroup
	waiting atomic.Int64 // silent calls
}

// connect makes as many connections as the server has room for.
func (w *world) connect() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	errs := make(chan error, dialers)
	made := make(chan *caller)
	var next atomic.Int64
	for d := range dialers {
		go func() {
			for next.Add(1) <= int64(w.size.conns) {
				c, err := w.net.dial(ctx, d%sockets)
				for isRefused(err) && ctx.Err() == nil { // too many at once: only half of MaxConns may wait to be accepted
					time.Sleep(10 * time.Millisecond)
					c, err = w.net.dial(ctx, d%sockets)
				}
				if err != nil {
					errs <- fmt.Errorf("connecting: %w", err)
					return
				}
				made <- &caller{conn: c, counts: &w.counts}
			}
			errs <- nil
		}()
	}
	var err error
	for running := dialers; running > 0; {
		select {
		case c := <-made:
			w.callers = append(w.callers, c)
		case e := <-errs:
			err = errors.Join(err, e)
			running--
		}
	}
	return err
}

// startCalls starts the calls of each caller. They stop when ctx is done.
func (w *world) startCalls(ctx context.Context) {
	for i, c := range w.callers {
		ctx, cancel := context.WithCancel(ctx)
		c.stop = cancel
		every := func(d time.Duration, do func()) {
			c.running.Go(func() {
				phase := time.Duration(i%97) * d / 97 // so that not all callers call at once
				for timer := time.NewTimer(phase); ; timer.Reset(d) {
					select {
					case <-timer.C:
						do()
					case <-ctx.Done():
						return
					case <-c.Context().Done():
						return
					}
				}
			})
		}
		switch k := i % 100; {
		case k < 10:
			every(time.Second, c.fallSilent)
		case k < 13:
			every(time.Second, c.callBroken)
			every(time.Second/2, func() { c.echo(&c.beside) })
		case i%200 == 13: // a busy caller
			every(40*time.Millisecond, func() { c.echo(&c.elsewhere) })
		default:
			every(4*time.Second, func() { c.echo(&c.elsewhere) })
		}
	}
}

// ask makes a call and returns the answer.
func (c *caller) ask(patience time.Duration, method string, body []byte) (answer []byte, err error) {
	c.calls.Add(1)
	defer c.calls.Add(-1)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = c.call(ctx, func(s stream) error {
		if err := gob.NewEncoder(s).Encode(request{method, body}); err != nil {
			return err
		}
		answer, err = io.ReadAll(s)
		return err
	})
	return answer, err
}

var hello = bytes.Repeat([]byte("hello "), 100)

func (c *caller) echo(took *latencies) {
	start := time.Now()
	answer, err := c.ask(patience, "Echo", hello)
	if err != nil || !bytes.Equal(answer, hello) {
		c.failed.Add(1)
		return
	}
	took.add(time.Since(start))
	c.echoed.Add(1)
}

// callBroken calls the methods that do not work. Panic and Fail should each give
// an error code. Hang should end with a timeout.
func (c *caller) callBroken() {
	timedOut := func(err error) bool {
		return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
	}
	told := func(err error, code quic.StreamErrorCode) bool {
		remote, ok := errors.AsType[*quic.StreamError](err)
		return ok && remote.Remote && remote.ErrorCode == code
	}
	_, panicked := c.ask(patience, "Panic", hello)
	_, failed := c.ask(patience, "Fail", hello)
	_, hung := c.ask(hangTime, "Hang", hello)
	for _, ok := range []bool{told(panicked, codePanic), told(failed, codeFailed), timedOut(hung)} {
		c.broken.Add(1)
		if ok {
			c.told.Add(1)
		}
	}
}

// fallSilent sends the first kilobyte of a request, and then waits for an answer.
// It counts the calls that the server ends with codeIdle.
func (c *caller) fallSilent() {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(request{"Echo", make([]byte, silentSize)}); err != nil {
		panic(err) // cannot happen with these types
	}
	if c.waiting.Add(1) > mostSilent {
		c.waiting.Add(-1)
		return
	}
	beginning := bytes.Clone(b.Bytes()[:1<<10])
	c.silent.Add(1)
	c.calls.Add(1)
	c.running.Go(func() {
		defer c.waiting.Add(-1)
		defer c.calls.Add(-1)
		err := c.call(context.Background(), func(s stream) error {
			if _, err := s.Write(beginning); err != nil {
				return err
			}
			_, err := io.ReadAll(s)
			return err
		})
		if remote, ok := errors.AsType[*quic.StreamError](err); ok && remote.Remote && remote.ErrorCode == codeIdle {
			c.idled.Add(1)
		}
	})
}

// end closes the caller's connection once its calls have returned.
func (c *caller) end() error {
	c.stop()
	c.running.Wait()
	return c.leave()
}

// lost returns how many connections have ended by themselves.
func (w *world) lost() (lost int) {
	for _, c := range w.callers {
		if c.Context().Err() != nil {
			lost++
		}
	}
	return lost
}

// latencies holds the latest latencies of one kind of call.
type latencies struct {
	mu   sync.Mutex // guards the fields below
	n    int
	last [4096]time.Duration
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last[l.n%len(l.last)] = d
	l.n++
}

func (l *latencies) quantile(q float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.Sorted(slices.Values(l.last[:min(l.n, len(l.last))]))
	if len(all) == 0 {
		return 0
	}
	return all[int(q*float64(len(all)-1))]
}

func (l *latencies) median() time.Duration { return l.quantile(0.5) }

const unit = 10 * time.Microsecond // times are shown rounded to this

func (l *latencies) String() string {
	return fmt.Sprintf("median %v, 99%% within %v", l.median().Round(unit), l.quantile(0.99).Round(unit))
}
