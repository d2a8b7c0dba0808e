package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

// A cluster holds the nodes and their connections.
type cluster struct {
	*lab.Run
	conf config
	load context.Context // done when the load is to end

	servers, clients   side
	addrs              []string        // of the servers
	stops              []time.Duration // how long each client that was restarted took to stop
	leaks, gossipLeaks atomic.Int64    // reported by quiclife

	mu       sync.Mutex // guards the fields below
	ends     map[*end]struct{}
	problems []error
}

// A side is all the servers or all the clients, with counts of what they did.
type side struct {
	name   string
	nodes  []*node
	other  *side
	answer func(s stream, answered func())

	refused  atomic.Int64 // requests for which this side could not open a stream
	failed   atomic.Int64 // requests that failed otherwise
	given    atomic.Int64 // answers to its requests that the other side wrote and closed
	answered atomic.Int64 // answers that this side read to the end
	said     atomic.Int64 // gossip messages that this side wrote
	heard    atomic.Int64 // gossip messages of this side that the other side read
	first    atomic.Pointer[error]
}

// fail counts a failure, unless a restart caused it.
func (s *side) fail(count *atomic.Int64, err error) {
	if !byRestart(err) {
		count.Add(1)
		s.first.CompareAndSwap(nil, &err)
	}
}

func (s *side) failures() int64 { return s.refused.Load() + s.failed.Load() }

// each calls do for all nodes of a side at the same time.
func (s *side) each(do func(*node) error) error {
	errs := make([]error, len(s.nodes))
	var all sync.WaitGroup
	for i, n := range s.nodes {
		all.Go(func() { errs[i] = do(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func newCluster(load context.Context, r *lab.Run, conf config) *cluster {
	c := &cluster{Run: r, conf: conf, load: load, ends: make(map[*end]struct{})}
	c.servers = side{name: "servers", other: &c.clients, answer: answerAsServer}
	c.clients = side{name: "clients", other: &c.servers, answer: clientsAnswer}
	add := func(s *side, name string) {
		s.nodes = append(s.nodes, &node{c: c, side: s, name: name, net: newNetwork(c, name)})
	}
	for i := range servers {
		add(&c.servers, fmt.Sprintf("server %d", i+1))
	}
	for i := range clients {
		add(&c.clients, fmt.Sprintf("client %d", i+1))
	}
	return c
}

func (c *cluster) onLeak(l quiclife.Leak) {
	c.leaks.Add(1)
	if l.Stream.Unidirectional {
		c.gossipLeaks.Add(1)
	}
}

// check notes a problem if ok is false.
func (c *cluster) check(ok bool, format string, args ...any) {
	if !ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.problems = append(c.problems, fmt.Errorf(format, args...))
	}
}

// all returns the ends of the connections that are alive.
func (c *cluster) all() (all []*end) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := range c.ends {
		all = append(all, e)
	}
	return all
}

func (c *cluster) start() error {
	for _, n := range c.servers.nodes {
		if err := n.listen(); err != nil {
			return err
		}
	}
	return c.clients.each((*node).dial)
}

// restartClients restarts one client after another while the load lasts, and one
// more as it ends.
func (c *cluster) restartClients() {
	ticker := time.NewTicker(restartEvery)
	defer ticker.Stop()
	for i := 0; i == 0 || c.load.Err() == nil; i++ {
		select {
		case <-ticker.C:
		case <-c.load.Done():
		}
		n := c.clients.nodes[clients-1-i%restarting]
		c.Event(restart, "%s", n.name)
		start := time.Now()
		err := n.stop()
		c.stops = append(c.stops, time.Since(start))
		err = errors.Join(err, n.dial())
		c.check(err == nil, "restart of %s: %w", n.name, err)
	}
}

// endGossip makes the clients say goodbye. The servers then say goodbye too.
func (c *cluster) endGossip() {
	for _, n := range c.clients.nodes {
		n.leave()
	}
	c.check(await(stopTime, func() bool { return all(c.all(), func(e *end) bool { return e.left.Load() }) }), "gossip does not end")
}

// stop stops all nodes, the clients first.
func (c *cluster) stop() error {
	return errors.Join(c.clients.each((*node).stop), c.servers.each((*node).stop))
}

// A node is a server or a client.
type node struct {
	c       *cluster
	side    *side
	name    string
	net     network
	ln      *listener      // nil for a client
	running sync.WaitGroup // the goroutines of the node
}

func (n *node) listen() (err error) {
	if n.ln, err = n.net.listen(); err != nil {
		return err
	}
	n.c.addrs = append(n.c.addrs, n.ln.addr)
	n.running.Go(func() {
		for {
			l, err := n.ln.accept(context.Background())
			if err != nil {
				return // stopped
			}
			n.take(l, n.name)
		}
	})
	return nil
}

// dial connects a client to all servers. It returns when the gossip of each
// server has begun to arrive.
func (n *node) dial() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	for i, addr := range n.c.addrs {
		l, err := n.net.dial(ctx, addr)
		if err != nil {
			return err
		}
		n.take(l, fmt.Sprintf("%s with server %d", n.name, i+1))
	}
	if !await(stopTime, func() bool { return all(n.ends(), func(e *end) bool { return e.heard.Load() > 0 }) }) {
		return errors.New("a server does not gossip")
	}
	return nil
}

// ends returns the node's ends of the connections that are alive.
func (n *node) ends() []*end {
	return slices.DeleteFunc(n.c.all(), func(e *end) bool { return e.node != n })
}

// leave ends a node's own traffic: its requests, then its gossip.
func (n *node) leave() {
	ends := n.ends()
	for _, e := range ends {
		e.stopLoad()
	}
	for _, e := range ends {
		e.loading.Wait()
		e.hush()
		e.talking.Wait()
	}
}

// stop stops a node and waits for its goroutines.
func (n *node) stop() error {
	n.leave()
	defer n.running.Wait()
	if n.net.shutdown != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		return n.net.shutdown(ctx)
	}
	var errs []error
	for _, e := range n.ends() {
		errs = append(errs, e.close(0, ""))
	}
	if n.ln != nil {
		errs = append(errs, n.ln.close())
	}
	return errors.Join(errs...)
}
