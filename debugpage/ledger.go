package debugpage

import (
	"cmp"
	"fmt"
	"io"
	"iter"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/quiclife/quiclife/internal/peek"
)

// books is the part of the page about a Ledger.
type books struct {
	Conns   table[ledgerConn] `json:"connections"`
	Streams table[held]       `json:"streams"`
}

type ledgerConn struct{ peek.LedgerConn }

// A held is a stream that holds a slot, or may hold one.
type held struct {
	peek.LedgerStream
	Remote string `json:"remote"`
	Age    age    `json:"age_seconds"`
}

func takeLedger(conns iter.Seq[peek.LedgerConn], q query) *books {
	b := new(books)
	for c := range conns {
		inConn := q.matches(c.Local, c.Remote, c.Reason)
		found := inConn
		for s := range c.Streams {
			if !inConn && !q.matches(kindName(s.Incoming, s.Unidirectional), s.Label, s.Blame, s.Proof) {
				continue
			}
			found = true
			if c.Ended && q.filter == "" {
				break // an ended connection has no slots; a filter lists its streams
			}
			h := held{LedgerStream: s, Remote: c.Remote}
			if !s.Opened.IsZero() {
				h.Age = age(time.Since(s.Opened))
			}
			b.Streams.addInOrder(h, oldestFirst)
		}
		if found {
			b.Conns.add(ledgerConn{c})
		}
	}
	b.Conns.cut(func(x, y ledgerConn) int {
		switch {
		case !x.Ended && y.Ended:
			return -1
		case x.Ended && !y.Ended:
			return 1
		}
		return cmp.Or(cmp.Compare(y.Held, x.Held), cmp.Compare(x.Remote, y.Remote), cmp.Compare(x.Local, y.Local))
	})
	b.Streams.cut(oldestFirst)
	return b
}

func oldestFirst(x, y held) int { return cmp.Compare(y.Age, x.Age) }

// State says which end has the ledger, and why the connection ended if it has.
func (c ledgerConn) State() string {
	end := "server"
	if c.Client {
		end = "client"
	}
	if c.Ended {
		return end + ", ended: " + plain(c.Reason)
	}
	return end
}

func (h held) Kind() string { return kindName(h.Incoming, h.Unidirectional) }

// What returns the label without control characters.
func (h held) What() string { return plain(h.Label) }

// Name returns the stream ID, or the range of IDs of several streams.
func (h held) Name() string {
	if h.Count == 1 {
		return fmt.Sprint(h.ID)
	}
	return fmt.Sprintf("%d..%d (%d)", h.ID, h.Last, h.Count)
}

// countText says how many streams of a kind are held, and what the limit is.
func countText(c peek.LedgerCount) string {
	if c.Opened == 0 && c.Held == 0 {
		return ""
	}
	text := fmt.Sprint(c.Held)
	if !c.Exact {
		text += "?"
	}
	if c.Limit >= 0 {
		text += fmt.Sprintf(" of %d", c.Limit)
	}
	if c.HeldComplete > 0 {
		text += fmt.Sprintf(", %d complete", c.HeldComplete)
	}
	if c.Blocked {
		text += ", blocked"
	}
	return text
}

func (b *books) writeText(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nLEDGER: %s\n", rowsOf(b.Conns.Of))
	if len(b.Conns.Rows) > 0 {
		fmt.Fprintln(w, "remote\tlocal\tend\theld\toutgoing\toutgoing, unidirectional\tincoming\tincoming, unidirectional\topened")
	}
	for _, c := range b.Conns.Rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d", c.Remote, c.Local, c.State(), c.Held)
		opened := int64(0)
		for _, k := range c.Kinds {
			fmt.Fprintf(w, "\t%s", countText(k))
			opened += k.Opened
		}
		fmt.Fprintf(w, "\t%d\n", opened)
	}
	fmt.Fprintf(w, "\nHELD STREAMS: %s\n", rowsOf(b.Streams.Of))
	if len(b.Streams.Rows) > 0 {
		fmt.Fprintln(w, "age\tstream\tremote\tkind\twhose\twhat\tproof")
	}
	for _, s := range b.Streams.Rows {
		fmt.Fprintf(w, "%v\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Age, s.Name(), s.Remote, s.Kind(), s.Blame, s.What(), s.Proof)
	}
	w.Flush()
}

// plain returns a text from the peer without characters that control a
// terminal or change the direction of the text.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
