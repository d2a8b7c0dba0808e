// Package leaktest has a test fail when the program under test leaks streams.
//
//	func TestFetch(t *testing.T) {
//		guard := leaktest.New(t)
//		client, err := guard.DialAddr(t.Context(), addr, tlsConf, nil)
//		...
//	}
//
// At the end of the test it waits until the connections of the Guard hold no
// stream any more, for 5 seconds at most. Streams that are left fail the test,
// and so do leaks that were reported meanwhile. The failure has one paragraph
// for all streams that were opened by the same calls: how many, where, which
// halves are open, how old the oldest is, and what the program should have done.
//
// These are found:
//
//   - streams that are open, whether the program holds or has dropped them;
//     also unidirectional ones, which quiclife itself keeps, as they may be
//     control streams (see [Allow])
//   - streams that quiclife has ended for the program, see [quiclife.Leak]
//   - streams that were open when their connection was closed, which hides them,
//     with the exceptions below
//   - with Config.RequireStreamCreditRelease, streams that have ended and whose
//     credit was not returned
//   - streams that the peer has opened on a connection where nobody ever accepts
//     any of their kind, unless it was closed before the end of the test
//   - connections that are open (see [AllowConns])
//
// A stream whose connection was closed is no leak if the program ends it after
// all, as a handler does that is still running. Nor is it one if a Read or a
// Write on it has told the program that the connection has ended, or if nothing
// but the peer's FIN was missing, which may have been under way.
//
// Tests may use t.Parallel, since each has a Guard of its own. Inside a
// testing/synctest bubble all waiting is in fake time. Streams own no
// goroutines, so [goleak] does not see them, and leaktest does not see
// goroutines: use both.
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

// An Option says what is not a leak.
type Option func(*check)

// Within sets how long the streams may take to end after the test, if not 5
// seconds.
func Within(d time.Duration) Option { return func(c *check) { c.within = d } }

// Allow has streams for which f returns true count as no leak. It may be given
// several times. Control streams, which live as long as their connection, are
// what it is for:
//
//	leaktest.Allow(func(s quiclife.StreamInfo) bool { return s.Unidirectional })
//
// The StreamInfo of a stream that nobody has accepted has a zero Opened.
func Allow(f func(quiclife.StreamInfo) bool) Option {
	return func(c *check) { c.allow = append(c.allow, f) }
}

// AllowConns has connections that are open at the end of the test count as no
// leak. Their streams still do.
func AllowConns() Option { return func(c *check) { c.allowConns = true } }

// New returns a Guard for the connections of a test, which fails at its end if
// streams were leaked. The Guard logs to t.Log, and remembers where streams were
// opened; further fields may be set before its first use. Connections that a
// cleanup of the test's closes are closed before the check.
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

// Check is New for a Guard that there is, such as [quiclife.DefaultGuard]. It
// is to be called before the streams are opened: those that are open already,
// and connections, are not looked at. If tests share a Guard and run side by
// side, each of them sees the leaks of all. Without Guard.CaptureStacks a
// failure does not say where streams were opened.
func Check(t testing.TB, g *quiclife.Guard, opts ...Option) {
	t.Helper()
	t.Cleanup(newCheck(t, g, opts).run)
}

// A check looks for leaks at the end of a test.
type check struct {
	t          testing.TB
	guard      *quiclife.Guard
	log        *testLog // nil if it is not ours
	within     time.Duration
	allow      []func(quiclife.StreamInfo) bool
	allowConns bool

	before      map[streamKey]bool // streams that there were when it was made
	connsBefore map[*quiclife.Conn]bool
	opened      int64     // streams, by then
	until       time.Time // streams that are opened after this are not the test's, zero: there are none
}

// A streamKey is a stream that lives or lived.
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
		defer c.log.end() // a record after the test's end would panic
	}
	if c.t.Failed() || c.t.Skipped() { // whatever failed may have left streams behind
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
	// After this time, the garbage collector may tell which streams are dropped:
	// that decides earlier, and belongs into the report.
	firstCollection = 16 * time.Millisecond
	mostCollection  = time.Second // between two of them
	// A stream that is accepted no later than this was on its way when the test
	// ended. What goes on in the background opens others.
	onTheirWay = 100 * time.Millisecond
)

// settle waits until nothing is left, or nothing can change any more, or the
// time is up.
func (c *check) settle() found {
	if inBubble() {
		time.Sleep(time.Second) // what is under way arrives
	}
	start := time.Now()
	c.until = start.Add(onTheirWay)
	wait, collectAt := firstWait, firstCollection
	clean := false
	for {
		now := c.look()
		since := time.Since(start)
		switch {
		case now.empty() && clean: // a stream may just have been on its way to its other end
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

// inBubble says whether the time is that of a synctest bubble, which has no
// monotonic clock reading.
func inBubble() bool {
	now := time.Now()
	return now == now.Round(0)
}

// look returns what has leaked, unless that changes.
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
	// In this order: a stream that ends between the two is not missed.
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

// unaccepted returns the streams that the peers have opened and nobody accepts.
// Where somebody has, those that are left may have come when the test's context
// was done already.
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
