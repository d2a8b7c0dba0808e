package lab

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// fetch finds an address in the printed text, and gets path from there.
func fetch(t *testing.T, printed, path string) (status int, body string) {
	t.Helper()
	base := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(printed)
	require.NotEmpty(t, base, "no address in %q", printed)
	resp, err := http.Get(base + path)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(text)
}

// TestPageAndMetricsAreServedWhileASystemRuns also checks that they are gone
// afterwards.
func TestPageAndMetricsAreServedWhileASystemRuns(t *testing.T) {
	var out, page, counts bytes.Buffer
	watched := System{Name: "name", Run: func(context.Context, *Run) error {
		Watched("first", &quiclife.Guard{})
		require.True(t, Watched("second", &quiclife.Guard{}).CaptureStacks, "the page is to name openers")
		Watched("first", &quiclife.Guard{}) // replaces the first one
		status, text := fetch(t, out.String(), "/debug/quiclife")
		require.Equal(t, http.StatusOK, status)
		page.WriteString(text)
		status, text = fetch(t, out.String(), "/metrics")
		require.Equal(t, http.StatusOK, status)
		counts.WriteString(text)
		return nil
	}}
	require.NoError(t, watched.Do(&out, Options{For: time.Second, HTTP: "localhost:0"}))
	require.Equal(t, 1, strings.Count(page.String(), ">first</h2>"))
	require.Contains(t, page.String(), ">second</h2>")
	require.Contains(t, counts.String(), `quiclife_connections{guard="first"} 0`)
	require.Contains(t, counts.String(), `quiclife_connections{guard="second"} 0`)
	require.Contains(t, counts.String(), "\ngo_goroutines ")

	_, err := http.Get(regexp.MustCompile(`http://\S+`).FindString(out.String()))
	require.Error(t, err, "the system has ended")
	require.False(t, Watched("none", &quiclife.Guard{}).CaptureStacks, "nobody looks")
}

// TestPageOfPlainRunSaysThatItHasNothing checks the page of a run on quic-go,
// which has no Guard.
func TestPageOfPlainRunSaysThatItHasNothing(t *testing.T) {
	var out bytes.Buffer
	plain := System{Name: "name", Run: func(context.Context, *Run) error {
		status, text := fetch(t, out.String(), "/debug/quiclife")
		require.Equal(t, http.StatusNotFound, status)
		require.Contains(t, text, "A run on plain quic-go has none")
		status, text = fetch(t, out.String(), "/metrics")
		require.Equal(t, http.StatusOK, status)
		require.NotContains(t, text, "quiclife_")
		return nil
	}}
	require.NoError(t, plain.Do(&out, Options{For: time.Second, Plain: true, HTTP: ":0"}))
	require.Contains(t, out.String(), "Plain quic-go has no Guard")
}

// TestPageIsForThisMachineAlone checks that other addresses are refused before
// the system runs.
func TestPageIsForThisMachineAlone(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.com:0", "*:0"} {
		var out bytes.Buffer
		err := healthy.Do(&out, Options{For: 1, HTTP: addr})
		require.ErrorContains(t, err, "is not a loopback address", addr)
		require.Contains(t, out.String(), err.Error())
		require.NotContains(t, out.String(), "about", "the system was run")
	}
	require.ErrorContains(t, healthy.Do(io.Discard, Options{For: 1, HTTP: "6060"}), "such as localhost:6060")
}
