// Package leaktest makes a test fail if the program under test leaks streams.
//
//	func TestFetch(t *testing.T) {
//		guard := leaktest.New(t)
//		client, err := guard.DialAddr(t.Context(), addr, tlsConf, nil)
//		...
//	}
//
// At the end of the test it waits for at most 5 seconds until no stream is open
// on the connections of the Guard. Streams that are still open fail the test,
// and so do leaks that were reported during the test. The failure message has
// one paragraph for all streams that were opened by the same calls. It says how
// many there are, where they were opened, which halves are open, how old the
// oldest is, and what the program should have done.
//
// leaktest finds:
//
//   - open streams, whether the program still refers to them or has dropped
//     them; this includes dropped unidirectional streams, which quiclife leaves
//     alone because they may be control streams (see [Allow])
//   - streams that quiclife has ended for the program, see [quiclife.Leak]
//   - streams that were open when their connection was closed, except those
//     named below
//   - with Config.RequireStreamCreditRelease, streams that have ended but whose
//     credit was not returned
//   - streams that the peer has opened on a connection where nobody ever
//     accepts streams of their kind, unless the connection was closed before
//     the end of the test
//   - open connections (see [AllowConns])
//
// A stream that was open when its connection was closed is no leak in three
// cases: the program ends it later, as a running handler may do; a Read or a
// Write on it has told the program that the connection has ended; or only the
// peer's FIN was missing, which may have been on its way.
//
// Tests may use t.Parallel, since each has its own Guard. Inside a
// testing/synctest bubble all waiting is in fake time. Streams have no
// goroutines of their own, so [goleak] does not see them. leaktest does not see
// goroutines. So use both.
//
// [goleak]: https://pkg.go.dev/go.uber.org/goleak
package leaktest

import (
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/peek"
)

// An Option changes what counts as a leak.
type Option func(*check)

// Within sets how long streams may take to end after the test. The default is 5
// seconds.
func Within(d time.Duration) Option { return func(c *check) { c.within = d } }

// Allow allows the streams for which f returns true: they do not count as
// leaks. It may be given several times. It is meant for control streams, which
// live as long as their connection:
//
//	leaktest.Allow(func(s quiclife.StreamInfo) bool { return s.Unidirectional })
//
// If nobody has accepted a stream, Opened is zero in its StreamInfo.
func Allow(f func(quiclife.StreamInfo) bool) Option {
	return func(c *check) { c.allow = append(c.allow, f) }
}

// AllowConns allows connections to be open at the end of the test. Their open
// streams still count as leaks.
func AllowConns() Option { return func(c *check) { c.allowConns = true } }

// New returns a Guard for the connections of a test. The test fails at its end
// if streams were leaked. The Guard logs to t.Log, and records where streams
// were opened. Other fields may be set before its first use. The check runs as
// a cleanup of the test. Cleanups that are registered after New run before it,
// so connections that they close are closed then.
func New(t testing.TB, opts ...Option) *quiclife.Guard {
	t.Helper()
	g, c := newGuard(t, opts)
	t.Cleanup(c.run)
	return g
}

func newGuard(t testing.TB, opts []Option) (*quiclife.Guard, *check) {
	log := &testLog{t: t}
	g := &quiclife.Guard{CaptureStacks: true, Logger: slog.New(log.handler())}
	c := newCheck(t, g, opts)
	c.log = log
	return g, c
}

// Check is New for an existing Guard, such as [quiclife.DefaultGuard]. Call it
// before the test opens streams: it ignores streams and connections that are
// already open. If tests that share a Guard run in parallel, each of them sees
// the leaks of all. Without Guard.CaptureStacks the failure message does not
// say where streams were opened.
func Check(t testing.TB, g *quiclife.Guard, opts ...Option) {
	t.Helper()
	t.Cleanup(newCheck(t, g, opts).run)
}

// A check looks for leaks at the end of a test.
type check struct {
	t          testing.TB
	guard      *quiclife.Guard
	log        *testLog // nil if the Guard was given to Check
	within     time.Duration
	allow      []func(quiclife.StreamInfo) bool
	allowConns bool

	before      map[streamKey]bool // streams that were there when the check was made
	connsBefore map[*quiclife.Conn]bool
	opened      int64     // how many streams had been opened then
	until       time.Time // streams opened after this do not belong to the test; zero means no limit
}

// A streamKey identifies a stream, even after its end.
type streamKey struct {
	conn *quiclife.Conn
	id   quiclife.StreamID
}

func newCheck(t testing.TB, g *quiclife.Guard, opts []Option) *check {
	c := &check{t: t, guard: g, within: 5 * time.Second}
	for _, o := range opts {
		o(c)
	}
	now := c.look()
	c.opened = openedBy(g)
	c.before, c.connsBefore = make(map[streamKey]bool), make(map[*quiclife.Conn]bool)
	for _, l := range now.leaks {
		c.before[streamKey{l.conn, l.info.ID}] = true
	}
	for _, conn := range now.conns {
		c.connsBefore[conn] = true
	}
	return c
}

func openedBy(g *quiclife.Guard) int64 {
	s := g.Stats()
	return s.Incoming.Opened + s.IncomingUni.Opened + s.Outgoing.Opened + s.OutgoingUni.Opened
}

// run is called at the end of the test.
func (c *check) run() {
	c.t.Helper()
	if c.log != nil {
		defer c.log.end() // logging after the end of the test would panic
	}
	if c.t.Failed() || c.t.Skipped() { // after a failure, open streams are to be expected
		return
	}
	found := c.settle()
	found.leaks = append(found.leaks, c.unaccepted()...)
	if len(found.leaks)+len(found.conns) > 0 {
		c.t.Error(found.report(openedBy(c.guard) - c.opened))
	}
}

// When to look for leaks after the test.
const (
	firstWait = time.Millisecond
	mostWait  = 100 * time.Millisecond
	// After this time, a garbage collection shows which streams were dropped.
	// That may end the wait early, and it belongs in the report.
	firstCollection = 16 * time.Millisecond
	mostCollection  = time.Second // between two collections
	// Streams accepted within this time were on their way when the test ended.
	// Later ones come from something that goes on in the background.
	onTheirWay = 100 * time.Millisecond
)

// settle waits until there is no leak, or the leaks are final, or the time is
// up.
func (c *check) settle() found {
	if inBubble() {
		time.Sleep(time.Second) // let packets in flight arrive
	}
	start := time.Now()
	c.until = start.Add(onTheirWay)
	wait, collectAt := firstWait, firstCollection
	clean := false
	for {
		now := c.look()
		since := time.Since(start)
		switch {
		case now.empty() && clean: // the second time in a row: before, a stream may have been on its way to its other end
			return now
		case now.final() && !now.empty() || since >= c.within && !now.empty():
			return now
		}
		clean = now.empty()
		if clean {
			time.Sleep(firstWait)
			continue
		}
		if since >= collectAt {
			runtime.GC()
			collectAt = since + min(since, mostCollection)
		}
		time.Sleep(min(wait, c.within-since))
		wait = min(2*wait, mostWait)
	}
}

// inBubble reports whether it is called in a synctest bubble. There, times have
// no monotonic clock reading.
func inBubble() bool {
	now := time.Now()
	return now == now.Round(0)
}

// look returns what counts as leaked at this moment.
func (c *check) look() found {
	var f found
	seen := make(map[streamKey]bool)
	add := func(l leak) {
		key := streamKey{l.conn, l.info.ID}
		if !seen[key] && !c.before[key] && !c.allowed(l.info) {
			f.leaks = append(f.leaks, l)
		}
		seen[key] = true
	}
	// Open streams are taken first, so that a stream that ends in between is
	// not missed.
	var open []leak
	for conn := range c.guard.Conns() {
		if !c.connsBefore[conn] && !c.allowConns {
			f.conns = append(f.conns, conn)
		}
		for s := range conn.Streams() {
			if !c.until.IsZero() && s.Opened.After(c.until) {
				continue
			}
			l := leak{conn: conn, info: s, why: held}
			if s.Dropped {
				l.why = dropped
				l.final = s.Send == quiclife.HalfOpen // the peer's FIN may still end the other half
			}
			open = append(open, l)
		}
	}
	for _, l := range peek.Leaks(c.guard) {
		add(leak{conn: l.Conn.(*quiclife.Conn), info: l.Stream.(quiclife.StreamInfo), why: whyOf[l.Why], final: l.Final})
	}
	for _, l := range open {
		add(l)
	}
	return f
}

func (c *check) allowed(s quiclife.StreamInfo) bool {
	for _, f := range c.allow {
		if f(s) {
			return true
		}
	}
	return false
}

// unaccepted returns the streams that the peers have opened and that nobody
// accepts. It leaves out kinds of streams that somebody has accepted: the rest
// may have come after the test's context was done.
func (c *check) unaccepted() (leaks []leak) {
	for conn := range c.guard.Conns() {
		if c.connsBefore[conn] {
			continue
		}
		for _, s := range peek.TakeUnaccepted(conn) {
			if info := s.(quiclife.StreamInfo); !c.allowed(info) {
				leaks = append(leaks, leak{conn: conn, info: info, why: unaccepted})
			}
		}
	}
	return leaks
}
