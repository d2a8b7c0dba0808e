package debugpage

import (
	"fmt"
	"html/template"
	"io"
	"path"
	"strings"
	"text/tabwriter"

	"github.com/quiclife/quiclife/internal/peek"
)

// A view is the data for the template.
type view struct {
	snapshot
	query
	Style template.CSS
}

func (v view) Query() queryView { return queryView{v.query} }

// A queryView is a query as the template sees it.
type queryView struct{ q query }

func (v queryView) Filter() string                { return v.q.filter }
func (v queryView) Sort() string                  { return v.q.sort }
func (v queryView) Refresh() int                  { return v.q.refresh }
func (v queryView) With(key, value string) string { return v.q.with(key, value) }

var functions = template.FuncMap{
	"lines": lines,
	"short": short,
	"of":    rowsOf,
	"held":  countText,
	"kind":  func(c peek.LedgerCount) string { return kindName(c.Incoming, c.Unidirectional) },
	// sort makes the head of a column by which the table can be sorted.
	"sort": func(v queryView, column, name, class string) template.HTML {
		sorted := ""
		if v.q.sort == column {
			sorted = ` aria-sort="descending"`
			if column == "remote" || column == "opener" {
				sorted = ` aria-sort="ascending"`
			}
		}
		return template.HTML(fmt.Sprintf(`<th class="%s"%s><a href="%s">%s</a>`, class, sorted, template.HTMLEscapeString(v.q.with("sort", column)), name))
	},
}

// writeText writes the page as text for a terminal.
func (s snapshot) writeText(w io.Writer) {
	fmt.Fprintln(w, s.At.Format("2006-01-02 15:04:05 MST"))
	for _, g := range s.Guards {
		if g.Name != "" {
			fmt.Fprintf(w, "\n== %s ==\n", g.Name)
		}
		g.writeText(w)
	}
	if s.Ledger != nil {
		s.Ledger.writeText(w)
	}
}

func (g guard) writeText(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	section := func(title string, rows, of int, columns string) {
		fmt.Fprintf(w, "\n%s: %s\n", strings.ToUpper(title), rowsOf(of))
		if rows > 0 {
			fmt.Fprintln(w, strings.ReplaceAll(columns, " | ", "\t"))
		}
	}
	section("kinds", len(g.Kinds), len(g.Kinds), "kind | open | limit | most on one | full | oldest | opened | finished | released | reset | reclaimed | detached")
	for _, k := range g.Kinds {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%v\t%d\t%d\t%d\t%d\t%d\t%d\n", k.Name, k.Open, k.Limit, k.Most, k.Full, k.Oldest, k.Opened, k.Finished, k.Released, k.Reset, k.Reclaimed, k.Detached)
	}
	fmt.Fprintln(w)
	for _, c := range g.Counts {
		fmt.Fprintf(w, "%s\t%s\n", c.Name, c.Value)
	}
	section("open streams by opener", len(g.Groups.Rows), g.Groups.Of, "count | oldest | bytes | kind | state | to do | opened by")
	for _, r := range g.Groups.Rows {
		fmt.Fprintf(w, "%d\t%v\t%d\t%s\t%s\t%s\t%s\n", r.Count, r.Oldest, r.Bytes, r.Kind, r.State, r.ToDo, short(r.Opener))
	}
	if g.Streams.Of > 0 {
		section("open streams", len(g.Streams.Rows), g.Streams.Of, "age | stream | remote | kind | state | written | read | opened by")
		for _, r := range g.Streams.Rows {
			fmt.Fprintf(w, "%v\t%d\t%s\t%s\t%s\t%d\t%d\t%s\n", r.Age, r.ID, r.Remote, r.Kind, r.State, r.Written, r.Read, short(r.Opener))
		}
	}
	section("leaks", len(g.Leaks.Rows), g.Leaks.Of, "ago | reason | stream | remote | kind | state | written | read | opened by")
	for _, r := range g.Leaks.Rows {
		fmt.Fprintf(w, "%v\t%s\t%d\t%s\t%s\t%s\t%d\t%d\t%s\n", r.Ago, r.Reason, r.ID, r.Remote, r.Kind, r.State, r.Written, r.Read, short(r.Opener))
	}
	columns := "remote | local | open"
	for _, k := range g.Kinds {
		columns += " | " + k.Name
	}
	section("connections", len(g.Conns.Rows), g.Conns.Of, columns+" | opened | oldest")
	for _, r := range g.Conns.Rows {
		fmt.Fprintf(w, "%s\t%s\t%d", r.Remote, r.Local, r.Open)
		for _, u := range r.ByKind {
			fmt.Fprintf(w, "\t%v", u)
		}
		fmt.Fprintf(w, "\t%d\t%v\n", r.Opened, r.Oldest)
	}
	w.Flush()
}

// rowsOf says how many rows are shown, and how many there are.
func rowsOf(all int) string {
	if all > mostRows {
		return fmt.Sprintf("%d of %d", mostRows, all)
	}
	return fmt.Sprint(all)
}

// notCaptured is shown for an unknown opener.
const notCaptured = "not captured"

// short returns the innermost call of an opener, without the directories of its
// package and file.
func short(opener string) string {
	if opener == "" {
		return notCaptured
	}
	line, _, _ := strings.Cut(opener, "\n")
	function, file, _ := strings.Cut(line, " ")
	return strings.TrimSpace(path.Base(function) + " " + path.Base(file))
}

// lines returns the calls of an opener.
func lines(opener string) []string { return strings.Split(strings.TrimSpace(opener), "\n") }
