package debugpage

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

// mostRows is how many rows a table has at most.
const mostRows = 500

// A snapshot is what the page shows. ?format=json returns it as JSON.
type snapshot struct {
	At     time.Time `json:"at"`
	Guards []guard   `json:"guards"`
	Ledger *books    `json:"ledger,omitempty"`
}

type guard struct {
	Name    string        `json:"name,omitempty"`
	Kinds   []kind        `json:"kinds"`
	Counts  []count       `json:"counts"`
	Conns   table[conn]   `json:"connections"`
	Groups  table[group]  `json:"streams_by_opener"`
	Streams table[stream] `json:"streams"` // only with a filter
	Leaks   table[leak]   `json:"leaks"`
}

// A table has the first rows of a list.
type table[R any] struct {
	Rows []R `json:"rows"`
	Of   int `json:"of"` // length of the list
}

func (t *table[R]) add(row R) {
	t.Rows = append(t.Rows, row)
	t.Of++
}

// addInOrder adds a row. It keeps only about as many of the first rows as are
// shown.
func (t *table[R]) addInOrder(row R, order func(a, b R) int) {
	t.add(row)
	if len(t.Rows) >= 2*mostRows {
		t.cut(order)
	}
}

// cut sorts the rows and keeps the first ones.
func (t *table[R]) cut(order func(a, b R) int) {
	slices.SortStableFunc(t.Rows, order)
	t.Rows = append([]R{}, t.Rows[:min(len(t.Rows), mostRows)]...) // never nil, which would be null in JSON
}

// A kind has the counts of one kind of stream on all connections.
type kind struct {
	Name      string `json:"kind"`
	Open      int64  `json:"open"`
	Limit     int64  `json:"limit"`
	Most      int64  `json:"open_max"` // the most on one connection
	Peak      int64  `json:"peak"`     // the most on one connection so far
	Full      int64  `json:"connections_full"`
	Oldest    age    `json:"oldest_seconds"`
	Opened    int64  `json:"opened"`
	Finished  int64  `json:"finished"`
	Released  int64  `json:"released"`
	Reset     int64  `json:"reset"`
	Reclaimed int64  `json:"reclaimed"`
	Detached  int64  `json:"detached"`
}

// A count is a count for the whole Guard.
type count struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	Bad   bool   `json:"bad"` // a positive value is a sign of a problem
}

type conn struct {
	Remote string `json:"remote"`
	Local  string `json:"local"`
	Open   int64  `json:"open"`
	ByKind [4]use `json:"by_kind"` // in the order of kinds
	Opened int64  `json:"opened"`
	Oldest age    `json:"oldest_seconds"`
}

// A use says how many streams of a kind are open on a connection, and the limit.
type use struct {
	Open  int64 `json:"open"`
	Limit int64 `json:"limit"`
}

func (u use) String() string {
	if u.Limit == 0 {
		return fmt.Sprint(u.Open)
	}
	return fmt.Sprintf("%d of %d", u.Open, u.Limit)
}

// A group is the streams that were opened by the same calls and are in the same
// state.
type group struct {
	groupKey
	Count  int   `json:"count"`
	Oldest age   `json:"oldest_seconds"`
	Bytes  int64 `json:"bytes"`
}

type groupKey struct {
	Kind   string `json:"kind"`
	State  string `json:"state"`
	ToDo   string `json:"to_do"`
	Opener string `json:"opener"`
}

type stream struct {
	groupKey
	Remote  string `json:"remote"`
	ID      int64  `json:"stream"`
	Age     age    `json:"age_seconds"`
	Written int64  `json:"written"`
	Read    int64  `json:"read"`
}

type leak struct {
	stream
	Ago    age    `json:"ago_seconds"`
	Reason string `json:"reason"`
}

// An age is shown rounded. In JSON it is a number of seconds.
type age time.Duration

func (a age) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.3f", time.Duration(a).Seconds()), nil
}

func (a age) String() string {
	d := time.Duration(a)
	switch {
	case d <= 0:
		return ""
	case d < time.Minute:
		return d.Round(10 * time.Millisecond).String()
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// connOrders and groupOrders are the orders that the tables can be sorted by.
var connOrders = map[string]func(a, b conn) int{
	"open":   func(a, b conn) int { return cmp.Compare(b.Open, a.Open) },
	"opened": func(a, b conn) int { return cmp.Compare(b.Opened, a.Opened) },
	"age":    func(a, b conn) int { return cmp.Compare(b.Oldest, a.Oldest) },
	"remote": func(a, b conn) int { return cmp.Compare(a.Remote, b.Remote) },
}

var groupOrders = map[string]func(a, b group) int{
	"count":  func(a, b group) int { return cmp.Compare(b.Count, a.Count) },
	"oldest": func(a, b group) int { return cmp.Compare(b.Oldest, a.Oldest) },
	"bytes":  func(a, b group) int { return cmp.Compare(b.Bytes, a.Bytes) },
	"opener": func(a, b group) int { return cmp.Compare(a.Opener, b.Opener) },
}

// order returns the order with the name asked. If there is none, it returns the
// order with the name otherwise.
func order[R any](orders map[string]func(a, b R) int, asked, otherwise string) func(a, b R) int {
	if by, ok := orders[asked]; ok {
		return by
	}
	return orders[otherwise]
}

func take(guards []*quiclife.Guard, names []string, q query) snapshot {
	s := snapshot{At: time.Now()}
	for i, g := range guards {
		v := takeGuard(g, q)
		if len(names) > 0 {
			v.Name = names[i]
		} else if len(guards) > 1 {
			v.Name = fmt.Sprintf("Guard %d of %d", i+1, len(guards))
		}
		s.Guards = append(s.Guards, v)
	}
	return s
}

func takeGuard(g *quiclife.Guard, q query) guard {
	stats := g.Stats()
	v := guard{Kinds: kinds(stats), Counts: counts(stats)}
	groups := make(map[groupKey]*group)
	for c := range g.Conns() {
		remote, local := c.RemoteAddr().String(), c.LocalAddr().String()
		row := conn{Remote: remote, Local: local}
		for i, s := range each(c.Stats()) {
			row.ByKind[i] = use{s.Open, s.Limit}
			row.Open += s.Open
			row.Opened += s.Opened
		}
		found := q.matches(remote, local)
		for info := range c.Streams() {
			if info.Send != quiclife.HalfOpen && info.Receive != quiclife.HalfOpen {
				continue // it has ended meanwhile
			}
			row.Oldest = max(row.Oldest, age(info.Age))
			key := keyOf(info)
			if !q.matches(remote, local, key.Opener, key.State, key.Kind) {
				continue
			}
			found = true
			at := groups[key]
			if at == nil {
				at = &group{groupKey: key}
				groups[key] = at
			}
			at.Count++
			at.Oldest = max(at.Oldest, age(info.Age))
			at.Bytes += info.BytesRead + info.BytesWritten
			if q.filter != "" {
				v.Streams.add(streamOf(remote, key, info))
			}
		}
		if found {
			v.Conns.add(row)
		}
	}
	for _, at := range groups {
		v.Groups.add(*at)
	}
	slices.SortFunc(v.Groups.Rows, func(a, b group) int { // rows that compare equal below keep this order
		return cmp.Or(cmp.Compare(a.Opener, b.Opener), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.State, b.State))
	})
	slices.SortFunc(v.Conns.Rows, func(a, b conn) int {
		return cmp.Or(cmp.Compare(a.Remote, b.Remote), cmp.Compare(a.Local, b.Local))
	})
	v.Conns.cut(order(connOrders, q.sort, "open"))
	v.Groups.cut(order(groupOrders, q.sort, "count"))
	v.Streams.cut(func(a, b stream) int { return cmp.Compare(b.Age, a.Age) })
	for _, l := range peek.RecentLeaks(g) {
		info := l.Stream.(quiclife.StreamInfo)
		key := keyOf(info)
		if q.matches(l.Remote, key.Opener, key.State, key.Kind) {
			v.Leaks.add(leak{streamOf(l.Remote, key, info), age(time.Since(l.At)), l.Reason})
		}
	}
	v.Leaks.cut(func(a, b leak) int { return cmp.Compare(a.Ago, b.Ago) })
	return v
}

func keyOf(s quiclife.StreamInfo) groupKey {
	state := advice.Halves(s)
	if s.Dropped {
		state += ", dropped"
	}
	return groupKey{kindName(s.Incoming, s.Unidirectional), state, advice.ToDo(s), strings.TrimSpace(s.Stack)}
}

func streamOf(remote string, key groupKey, s quiclife.StreamInfo) stream {
	return stream{key, remote, int64(s.ID), age(s.Age), s.BytesWritten, s.BytesRead}
}

func kindName(incoming, unidirectional bool) string {
	name := "outgoing"
	if incoming {
		name = "incoming"
	}
	if unidirectional {
		name += ", unidirectional"
	}
	return name
}

// each returns the kinds in the order of the page.
func each(s quiclife.Stats) [4]quiclife.StreamStats {
	return [...]quiclife.StreamStats{s.Outgoing, s.OutgoingUni, s.Incoming, s.IncomingUni}
}

func eachOf[T any](p quiclife.PerKind[T]) [4]T {
	return [...]T{p.Outgoing, p.OutgoingUni, p.Incoming, p.IncomingUni}
}

func kinds(stats quiclife.GuardStats) (rows []kind) {
	most, full, oldest := eachOf(stats.Most), eachOf(stats.Full), eachOf(stats.Oldest)
	for i, s := range each(stats.Stats) {
		rows = append(rows, kind{
			Name: kindName(i >= 2, i%2 == 1), Open: s.Open, Limit: s.Limit, Most: most[i], Peak: s.Peak, Full: full[i], Oldest: age(oldest[i]),
			Opened: s.Opened, Finished: s.Finished, Released: s.Released, Reset: s.Reset, Reclaimed: s.Reclaimed, Detached: s.Detached,
		})
	}
	return rows
}

func counts(s quiclife.GuardStats) (rows []count) {
	add := func(name string, n int64, bad bool) {
		rows = append(rows, count{name, fmt.Sprint(n), bad && n > 0})
	}
	add("connections open", s.Conns, false)
	add("connections in all", s.ConnsOpened, false)
	add("leaks: dropped", s.Leaks.Dropped, true)
	add("leaks: unread", s.Leaks.Unread, true)
	add("leaks: idle", s.Leaks.Idle, true)
	add("leaks: uncredited", s.Leaks.Uncredited, true)
	add("opens waiting", s.OpensWaiting, true)
	rows = append(rows, count{"opens have waited", s.OpenWait.Round(time.Millisecond).String(), false})
	add("at the peer's limit", s.LimitErrors.Peer, true)
	add("at MaxOutgoing", s.LimitErrors.Outgoing, true)
	add("handled now", s.Handled, false)
	add("at MaxStreams", s.LimitErrors.Streams, true)
	add("at MaxHeap", s.LimitErrors.Heap+s.ConnsRefused.Heap, true)
	add("refused at MaxConns", s.ConnsRefused.Conns, true)
	add("handler errors", s.HandlerErrors, true)
	add("handler panics", s.HandlerPanics, true)
	add("collections asked for", s.Collections, false)
	return rows
}
