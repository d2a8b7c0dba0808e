package leaktest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/advice"
	"github.com/quiclife/quiclife/internal/peek"
)

// A leak is a stream that has leaked, or that will leak if the program does
// nothing more with it.
type leak struct {
	conn  *quiclife.Conn
	info  quiclife.StreamInfo
	why   why
	final bool // the program can no longer prevent it
}

type why uint8

const (
	held       why = iota // open, and the program refers to it
	dropped               // dropped by the program
	unread                // timed out
	idle                  // timed out
	uncredited            // ended, but its stream credit was not returned
	cutOff                // open when its connection ended
	unaccepted            // nobody has accepted it
)

var whyOf = map[peek.Why]why{
	peek.Dropped: dropped, peek.Unread: unread, peek.Idle: idle, peek.Uncredited: uncredited, peek.CutOff: cutOff,
}

// found is what has leaked.
type found struct {
	leaks []leak
	conns []*quiclife.Conn
}

func (f found) empty() bool { return len(f.leaks)+len(f.conns) == 0 }

// final reports whether nothing can change what was found.
func (f found) final() bool {
	return len(f.conns) == 0 && !slices.ContainsFunc(f.leaks, func(l leak) bool { return !l.final })
}

const (
	mostGroups = 10 // in a report
	mostFrames = 4  // of a stack
)

// A kind of leak. Streams of one kind are reported together.
type kind struct {
	why                      why
	opener                   string
	incoming, unidirectional bool
	send, receive            quiclife.HalfState
}

type group struct {
	kind
	count  int
	oldest quiclife.StreamInfo
}

// report returns the failure message. opened is how many streams the test has
// opened.
func (f found) report(opened int64) string {
	var b strings.Builder
	if n := len(f.leaks); n > 0 {
		fmt.Fprintf(&b, "%s leaked", plural(n, "stream"))
		if opened > int64(n) {
			fmt.Fprintf(&b, ", of %d that were opened", opened)
		}
		b.WriteString(".\n")
	}
	groups := f.groups()
	for i, g := range groups {
		if i == mostGroups {
			fmt.Fprintf(&b, "\nAnd %d more groups of streams.\n", len(groups)-i)
			break
		}
		g.write(&b)
	}
	if n := len(f.conns); n > 0 {
		fmt.Fprintf(&b, "\n%s still open:\n", plural(n, "connection"))
		for i, c := range f.conns {
			if i == mostGroups {
				b.WriteString("    and others\n")
				break
			}
			fmt.Fprintf(&b, "    from %v to %v\n", c.LocalAddr(), c.RemoteAddr())
		}
		b.WriteString("  To do: CloseWithError or Shutdown. If they should outlive the test, use leaktest.AllowConns.\n")
	}
	return strings.TrimSpace(b.String())
}

func plural[N int | int64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// groups returns the leaks grouped by kind, the largest group first.
func (f found) groups() (groups []*group) {
	byKind := make(map[kind]*group)
	for _, l := range f.leaks {
		s := l.info
		k := kind{l.why, s.Stack, s.Incoming, s.Unidirectional, s.Send, s.Receive}
		g := byKind[k]
		if g == nil {
			g = &group{kind: k, oldest: s}
			byKind[k] = g
			groups = append(groups, g)
		}
		g.count++
		if s.Opened.Before(g.oldest.Opened) {
			g.oldest = s
		}
	}
	slices.SortStableFunc(groups, func(a, b *group) int {
		return cmp.Or(b.count-a.count, a.oldest.Opened.Compare(b.oldest.Opened), cmp.Compare(a.oldest.ID, b.oldest.ID))
	})
	return groups
}

func (g *group) write(b *strings.Builder) {
	what := "stream"
	if g.unidirectional {
		what = "unidirectional stream"
	}
	fmt.Fprintf(b, "\n%s %s", plural(g.count, what), g.origin())
	for _, frame := range frames(g.opener) {
		fmt.Fprintf(b, "\n    %s", frame)
	}
	fmt.Fprintf(b, "\n  %s: %s.\n", g.fate(), advice.Halves(g.oldest))
	s := g.oldest
	if g.why == unaccepted {
		fmt.Fprintf(b, "  The first is stream %d.\n", s.ID)
	} else {
		fmt.Fprintf(b, "  The oldest is stream %d, %v old, with %s written and %d read.\n",
			s.ID, s.Age.Round(time.Millisecond), plural(s.BytesWritten, "byte"), s.BytesRead)
	}
	fmt.Fprintf(b, "  To do: %s\n", g.advice())
}

// origin says who has opened the streams. The calls follow it.
func (g *group) origin() string {
	verb := "opened"
	switch {
	case g.why == unaccepted:
		return "that the peer opened and nobody has accepted"
	case g.incoming:
		verb = "accepted"
	}
	if g.opener == "" {
		return verb + " somewhere (set Guard.CaptureStacks to see where)"
	}
	return verb + " at"
}

// frames returns the innermost calls of a stack that belong to the program.
func frames(stack string) (calls []string) {
	for call := range strings.Lines(stack) {
		call = strings.TrimSpace(call)
		switch {
		case len(calls) == mostFrames:
			return calls
		case strings.HasPrefix(call, "testing."), strings.HasPrefix(call, "runtime."),
			strings.HasPrefix(call, "internal/synctest."), strings.HasPrefix(call, "github.com/quiclife/quiclife."):
		default:
			calls = append(calls, call)
		}
	}
	return calls
}

// fate says what has happened to the streams.
func (g *group) fate() string {
	switch g.why {
	case held:
		return "Still held by the program"
	case dropped:
		return "Dropped by the program"
	case unread:
		return "Cancelled after Guard.HalfCloseTimeout"
	case idle:
		return "Reset after Guard.IdleTimeout"
	case uncredited:
		return "Ended, but the credit was not returned"
	case cutOff:
		return "Open when the connection ended, and not ended since"
	}
	return "Waiting in the connection"
}

// advice says what the program should have done.
func (g *group) advice() string {
	switch {
	case g.why == unaccepted && g.unidirectional:
		return "call AcceptUniStream in a loop, or Serve. Or set Config.MaxIncomingUniStreams to -1."
	case g.why == unaccepted:
		return "call AcceptStream in a loop, or Serve. Or set Config.MaxIncomingStreams to -1."
	case g.why == uncredited:
		return "Release, because Config.RequireStreamCreditRelease is set."
	}
	todo := advice.ToDo(g.oldest)
	s := g.oldest
	switch {
	case s.Unidirectional:
		todo += " If it is a control stream, use leaktest.Allow."
	case g.why == held && s.Send == s.Receive && s.BytesRead+s.BytesWritten > 0: // both are open
		todo += " Is a goroutine blocked?"
	}
	return todo
}
