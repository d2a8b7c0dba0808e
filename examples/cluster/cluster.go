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
	"github.com/quiclife/quiclife/examples/internal/lab"
)

// A cluster is the nodes, their connections, and what became of the requests.
type cluster struct {
	*lab.Run
	conf config
	load context.Context // done when the load is to end

	servers, clients []*node
	addrs            []string        // of the servers
	stops            []time.Duration // how long the clients took that were restarted

	byServers, byClients tally        // of the requests that these make
	ended                atomic.Int64 // connections, as the servers saw it
	leaks, gossipLeaks   atomic.Int64 // reported by quiclife

	mu       sync.Mutex // guards the fields below
	ends     map[*end]struct{}
	problems []error
}

// A tally is of the requests and the gossip of the servers, or the clients.
type tally struct {
	name     string
	refused  atomic.Int64 // no stream could be opened
	failed   atomic.Int64 // failed otherwise
	given    atomic.Int64 // answers that were written and closed
	answered atomic.Int64 // answers that were read to the end
	said     atomic.Int64 // gossip messages that were written
	heard    atomic.Int64 // gossip messages that were read

	mu  sync.Mutex // guards the field below
	err error      // the first
}

// fail counts a failure, unless it comes of a restart.
func (t *tally) fail(count *atomic.Int64, err error) {
	if byRestart(err) {
		return
	}
	count.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
	}
}

func (t *tally) failures() int64 { return t.refused.Load() + t.failed.Load() }

func (t *tally) first() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

func newCluster(load context.Context, r *lab.Run, conf config) *cluster {
	c := &cluster{Run: r, conf: conf, load: load, ends: make(map[*end]struct{})}
	c.byServers.name, c.byClients.name = "servers to clients", "clients to servers"
	for i := range servers {
		c.servers = append(c.servers, &node{c: c, name: fmt.Sprintf("server %d", i+1), net: c.network()})
	}
	for i := range clients {
		c.clients = append(c.clients, &node{c: c, name: fmt.Sprintf("client %d", i+1), net: c.network()})
	}
	return c
}

func (c *cluster) onLeak(l quiclife.Leak) {
	c.leaks.Add(1)
	if l.Stream.Unidirectional {
		c.gossipLeaks.Add(1)
	}
}

func (c *cluster) problem(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems = append(c.problems, err)
}

func (c *cluster) check(ok bool, format string, args ...any) {
	if !ok {
		c.problem(fmt.Errorf(format, args...))
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
	for _, n := range c.servers {
		if err := n.listen(); err != nil {
			return err
		}
	}
	if err := each(c.clients, (*node).dial); err != nil {
		return err
	}
	if !await(stopTime, func() bool { return len(c.all()) == 2*servers*clients }) {
		return errors.New("not all connections were accepted")
	}
	return nil
}

// restartClients restarts one client after the other while the load lasts, and
// one as it ends.
func (c *cluster) restartClients() {
	ticker := time.NewTicker(restartEvery)
	defer ticker.Stop()
	for i := 0; i == 0 || c.load.Err() == nil; i++ {
		select {
		case <-ticker.C:
		case <-c.load.Done():
		}
		n := c.clients[clients-1-i%restarting]
		start := time.Now()
		err := n.stop()
		c.stops = append(c.stops, time.Since(start))
		if err = errors.Join(err, n.dial()); err != nil {
			c.problem(fmt.Errorf("restart of %s: %w", n.name, err))
		}
	}
}

// endGossip has the clients say goodbye. The servers answer in kind.
func (c *cluster) endGossip() {
	for _, n := range c.clients {
		n.leave()
	}
	for _, e := range c.all() {
		select {
		case <-e.left:
		case <-time.After(stopTime):
			c.problem(fmt.Errorf("%s: the peer's gossip did not end", e.name))
			return
		}
	}
}

// stop stops all nodes, the clients first.
func (c *cluster) stop() error {
	return errors.Join(each(c.clients, (*node).stop), each(c.servers, (*node).stop))
}

// each does something with all nodes side by side.
func each(nodes []*node, do func(*node) error) error {
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() { errs[i] = do(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// A node is a server or a client.
type node struct {
	c       *cluster
	name    string
	net     network
	ends    []*end         // of a client
	running sync.WaitGroup // what it has started
}

func (n *node) listen() error {
	addr, accept, err := n.net.listen()
	if err != nil {
		return err
	}
	n.c.addrs = append(n.c.addrs, addr)
	n.running.Go(func() {
		for {
			l, err := accept(context.Background())
			if err != nil {
				return // stopped
			}
			e := n.c.newEnd(l, n.name, true)
			n.running.Go(e.run)
		}
	})
	return nil
}

// dial connects a client to all servers, and returns when it has heard of all.
func (n *node) dial() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	n.ends = nil
	for i, addr := range n.c.addrs {
		l, err := n.net.dial(ctx, addr)
		if err != nil {
			return err
		}
		e := n.c.newEnd(l, fmt.Sprintf("%s with server %d", n.name, i+1), false)
		n.ends = append(n.ends, e)
		n.running.Go(e.run)
	}
	if !await(stopTime, func() bool { return !slices.ContainsFunc(n.ends, func(e *end) bool { return e.heard.Load() == 0 }) }) {
		return fmt.Errorf("%s: a server does not gossip", n.name)
	}
	return nil
}

// leave ends what a client does of its own: its requests, then its gossip.
func (n *node) leave() {
	for _, e := range n.ends {
		e.stopLoad()
	}
	for _, e := range n.ends {
		e.loading.Wait()
		e.hush()
		e.talking.Wait()
	}
}

// stop stops a node and waits until nothing is left of it.
func (n *node) stop() error {
	n.leave()
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	err := n.net.shutdown(ctx)
	n.running.Wait()
	return err
}
