package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/quiclife/quiclife/ledger"
)

// A summary is what quicwho prints. It keeps the counts of each connection, and
// only those streams that it will show.
type summary struct {
	rows    int // rows of a table, 0 for all
	books   []*book
	streams []held
	all     int64 // number of streams, shown or not
}

// A held is a row of the table of streams.
type held struct {
	ledger.Stream
	book *book
}

func (s *summary) add(b *book) {
	for str := range b.streams {
		s.all += str.Count
		s.streams = append(s.streams, held{str, b})
		if s.rows > 0 && len(s.streams) >= 2*s.rows+1000 {
			s.cut()
		}
	}
	s.cut()
	b.streams = nil // it refers to all that the ledger knows of the connection
	s.books = append(s.books, b)
}

// cut sorts the streams, and keeps those that are shown. First come those that are
// held for sure, the oldest first. Then come the others, the most suspicious
// first.
func (s *summary) cut() {
	slices.SortStableFunc(s.streams, func(a, b held) int {
		aHeld, bHeld := isHeld(&a.Stream), isHeld(&b.Stream)
		switch {
		case aHeld != bHeld && aHeld:
			return -1
		case aHeld != bHeld:
			return 1
		case aHeld:
			return a.Opened.Compare(b.Opened)
		}
		return cmp.Compare(b.KnownHeld.Sub(b.Complete), a.KnownHeld.Sub(a.Complete))
	})
	if s.rows > 0 && len(s.streams) > s.rows {
		clear(s.streams[s.rows:])
		s.streams = s.streams[:s.rows]
	}
}

const timeFormat = "2006-01-02 15:04:05"

func (s *summary) write(w io.Writer) {
	var by [shares]int64
	heldInAll := int64(0)
	for _, b := range s.books {
		heldInAll += b.report.Held()
		for _, t := range b.kinds {
			for i, n := range t.by {
				by[i] += n
			}
		}
	}
	fmt.Fprintf(w, "%s, %s held", plural(int64(len(s.books)), "connection"), plural(heldInAll, "stream"))
	if text := whose(by); text != "" {
		fmt.Fprintf(w, ": %s", text)
	}
	fmt.Fprintln(w)
	if n := s.twice(); n > 0 {
		fmt.Fprintf(w, "%s from both ends, so its streams count twice: \"our\" is the end that a row names\n", plural(n, "connection"))
	}
	slices.SortStableFunc(s.books, func(a, b *book) int { return cmp.Compare(b.report.Held(), a.report.Held()) })
	s.writeConns(w)
	s.writeStreams(w)
	if by[shareComplete] > 0 {
		fmt.Fprintln(w, "\ncomplete: both ends are done with these streams on the wire, and they hold slots until the application that accepts them\n"+
			"has read them to their end: ours for incoming streams, the peer's for outgoing ones. How many is known, but not which.")
	}
}

// twice returns how many connections were read from both ends.
func (s *summary) twice() (n int64) {
	ends := make(map[string]bool)
	for _, b := range s.books {
		id, other := b.report.ID+" "+b.end(), b.report.ID+" client"
		if b.report.Client {
			other = b.report.ID + " server"
		}
		if b.report.ID != "" && !ends[id] && ends[other] {
			n++
		}
		ends[id] = true
	}
	return n
}

// writeConns writes the table of connections. Each connection takes a row for
// each kind, and is written with all its rows or not at all.
func (s *summary) writeConns(w io.Writer) {
	var lines, notes []string
	shown := 0
	for _, b := range s.books {
		of := b.lines()
		if s.rows > 0 && shown > 0 && len(lines)+len(of) > s.rows {
			break
		}
		lines, notes = append(lines, of...), append(notes, b.notes()...)
		shown++
	}
	fmt.Fprintln(w)
	for _, line := range aligned("CONNECTION\tEND\tPEER\tKIND\tOPENED\tHELD\tLIMIT\tWHOSE\tOLDEST", lines) {
		fmt.Fprintln(w, line)
	}
	if rest := s.books[shown:]; len(rest) > 0 {
		sum := int64(0)
		for _, b := range rest {
			sum += b.report.Held()
		}
		fmt.Fprintf(w, "and %s more, with %s held (-rows 0 shows all)\n", plural(int64(len(rest)), "connection"), plural(sum, "stream"))
	}
	fmt.Fprintln(w)
	for _, note := range notes {
		fmt.Fprintln(w, note)
	}
}

func (b *book) name() string { return harmless(cmp.Or(b.report.ID, "?"), 12) }

func (b *book) lines() (lines []string) {
	head := fmt.Sprintf("%s\t%s\t%s", b.name(), b.end(), harmless(b.report.Remote, 50))
	for i, t := range b.kinds {
		if t.Opened == 0 && t.by == ([shares]int64{}) {
			continue
		}
		n := grouped(t.Held)
		if !t.Exact {
			n += "?"
		}
		limit := "?"
		if t.Limit >= 0 {
			limit = grouped(t.Limit)
		}
		if t.Blocked {
			limit += ", blocked"
		}
		oldest := ""
		if !t.oldest.IsZero() {
			oldest = fmt.Sprintf("%s, %s", duration(b.now.Sub(t.oldest)), t.oldest.Format(timeFormat))
		}
		lines = append(lines, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s", head, kindNames[i], grouped(t.Opened), n, limit, whose(t.by), oldest))
		head = "\t\t"
	}
	if lines == nil {
		lines = []string{head + "\tno streams\t\t\t\t\t"}
	}
	return lines
}

// notes returns lines with what else is known of b, and with what is missing.
func (b *book) notes() (notes []string) {
	r := &b.report
	text := b.name() + " " + b.end() + ": "
	switch {
	case r.Began.IsZero():
		text += "no events"
	case r.Ended.IsZero():
		text += fmt.Sprintf("from %s, open at the end of the file", r.Began.Format(timeFormat))
	default:
		text += fmt.Sprintf("%s from %s, %s", duration(r.Ended.Sub(r.Began)), r.Began.Format(timeFormat), harmless(cmp.Or(r.Reason, "closed"), 200))
	}
	notes = append(notes, text)
	if r.Missing != "" {
		notes = append(notes, "  missing: "+harmless(r.Missing, 400))
	}
	for i, t := range b.kinds {
		if !t.Exact && t.Opened > 0 {
			notes = append(notes, fmt.Sprintf("  %s, not exact: %s", kindNames[i], harmless(t.Why, 200)))
		}
	}
	return notes
}

func (s *summary) writeStreams(w io.Writer) {
	if len(s.streams) == 0 {
		return
	}
	var lines, proofs []string
	shown := int64(0)
	for _, h := range s.streams {
		id := fmt.Sprint(int64(h.ID))
		if h.Count > 1 {
			id = fmt.Sprintf("%d..%d (%s)", int64(h.ID), int64(h.Last), grouped(h.Count))
		}
		whom := h.Blame.String()
		if len(h.Candidates) > 0 {
			words := make([]string, len(h.Candidates))
			for i, c := range h.Candidates {
				words[i] = c.String()
			}
			whom = strings.Join(words, " or ") + "?"
		}
		lines = append(lines, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", h.book.name(), h.book.end(), id, kindNames[kindOf(&h.Stream)],
			since(h.Opened, h.book.now), since(h.Since, h.book.now), whom, harmless(h.Label, 80)))
		proofs = append(proofs, harmless(h.Proof, 1000))
		shown += h.Count
	}
	table := aligned("CONNECTION\tEND\tSTREAM\tKIND\tAGE\tQUIET\tWHOSE\tWHAT", lines)
	fmt.Fprintf(w, "\n%s\n", table[0])
	for i, line := range table[1:] {
		fmt.Fprintf(w, "%s\n    %s\n", line, proofs[i])
	}
	if rest := s.all - shown; rest > 0 {
		fmt.Fprintf(w, "and %s more that are held or may be (-rows 0 shows all)\n", plural(rest, "stream"))
	}
}

// aligned returns the head and the lines with their columns aligned.
func aligned(head string, lines []string) []string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, head)
	for _, line := range lines {
		fmt.Fprintln(w, line)
	}
	w.Flush()
	out := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	for i := range out {
		out[i] = strings.TrimRight(out[i], " ")
	}
	return out
}

func since(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return duration(now.Sub(t))
}

// duration returns d with the digits that matter.
func duration(d time.Duration) string {
	switch {
	case d < 0:
		return "?"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	}
	return plural(int64(d/(24*time.Hour)), "day")
}

func plural(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return grouped(n) + " " + what
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
