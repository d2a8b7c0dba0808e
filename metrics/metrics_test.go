package metrics

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

var update = flag.Bool("update", false, "write testdata/metrics.txt anew")

// numbered returns a snapshot in which each field has a number of its own. A
// duration is that many seconds. names maps each number to the name of its field.
func numbered() (stats quiclife.GuardStats, names map[float64]string) {
	names = make(map[float64]string)
	var fill func(v reflect.Value, name string)
	fill = func(v reflect.Value, name string) {
		if v.Kind() == reflect.Struct {
			for i := range v.NumField() {
				fill(v.Field(i), name+"."+v.Type().Field(i).Name)
			}
			return
		}
		n := len(names) + 1
		names[float64(n)] = name
		if v.Type() == reflect.TypeFor[time.Duration]() {
			v.SetInt(int64(n) * int64(time.Second))
		} else {
			v.SetInt(int64(n))
		}
	}
	fill(reflect.ValueOf(&stats).Elem(), "")
	return stats, names
}

// gather returns the text that a scrape of c returns.
func gather(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	families, err := registered(t, c).Gather()
	require.NoError(t, err)
	var text bytes.Buffer
	for _, f := range families {
		_, err := expfmt.MetricFamilyToText(&text, f)
		require.NoError(t, err)
	}
	return text.String()
}

// TestEachCountHasItsSeries: testdata/metrics.txt has the name, the labels and
// the value of each series.
func TestEachCountHasItsSeries(t *testing.T) {
	stats, names := numbered()
	c := newCollector(func() quiclife.GuardStats { return stats }, "test")
	got := gather(t, c)
	golden := filepath.Join("testdata", "metrics.txt")
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "the text of a scrape (go test -update writes it anew)")

	for _, s := range c.series {
		delete(names, s.read(&stats))
	}
	for _, name := range names {
		// No series has the peaks, and the EOFs are summed into one series.
		if !strings.HasSuffix(name, ".Peak") && !strings.HasSuffix(name, ".EOFs") {
			t.Errorf("GuardStats%s is in no series", name)
		}
	}
	require.LessOrEqual(t, len(c.series), 80, "series of a Guard")
}

// TestAllSeriesAreThereAtFirst: each series starts at 0.
func TestAllSeriesAreThereAtFirst(t *testing.T) {
	c := NewCollector(&quiclife.Guard{}, "fresh")
	all := 0
	for line := range strings.Lines(gather(t, c)) {
		if !strings.HasPrefix(line, "#") {
			all++
			require.True(t, strings.HasSuffix(line, " 0\n"), line)
		}
	}
	require.Len(t, c.(*collector).series, all)
}

func TestPrometheusLintFindsNothing(t *testing.T) {
	problems, err := testutil.CollectAndLint(NewCollector(&quiclife.Guard{}, "lint"))
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestNilGuardPanics(t *testing.T) {
	require.PanicsWithValue(t, "metrics: NewCollector with a nil Guard", func() { NewCollector(nil, "") })
}

// TestGuardsAreToldApart: one registry takes the collectors of several Guards.
func TestGuardsAreToldApart(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	require.NoError(t, r.Register(NewCollector(&quiclife.Guard{}, "a")))
	require.NoError(t, r.Register(NewCollector(&quiclife.Guard{}, "b")))
	_, err := r.Gather()
	require.NoError(t, err)
	require.ErrorAs(t, r.Register(NewCollector(&quiclife.Guard{}, "a")), new(prometheus.AlreadyRegisteredError))
}

// values returns the values of a scrape, by name and labels.
func values(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	families, err := registered(t, c).Gather()
	require.NoError(t, err)
	all := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			key := f.GetName()
			for _, l := range m.Label {
				key += " " + l.GetName() + "=" + l.GetValue()
			}
			if m.Counter != nil {
				all[key] = m.Counter.GetValue()
			} else {
				all[key+" (gauge)"] = m.Gauge.GetValue()
			}
		}
	}
	return all
}

// TestCountersNeverFall: no counter falls while connections come and go. In the
// end the counters say what happened.
func TestCountersNeverFall(t *testing.T) {
	guard := &quiclife.Guard{}
	c := NewCollector(guard, "g")
	done := make(chan struct{})
	const conns, streams = 20, 10
	go func() {
		defer close(done)
		for range conns {
			rc, rs := quictest.Loopback(t, nil, nil)
			client, server := guard.Wrap(rc, nil), guard.Wrap(rs, nil)
			for range streams {
				s, err := client.OpenStream()
				if err != nil {
					t.Error(err)
					return
				}
				s.Write([]byte("x"))
				accepted, err := server.AcceptStream(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				s.Release()
				accepted.Release()
			}
			client.CloseWithError(0, "")
			server.CloseWithError(0, "")
		}
	}()
	last := values(t, c)
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		now := values(t, c)
		for key, v := range last {
			if !strings.HasSuffix(key, "(gauge)") {
				require.GreaterOrEqual(t, now[key], v, key)
			}
		}
		last = now
	}
	require.EqualValues(t, 2*conns, last["quiclife_connections_opened_total guard=g"])
	require.EqualValues(t, 0, last["quiclife_connections guard=g (gauge)"])
	require.EqualValues(t, conns*streams, last["quiclife_streams_opened_total dir=incoming guard=g type=bidi"])
	require.EqualValues(t, conns*streams, last["quiclife_streams_opened_total dir=outgoing guard=g type=bidi"])
	require.EqualValues(t, 0, last["quiclife_streams_open dir=outgoing guard=g type=bidi (gauge)"])
}

// TestScrapeOfManyConnections: the fastest of ten scrapes of 3,000 connections
// takes less than 20 ms. The others do not count, because the machine may be busy.
// With the race detector there are fewer connections.
func TestScrapeOfManyConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 1,500 pairs of connections")
	}
	guard := &quiclife.Guard{}
	conf := &quic.Config{MaxIdleTimeout: time.Hour}
	for range 1500 / slow {
		rc, rs := quictest.Loopback(t, conf, conf)
		for _, c := range []*quiclife.Conn{guard.Wrap(rc, conf), guard.Wrap(rs, conf)} {
			s, err := c.OpenStream()
			require.NoError(t, err)
			t.Cleanup(func() { runtime.KeepAlive(s) })
		}
	}
	r := registered(t, NewCollector(guard, "many"))
	best := time.Hour
	for range 10 {
		start := time.Now()
		_, err := r.Gather()
		require.NoError(t, err)
		best = min(best, time.Since(start))
	}
	t.Logf("%d connections in %v", guard.Stats().Conns, best)
	require.Less(t, best, 20*time.Millisecond)
}
