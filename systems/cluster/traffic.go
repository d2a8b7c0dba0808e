package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// A message consists of a kind and a number.
type message [16]byte

const (
	request = 'r' // answered with a copy of itself; a ping is a request
	notice  = 'n' // not answered
	rumour  = 'g' // sent on the gossip stream
	goodbye = 'b' // the last message on the gossip stream
)

func newMessage(kind byte, number int) (m message) {
	m[0] = kind
	binary.BigEndian.PutUint64(m[8:], uint64(number))
	return m
}

func (m message) kind() byte { return m[0] }

func read(r io.Reader) (m message, err error) {
	_, err = io.ReadFull(r, m[:])
	return m, err
}

func write(w io.Writer, m message) error {
	_, err := w.Write(m[:])
	return err
}

// byRestart reports whether err was caused by the restart of a client.
func byRestart(err error) bool {
	if closed, ok := errors.AsType[*quic.ApplicationError](err); ok {
		return closed.ErrorCode == 0
	}
	refused, ok := errors.AsType[*quic.StreamError](err)
	return ok && refused.Remote && refused.ErrorCode == codeShutdown
}

// An end is one end of a connection between a client and a server.
type end struct {
	link
	node         *node
	name         string
	ours, theirs *side

	stuck atomic.Bool  // the last open failed
	heard atomic.Int64 // gossip messages
	left  atomic.Bool  // the peer's gossip has ended

	load, talk     context.Context // done when the requests or the gossip should stop
	stopLoad, hush context.CancelFunc

	loading, talking, serving sync.WaitGroup
}

// take starts the work on a connection. The work goes on until the connection
// ends.
func (n *node) take(l link, name string) {
	e := &end{link: l, node: n, name: name, ours: n.side, theirs: n.side.other}
	e.load, e.stopLoad = context.WithCancel(n.c.load)
	e.talk, e.hush = context.WithCancel(context.Background())
	n.c.mu.Lock()
	n.c.ends[e] = struct{}{}
	n.c.mu.Unlock()
	e.serving.Go(e.serve)
	e.serving.Go(e.listen)
	e.talking.Go(e.gossip)
	e.loading.Go(e.work)
	n.running.Go(e.awaitEnd)
}

func (e *end) awaitEnd() {
	<-e.conn.Done()
	e.stopLoad()
	e.hush()
	e.loading.Wait()
	e.talking.Wait()
	e.serving.Wait()
	e.failed("connection", context.Cause(e.conn))
	e.node.c.mu.Lock()
	delete(e.node.c.ends, e)
	e.node.c.mu.Unlock()
}

// failed reports whether err is an error. It notes the error as a problem unless
// a restart caused it.
func (e *end) failed(what string, err error) bool {
	e.node.c.check(err == nil || byRestart(err), "%s: %s: %w", e.name, what, err)
	return err != nil
}

// serve answers the peer's streams until there are no more.
func (e *end) serve() {
	for {
		s, err := e.acceptStream(context.Background())
		if err != nil {
			return // the connection has ended, or this node is shutting down
		}
		e.serving.Go(func() { e.ours.answer(s, func() { e.theirs.given.Add(1) }) })
	}
}

// work makes the requests of one end.
func (e *end) work() {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	for n := rand.IntN(burstEvery); ; n++ { // start at random, so that the bursts do not all coincide
		select {
		case <-ticker.C:
		case <-e.load.Done():
		}
		if e.load.Err() != nil {
			return
		}
		e.ask(newMessage(request, n))
		switch {
		case e.load.Err() != nil:
		case n%burstEvery == 0:
			var requests sync.WaitGroup
			for range burst {
				requests.Go(func() { e.ask(newMessage(request, n)) })
			}
			requests.Wait()
		case n%noticeEvery == 0:
			e.ask(newMessage(notice, n))
		}
	}
}

// ask opens a stream and sends m. It ends the stream on all paths, so that this
// end leaks no stream.
func (e *end) ask(m message) {
	wait, cancel := context.WithTimeout(context.Background(), e.node.c.conf.patience)
	defer cancel()
	s, err := e.openStream(wait)
	e.stuck.Store(err != nil && !byRestart(err))
	if err != nil {
		e.ours.fail(&e.ours.refused, err)
		return
	}
	defer s.Close()
	if err := exchange(s, m); err != nil {
		s.CancelRead(0)
		s.CancelWrite(0)
		e.ours.fail(&e.ours.failed, err)
	} else if m.kind() != notice {
		e.ours.answered.Add(1)
	}
}

func exchange(s stream, m message) error {
	if err := s.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	if err := write(s, m); err != nil {
		return err
	}
	if m.kind() == notice {
		s.CancelRead(0) // there will be no answer
		return nil
	}
	answer, err := io.ReadAll(s) // up to the io.EOF
	if err == nil && string(answer) != string(m[:]) {
		err = errors.New("wrong answer")
	}
	return err
}

// gossip sends messages until e.talk is done. Then it says goodbye.
func (e *end) gossip() {
	s, err := e.openGossip(context.Background())
	if e.failed("opening gossip", err) {
		return
	}
	e.counter.Add(1)
	defer e.counter.Add(-1)
	ticker := time.NewTicker(gossipEvery)
	defer ticker.Stop()
	for n, kind := 0, byte(rumour); kind != goodbye; n++ {
		select {
		case <-ticker.C:
		case <-e.talk.Done():
			kind = goodbye
		}
		if e.failed("gossip", write(s, newMessage(kind, n))) {
			return
		}
		e.ours.said.Add(1)
	}
	e.failed("closing gossip", s.Close())
}

// listen reads the peer's gossip to its end. Then it makes this end say goodbye
// too.
func (e *end) listen() {
	defer e.left.Store(true)
	defer e.hush()
	defer e.stopLoad()
	s, err := e.acceptGossip(context.Background())
	if e.failed("accepting gossip", err) {
		return
	}
	e.counter.Add(1)
	defer e.counter.Add(-1)
	var last message
	for n := 0; ; n++ {
		m, err := read(s)
		if err == io.EOF && last.kind() == goodbye {
			return
		}
		if err == nil && m != newMessage(m.kind(), n) {
			err = fmt.Errorf("%q instead of number %d", m, n)
		}
		if e.failed("the peer's gossip", err) {
			return
		}
		last = m
		e.heard.Add(1)
		e.theirs.heard.Add(1)
	}
}
