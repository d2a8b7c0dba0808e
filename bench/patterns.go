package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	xquic "golang.org/x/net/quic"
)

// A pattern is what the two ends of a program do with a stream. When they return,
// the program does not refer to the stream any more.
type pattern struct {
	name   string
	client func(*exchange, stream)
	server func(*exchange, stream)
}

// An exchange is one use of a pattern.
type exchange struct {
	library
	turn   chan struct{} // one end closes it to let the other go on
	left   chan struct{} // the client has returned
	served chan struct{} // the server has returned
	lacks  atomic.Bool   // the library has no call for the pattern
}

var message = []byte("a line")

func (x *exchange) write(s stream, p []byte) {
	s.Write(p)
	x.flush(s)
}

// honestServer reads to the end, answers, and ends both halves.
func honestServer(x *exchange, s stream) {
	if _, err := io.ReadAll(s); err != nil {
		x.abort(s)
		return
	}
	s.Write(message)
	x.finish(s)
	x.done(s)
}

func readMessage(s stream) { io.ReadFull(s, make([]byte, len(message))) }

// patterns are eight ways to stop using a stream. In each, one end does what
// programs often do, and the other end does everything right.
var patterns = []pattern{
	{
		name: "client: `Close`, answer not read",
		client: func(x *exchange, s stream) {
			x.write(s, message)
			s.Close()
		},
		server: honestServer,
	},
	{
		name: "client: reads exactly the answer, not the `io.EOF`",
		client: func(x *exchange, s stream) {
			s.Write(message)
			x.finish(s)
			readMessage(s)
			close(x.turn)
		},
		server: func(x *exchange, s stream) {
			io.ReadAll(s)
			x.write(s, message)
			<-x.turn // so that the FIN comes in a packet of its own
			x.finish(s)
			x.done(s)
		},
	},
	{
		name: "client: stops reading, leaves the send half",
		client: func(x *exchange, s stream) {
			x.write(s, message)
			if !x.stopReading(s) {
				x.lacks.Store(true)
				x.abort(s)
			}
		},
		server: honestServer,
	},
	{
		name:   "client: returns on an error, stream dropped",
		client: func(x *exchange, s stream) { x.write(s, message) },
		server: honestServer,
	},
	{
		name: "client: context ends during `Read`, deferred `Close`",
		client: func(x *exchange, s stream) {
			ctx, cancel := context.WithCancel(context.Background())
			go func() {
				<-x.turn
				cancel()
			}()
			defer s.Close()
			defer x.bind(ctx, s)()
			s.Write(message)
			x.finish(s)
			readMessage(s)
		},
		server: func(x *exchange, s stream) {
			io.ReadAll(s)
			close(x.turn)
			<-x.left
			x.abort(s)
		},
	},
	{
		name: "client: aborts both halves while a `Write` is blocked",
		client: func(x *exchange, s stream) {
			var written atomic.Int64
			blocked := make(chan struct{})
			go func() {
				defer close(blocked)
				for p := make([]byte, 1000); ; {
					n, err := s.Write(p)
					written.Add(int64(n))
					if err != nil {
						return
					}
				}
			}()
			// Write is blocked when no more bytes are taken. Every library first
			// takes more than the minimum. Below that, the writer has just not
			// run yet.
			const minimum = 200_000
			for before := int64(-1); before != written.Load() || before < minimum; {
				before = written.Load()
				time.Sleep(100 * time.Millisecond)
			}
			x.abort(s)
			<-blocked
		},
		server: func(x *exchange, s stream) {
			<-x.left
			x.abort(s)
		},
	},
	{
		name: "server: reads exactly the request, answers, `Close`",
		client: func(x *exchange, s stream) {
			x.write(s, message)
			<-x.turn // so that the FIN comes in a packet of its own
			x.finish(s)
			io.ReadAll(s)
			x.done(s)
		},
		server: func(x *exchange, s stream) {
			readMessage(s)
			close(x.turn)
			s.Write(message)
			s.Close()
		},
	},
	{
		name: "server: handler returns, nothing ended",
		client: func(x *exchange, s stream) {
			s.Write(message)
			x.finish(s)
			<-x.served
			x.abort(s) // it has waited long enough
		},
		server: func(x *exchange, s stream) { io.ReadAll(s) },
	},
}

// A cell is what a pattern leaves behind: the streams that the library keeps at
// each end, while their connection is open.
type cell struct {
	lacks          bool // the library has no call for the pattern
	collected      bool // nothing was left, but only after garbage collections
	client, server int
}

func (c cell) String() string {
	switch {
	case c.lacks:
		return "–"
	case c.client+c.server > 0:
		return fmt.Sprintf("**%d + %d**", c.client, c.server)
	case c.collected:
		return "0 (GC)"
	}
	return "0"
}

// A trial is a pattern on a library, on a connection of its own.
type trial struct {
	link           *link
	client, server weakStreams
	lacks          bool
}

// weakStreams count the streams that are reachable after a garbage collection,
// for a library that does not say how many it keeps. The program holds none.
type weakStreams struct {
	mu  sync.Mutex
	all []weak.Pointer[xquic.Stream]
}

func (w *weakStreams) add(s stream) {
	if s, ok := s.(*xquic.Stream); ok {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.all = append(w.all, weak.Make(s))
	}
}

func (w *weakStreams) left() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.all {
		if p.Value() != nil {
			n++
		}
	}
	return n
}

// held returns the streams left, and whether they could be counted without a
// garbage collection.
func (t *trial) held() (client, server int, exact bool) {
	if t.link.client.held == nil {
		return t.client.left(), t.server.left(), false
	}
	return t.link.client.held(), t.link.server.held(), true
}

// play plays the pattern on count streams, one after the other.
func (t *trial) play(p pattern, count int) error {
	for range count {
		if err := t.exchange(p); err != nil {
			return err
		}
	}
	return nil
}

func (t *trial) exchange(p pattern) error {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	x := &exchange{library: t.link.library, turn: make(chan struct{}), left: make(chan struct{}), served: make(chan struct{})}
	accepted := make(chan error, 1)
	go func() {
		defer close(x.served)
		s, err := t.link.server.accept(ctx)
		accepted <- err
		if err == nil {
			t.server.add(s)
			p.server(x, s)
		}
	}()
	opened := make(chan error, 1)
	go func() {
		defer close(x.left)
		s, err := t.link.client.open(ctx)
		opened <- err
		if err == nil {
			t.client.add(s)
			p.client(x, s)
		}
	}()
	for _, c := range []chan error{opened, accepted} {
		select {
		case err := <-c:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case <-x.left:
	case <-ctx.Done():
		return fmt.Errorf("%s: the client is stuck", p.name)
	}
	t.lacks = t.lacks || x.lacks.Load()
	return nil
}

// How long we wait for streams to be freed: before the first collection, and from
// then on. quiclife ends a dropped stream up to a second after it was found.
const (
	settleBefore = time.Second
	settleAfter  = 3 * time.Second
)

// leftBehind plays each pattern on each subject, all at once, with count streams
// each. It returns what is left, by pattern and subject. The process must do
// nothing else: leftBehind turns the garbage collector off, so that it decides
// when to collect.
func leftBehind(patterns []pattern, subjects []subject, count int) (map[string]map[string]cell, error) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	cells := map[string]map[string]cell{}
	trials := map[string]map[string]*trial{}
	var playing []func() error
	for _, p := range patterns {
		cells[p.name], trials[p.name] = map[string]cell{}, map[string]*trial{}
		for _, s := range subjects {
			if s.library == nil {
				continue
			}
			l, err := s.library.connect()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			defer l.close()
			t := &trial{link: l}
			trials[p.name][s.name] = t
			playing = append(playing, func() error {
				if err := t.play(p, count); err != nil {
					return fmt.Errorf("%s, %s: %w", p.name, s.name, err)
				}
				return nil
			})
		}
	}
	if err := allAtOnce(playing); err != nil {
		return nil, err
	}

	look := func(collected bool) (done bool) {
		done = true
		for p, row := range trials {
			for s, t := range row {
				c, settled := cells[p][s]
				if settled && c.client+c.server == 0 {
					continue
				}
				client, server, exact := t.held()
				if !exact && !collected {
					done = false
					continue
				}
				cells[p][s] = cell{lacks: t.lacks, collected: collected && exact, client: client, server: server}
				done = done && client+server == 0
			}
		}
		return done
	}
	await := func(d time.Duration, look func() bool) {
		for until := time.Now().Add(d); !look() && time.Now().Before(until); {
			time.Sleep(50 * time.Millisecond)
		}
	}
	await(settleBefore, func() bool { return look(false) })
	await(settleAfter, func() bool {
		runtime.GC()
		return look(true)
	})
	return cells, nil
}

func allAtOnce(fs []func() error) error {
	errs := make(chan error, len(fs))
	for _, f := range fs {
		go func() { errs <- f() }()
	}
	var first error
	for range fs {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}
