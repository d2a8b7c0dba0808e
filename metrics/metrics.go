// Package metrics shows Prometheus what the connections of a
// [quiclife.Guard] do:
//
//	prometheus.MustRegister(metrics.NewCollector(quiclife.DefaultGuard, "default"))
//
// docs/OPERATIONS.md explains the metrics, and alerts.yml in this directory has
// alerts on them.
//
// There are 67 series for each Guard, however many connections it has: no label
// names an address, a stream or a place in the code. All series are there from
// the start, counters at 0.
package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quiclife/quiclife"
)

// NewCollector returns a collector of what g counts. name is the value of the
// label guard, which tells the Guards of a program apart.
//
// A scrape calls [quiclife.Guard.Stats] once, so all values are of the same
// moment. The scrape costs what that call costs: it looks at each open
// connection, but not at the streams. Nothing runs between scrapes. The collector
// keeps g alive. It may be used from any goroutine. A nil g panics.
func NewCollector(g *quiclife.Guard, name string) prometheus.Collector {
	if g == nil {
		panic("metrics: NewCollector with a nil Guard")
	}
	return newCollector(g.Stats, name)
}

func newCollector(stats func() quiclife.GuardStats, name string) *collector {
	c := &collector{stats: stats, constant: prometheus.Labels{"guard": name}}
	c.describe()
	return c
}

type collector struct {
	stats    func() quiclife.GuardStats
	constant prometheus.Labels
	descs    []*prometheus.Desc
	series   []series
}

// A series is one value of a snapshot.
type series struct {
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	labels []string
	read   func(*quiclife.GuardStats) float64
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	stats := c.stats()
	for _, s := range c.series {
		ch <- prometheus.MustNewConstMetric(s.desc, s.kind, s.read(&stats), s.labels...)
	}
}

// A metric has a name and a help text. add gives it its series.
type metric struct {
	c    *collector
	kind prometheus.ValueType
	desc *prometheus.Desc
}

func (c *collector) metric(kind prometheus.ValueType, name, help string, labels ...string) metric {
	desc := prometheus.NewDesc("quiclife_"+name, help, labels, c.constant)
	c.descs = append(c.descs, desc)
	return metric{c, kind, desc}
}

func (m metric) add(read func(*quiclife.GuardStats) float64, labels ...string) {
	m.c.series = append(m.c.series, series{m.desc, m.kind, labels, read})
}

// streamKinds are the kinds of streams, with their labels.
var streamKinds = []struct {
	dir, kind string
	of        func(*quiclife.GuardStats) *quiclife.StreamStats
}{
	{"outgoing", "bidi", func(s *quiclife.GuardStats) *quiclife.StreamStats { return &s.Outgoing }},
	{"outgoing", "uni", func(s *quiclife.GuardStats) *quiclife.StreamStats { return &s.OutgoingUni }},
	{"incoming", "bidi", func(s *quiclife.GuardStats) *quiclife.StreamStats { return &s.Incoming }},
	{"incoming", "uni", func(s *quiclife.GuardStats) *quiclife.StreamStats { return &s.IncomingUni }},
}

// byKind returns the values in the order of streamKinds.
func byKind[T any](p quiclife.PerKind[T]) [4]T {
	return [...]T{p.Outgoing, p.OutgoingUni, p.Incoming, p.IncomingUni}
}

// results are the ways in which a stream ends. Each stream counts in one of them.
var results = []struct {
	name string
	of   func(*quiclife.StreamStats) int64
}{
	{"finished", func(s *quiclife.StreamStats) int64 { return s.Finished }},
	{"released", func(s *quiclife.StreamStats) int64 { return s.Released }},
	{"reset", func(s *quiclife.StreamStats) int64 { return s.Reset }},
	{"reclaimed", func(s *quiclife.StreamStats) int64 { return s.Reclaimed }},
	{"detached", func(s *quiclife.StreamStats) int64 { return s.Detached }},
}

var scopes = []struct {
	scope quiclife.LimitScope
	of    func(quiclife.LimitCounts) int64
}{
	{quiclife.LimitPeer, func(l quiclife.LimitCounts) int64 { return l.Peer }},
	{quiclife.LimitOutgoing, func(l quiclife.LimitCounts) int64 { return l.Outgoing }},
	{quiclife.LimitStreams, func(l quiclife.LimitCounts) int64 { return l.Streams }},
	{quiclife.LimitConns, func(l quiclife.LimitCounts) int64 { return l.Conns }},
	{quiclife.LimitHeap, func(l quiclife.LimitCounts) int64 { return l.Heap }},
}

var reasons = []struct {
	reason quiclife.LeakReason
	of     func(quiclife.LeakCounts) int64
}{
	{quiclife.LeakDropped, func(l quiclife.LeakCounts) int64 { return l.Dropped }},
	{quiclife.LeakUnread, func(l quiclife.LeakCounts) int64 { return l.Unread }},
	{quiclife.LeakIdle, func(l quiclife.LeakCounts) int64 { return l.Idle }},
	{quiclife.LeakUncredited, func(l quiclife.LeakCounts) int64 { return l.Uncredited }},
}

// describe makes all metrics and their series.
func (c *collector) describe() {
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue

	open := c.metric(gauge, "streams_open", "Open streams.", "dir", "type")
	limit := c.metric(gauge, "streams_limit", "How many streams this side's limits allow, summed over the open connections. 0: no limit.", "dir", "type")
	full := c.metric(gauge, "connections_full", "Connections without a free slot for a stream of this kind, as far as this side knows.", "dir", "type")
	most := c.metric(gauge, "connection_streams_open_max", "Open streams on the connection that has the most.", "dir", "type")
	oldest := c.metric(gauge, "oldest_stream_age_seconds", "Age of the oldest open stream. 0: none is open.", "dir", "type")
	opened := c.metric(counter, "streams_opened_total", "Streams opened or accepted.", "dir", "type")
	ended := c.metric(counter, "streams_ended_total", "Streams that have ended, by how they ended.", "dir", "type", "result")
	for i, k := range streamKinds {
		perKind := func(m metric, read func(*quiclife.GuardStats) float64, more ...string) {
			m.add(read, append([]string{k.dir, k.kind}, more...)...)
		}
		perKind(open, func(s *quiclife.GuardStats) float64 { return float64(k.of(s).Open) })
		perKind(limit, func(s *quiclife.GuardStats) float64 { return float64(k.of(s).Limit) })
		perKind(full, func(s *quiclife.GuardStats) float64 { return float64(byKind(s.Full)[i]) })
		perKind(most, func(s *quiclife.GuardStats) float64 { return float64(byKind(s.Most)[i]) })
		perKind(oldest, func(s *quiclife.GuardStats) float64 { return byKind(s.Oldest)[i].Seconds() })
		perKind(opened, func(s *quiclife.GuardStats) float64 { return float64(k.of(s).Opened) })
		for _, result := range results {
			perKind(ended, func(s *quiclife.GuardStats) float64 { return float64(result.of(k.of(s))) }, result.name)
		}
	}
	c.metric(counter, "eofs_consumed_total", "Streams whose io.EOF quiclife read, because the program stopped at the last byte.").
		add(func(s *quiclife.GuardStats) (eofs float64) {
			for _, k := range streamKinds {
				eofs += float64(k.of(s).EOFs)
			}
			return eofs
		})

	leaked := c.metric(counter, "streams_leaked_total", "Streams that the program did not end, as OnLeak gets them.", "reason")
	for _, r := range reasons {
		leaked.add(func(s *quiclife.GuardStats) float64 { return float64(r.of(s.Leaks)) }, r.reason.String())
	}

	limitErrors := c.metric(counter, "limit_errors_total", "Streams not opened or not handled because of a limit, by the limit.", "scope")
	refused := c.metric(counter, "connections_refused_total", "Connections not made or not accepted because of a limit, by the limit.", "scope")
	for _, l := range scopes {
		limitErrors.add(func(s *quiclife.GuardStats) float64 { return float64(l.of(s.LimitErrors)) }, l.scope.String())
		refused.add(func(s *quiclife.GuardStats) float64 { return float64(l.of(s.ConnsRefused)) }, l.scope.String())
	}
	handled := c.metric(gauge, "streams_handled", "Streams that take a slot of MaxStreams: their handlers have not returned. 0 without MaxStreams.")
	handled.add(func(s *quiclife.GuardStats) float64 { return float64(s.Handled) })
	waiting := c.metric(gauge, "opens_waiting", "Calls that are waiting for a slot.")
	waiting.add(func(s *quiclife.GuardStats) float64 { return float64(s.OpensWaiting) })
	waited := c.metric(counter, "open_wait_seconds_total", "Time that calls waited for a slot. A call counts when it returns.")
	waited.add(func(s *quiclife.GuardStats) float64 { return s.OpenWait.Seconds() })

	conns := c.metric(gauge, "connections", "Open connections.")
	conns.add(func(s *quiclife.GuardStats) float64 { return float64(s.Conns) })
	connsOpened := c.metric(counter, "connections_opened_total", "Connections made or accepted.")
	connsOpened.add(func(s *quiclife.GuardStats) float64 { return float64(s.ConnsOpened) })

	errors := c.metric(counter, "handler_errors_total", "Errors that handlers returned, and answers that were cut.")
	errors.add(func(s *quiclife.GuardStats) float64 { return float64(s.HandlerErrors) })
	panics := c.metric(counter, "handler_panics_total", "Handlers that panicked.")
	panics.add(func(s *quiclife.GuardStats) float64 { return float64(s.HandlerPanics) })
	collections := c.metric(counter, "collections_total", "Times that a connection asked for a garbage collection to find dropped streams.")
	collections.add(func(s *quiclife.GuardStats) float64 { return float64(s.Collections) })
}
