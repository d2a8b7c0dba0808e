package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

// What an end of the connection is built on.
const (
	onQuicGo   = "quic-go"
	onQuiclife = "quiclife"       // only the import line was changed
	withServe  = "quiclife Serve" // the server also uses Serve instead of an accept loop
)

// A combination is a client and a server to try together.
type combination struct {
	client, server string
	connect        func(*quiclife.Guard) (*pair, error)
	requests       int64
	within         time.Duration
}

func connectPlain(*quiclife.Guard) (*pair, error) {
	return connect(quic.DialAddr, quic.ListenAddr, serve)
}

func connectClient(g *quiclife.Guard) (*pair, error) {
	return connect(g.DialAddr, quic.ListenAddr, serve)
}

func connectServer(g *quiclife.Guard) (*pair, error) {
	return connect(quic.DialAddr, g.ListenAddr, serveHandler)
}

func connectImport(g *quiclife.Guard) (*pair, error) {
	return connect(g.DialAddr, g.ListenAddr, serve)
}

func connectServe(g *quiclife.Guard) (*pair, error) {
	return connect(g.DialAddr, g.ListenAddr, serveHandler)
}

// others are the combinations that are tried after the main run. Those that
// reach the limit need time: a collection has to find the dropped streams, and
// quiclife then waits for Guard.AbandonGrace before it ends them.
var others = []combination{
	{onQuicGo, onQuicGo, connectPlain, 2000, time.Second},
	{onQuiclife, onQuicGo, connectClient, 2000, 2500 * time.Millisecond},
	{onQuicGo, withServe, connectServer, 2000, 2500 * time.Millisecond},
	{onQuiclife, onQuiclife, connectImport, 2 * limit, 5 * time.Second},
}

// start connects the two ends.
func (c combination) start() (*pair, error) {
	leaks := new(atomic.Int64)
	guard := &quiclife.Guard{
		CaptureStacks: true,
		Logger:        slog.New(slog.DiscardHandler), // otherwise each leak is logged
		OnLeak:        func(quiclife.Leak) { leaks.Add(1) },
	}
	if c.client != onQuicGo || c.server != onQuicGo {
		lab.Watched(c.String(), guard)
	}
	p, err := c.connect(guard)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", c, err)
	}
	p.leaks, p.reached, p.over = leaks, func() {}, func() {}
	return p, nil
}

func (c combination) String() string { return c.client + " client, " + c.server + " server" }

// run makes the requests, waits for the ends on quiclife to come to rest, and
// returns the result.
func (c combination) run(ctx context.Context, p *pair) result {
	ctx, cancel := context.WithTimeout(ctx, c.within)
	defer cancel()
	start := time.Now()
	p.load(ctx, c.requests)
	p.over()
	await(func() (left int64) {
		if c.client != onQuicGo {
			left += p.client.Held() + p.client.Open()
		}
		if c.server != onQuicGo {
			left += p.server.Held() + p.server.Open()
		}
		return left
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	return result{
		combination:  c,
		made:         p.made.Load(),
		unanswered:   p.unanswered.Load(),
		leaks:        p.leaks.Load(),
		took:         time.Unix(0, p.last.Load()).Sub(start).Round(time.Millisecond),
		full:         p.full,
		stopped:      p.stopped,
		heldByClient: p.client.Held(),
		heldByServer: p.server.Held(),
		open:         p.client.Open() + p.server.Open(),
	}
}

// A result is the outcome of a combination.
type result struct {
	combination
	made, unanswered, leaks    int64
	took                       time.Duration // until the last answer
	full                       error         // the first error of OpenStream at the limit
	stopped                    error         // what stopped the client
	heldByClient, heldByServer int64
	open                       int64 // streams that quiclife counts as open
}

// stoppedBy says in a word or two what stopped the client.
func (r result) stoppedBy() string {
	switch {
	case r.made == r.requests:
		return "nothing"
	case r.stopped != nil && !errors.Is(r.stopped, context.DeadlineExceeded):
		return "an error"
	case r.stopped != nil && r.made <= limit:
		return "the limit"
	}
	return "the time"
}

// said returns the errors of OpenStream and OpenStreamSync at the limit.
func (r result) said() string {
	return fmt.Sprintf("  OpenStream: %v\n  OpenStreamSync, after %v: %v", r.full, r.within-r.took, r.stopped)
}

// rest says what is left at rest, and what is wrong.
func (r result) rest() string {
	s := fmt.Sprintf("%d held by the client, %d by the server, %d counted open; %d leaks reported", r.heldByClient, r.heldByServer, r.open, r.leaks)
	if wrong := r.problems(); len(wrong) > 0 {
		return s + "\n" + wrong.String()
	}
	return s
}

// problems returns what is wrong. What quic-go does is shown, not checked.
func (r result) problems() (wrong problems) {
	check := func(ok bool, format string, args ...any) {
		wrong.check(ok, "%v: %w", r.combination, fmt.Errorf(format, args...))
	}
	check(r.unanswered == 0, "the server failed %d times", r.unanswered)
	check(r.open == 0, "%d streams are counted open", r.open)
	if r.client != onQuicGo {
		check(r.heldByClient == 0, "the client holds %d streams", r.heldByClient)
	}
	if r.server != onQuicGo {
		check(r.heldByServer == 0, "the server holds %d streams", r.heldByServer)
		check(r.made > limit || r.made == r.requests, "stuck after %d requests", r.made)
		// It is no problem if the client was waiting for a slot when the time was
		// up. With only the import line changed, it waits for collections.
		waiting := r.server == onQuiclife || r.within-r.took < time.Second
		check(r.stopped == nil || waiting && errors.Is(r.stopped, context.DeadlineExceeded), "stopped after %d requests: %w", r.made, r.stopped)
	}
	if r.server == withServe {
		check(r.leaks == 0, "%d streams leaked", r.leaks)
	}
	if r.client != onQuicGo && r.server == onQuicGo {
		r.checkLimitErrors(check)
	}
	return wrong
}

// checkLimitErrors checks the errors that a client on quiclife gets at the limit
// when the server is on quic-go.
func (r result) checkLimitErrors(check func(bool, string, ...any)) {
	full, ok := errors.AsType[*quiclife.LimitError](r.full)
	check(ok && full.Scope == quiclife.LimitPeer && full.Open > limit/2 && strings.Contains(full.Oldest.Stack, ".request["),
		"OpenStream does not say who holds the slots: %v", r.full)
	stopped, ok := errors.AsType[*quiclife.LimitError](r.stopped)
	check(ok && stopped.Scope == quiclife.LimitPeer && stopped.Opened == limit && errors.Is(stopped, context.DeadlineExceeded),
		"OpenStreamSync does not say what it waited for: %v", r.stopped)
}

// problems are things found to be wrong.
type problems []error

func (p *problems) check(ok bool, format string, args ...any) {
	if !ok {
		*p = append(*p, fmt.Errorf(format, args...))
	}
}

func (p problems) String() string {
	if len(p) == 0 {
		return "all do"
	}
	return errors.Join(p...).Error()
}

// show prints a table of the results.
func show(r *lab.Run, results []result) {
	r.Printf("%-9s %-15s %16s %7s  %-11s %11s %11s %6s",
		"client", "server", "requests", "in", "stopped by", "client held", "server held", "leaks")
	for _, res := range results {
		r.Printf("%-9s %-15s %16s %7v  %-11s %11d %11d %6d", res.client, res.server, fmt.Sprintf("%d of %d", res.made, res.requests),
			res.took, res.stoppedBy(), res.heldByClient, res.heldByServer, res.leaks)
	}
	for _, res := range results {
		if res.stoppedBy() == "the limit" {
			r.Printf("What the client was told, %v:\n%s", res.combination, res.said())
		}
	}
}
