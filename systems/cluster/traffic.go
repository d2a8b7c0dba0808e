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

// A message is a kind and a number.
type message [16]byte

const (
	request = 'r' // is answered with itself; a ping is one
	notice  = 'n' // is not answered
	rumour  = 'g' // on the gossip stream
	goodbye = 'b' // the last one there
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

// byRestart reports whether err comes of the restart of a client.
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

	load, talk     context.Context // done when there is to be no more of it
	stopLoad, hush context.CancelFunc

	loading, talking, serving sync.WaitGroup
}

// take takes up work on a connection, until it ends.
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

// failed notes what is not to fail but by a restart, and reports whether it has.
func (e *end) failed(what string, err error) bool {
	e.node.c.check(err == nil || byRestart(err), "%s: %s: %w", e.name, what, err)
	return err != nil
}

// serve answers the peer's streams until there are no more.
func (e *end) serve() {
	for {
		s, err := e.acceptStream(context.Background())
		if err != nil {
			return // the connection has ended, or this node shuts down
		}
		e.serving.Go(func() { e.ours.answer(s, func() { e.theirs.given.Add(1) }) })
	}
}

// work loads the connection.
func (e *end) work() {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	for n := rand.IntN(burstEvery); ; n++ { // so that the ends do not all burst at once
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

// ask opens a stream for m. It ends the stream on all paths, so that it is not
// at this end that one leaks.
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
	answer, err := io.ReadAll(s) // to its end
	if err == nil && string(answer) != string(m[:]) {
		err = errors.New("wrong answer")
	}
	return err
}

// gossip talks until it is hushed, then says goodbye.
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

// listen listens to the peer's gossip to its end, and then says goodbye too.
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
