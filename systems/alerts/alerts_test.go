package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAllDurationsAreShortened also checks that nothing else in the rules is
// changed.
func TestAllDurationsAreShortened(t *testing.T) {
	text, err := os.ReadFile("../../metrics/alerts.yml")
	require.NoError(t, err)
	short := shorten(string(text))
	require.NotRegexp(t, `\b\d+[mhd]\b`, short)
	require.Contains(t, short, "rate(quiclife_streams_leaked_total[2500ms])", "5 minutes")
	require.Contains(t, short, "for: 5000ms", "10 minutes")
	require.Contains(t, short, "offset 30000ms", "an hour")
	require.Contains(t, short, `quiclife_oldest_stream_age_seconds{type="bidi"} > 30`, "an age of an hour")
	require.Contains(t, short, "- record: quiclife:streams_unended_per_connection:min10m", "a name")
	require.Equal(t, strings.Count(string(text), "\n"), strings.Count(short, "\n"))
	require.Equal(t, alertNames(string(text)), alertNames(short))
	require.Len(t, alertNames(short), 4)

	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed")
	}
	file := filepath.Join(t.TempDir(), "alerts.yml")
	require.NoError(t, os.WriteFile(file, []byte(short), 0o600))
	out, err := exec.Command(promtool, "check", "rules", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// TestAlertOfTheWrongProgramFails also checks that a missing alert fails.
func TestAlertOfTheWrongProgramFails(t *testing.T) {
	const leak, full = "QuiclifeStreamsLeak", "QuiclifeConnectionsFull"
	start := time.Now()
	right := map[event]time.Time{{leak, "faulty"}: start.Add(7 * time.Second), {full, "faulty"}: start, {leak, "careless"}: start}
	var out bytes.Buffer
	require.Empty(t, judge(&out, []string{leak, full}, right, start))
	require.Contains(t, out.String(), "firing after 7 s")
	require.Contains(t, out.String(), "silent")

	wrong := map[event]time.Time{{leak, "faulty"}: start, {leak, "careless"}: start, {leak, "mended"}: start}
	require.Len(t, judge(io.Discard, []string{leak, full}, wrong, start), 2)
}

// TestMissingPrometheusIsSaidAtOnce checks that the error comes before anything
// is built or started.
func TestMissingPrometheusIsSaidAtOnce(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var out bytes.Buffer
	require.ErrorContains(t, run(t.Context(), &out, ""), "package prometheus")
	require.Empty(t, out.String())
}

// TestSilenceIsWaitedFor checks that watch sees a wrong alert that fires soon
// after the last expected one.
func TestSilenceIsWaitedFor(t *testing.T) {
	before := longer
	longer = 2 * scraped
	t.Cleanup(func() { longer = before })
	start, asked := time.Now(), 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const one = `{"metric": {"alertname": "QuiclifeStreamsLeak", "job": %q}, "values": [[%d, "1"]]}`
		now := start.Unix()
		series := fmt.Sprintf(one+","+one, "faulty", now, "careless", now)
		if asked++; asked > 1 {
			series += fmt.Sprintf(","+one, "mended", now+1)
		}
		fmt.Fprintf(w, `{"status": "success", "data": {"result": [%s]}}`, series)
	}))
	t.Cleanup(server.Close)
	names := []string{"QuiclifeStreamsLeak"}
	fired, err := watch(t.Context(), io.Discard, &prometheus{server.URL}, nil, names, start)
	require.NoError(t, err)
	require.Len(t, judge(io.Discard, names, fired, start), 1, "the alert of the mended program")
}

// TestBoardHasAllPanels also checks that the board sends the queries that Grafana
// would send.
func TestBoardHasAllPanels(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if strings.Contains(r.FormValue("query"), "$") {
			t.Errorf("a variable is left in %s", r.FormValue("query"))
		}
		fmt.Fprintf(w, `{"status": "success", "data": {"result": [{"metric": {"dir": "<outgoing>"}, "values": [[%d, "1"], [%[1]d, "20"]]}]}}`, time.Now().Unix())
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "board.svg")
	require.NoError(t, drawBoard(t.Context(), &prometheus{server.URL}, "../../metrics/dashboard.json", file, time.Now().Add(-time.Minute)))
	picture, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, xml.Unmarshal(picture, new(struct{})), "the picture")
	require.Equal(t, 10, strings.Count(string(picture), "<g "), "panels")
	require.Contains(t, string(picture), ">Oldest stream</text>")
	require.Contains(t, string(picture), "opened: &lt;outgoing&gt;")
	require.Greater(t, asked, 10)
}
