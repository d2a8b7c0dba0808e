package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" { // a process that TestScale has started
		if err := play(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestCyclesGiveTheirStreamsBack makes more requests than any library allows to
// be open at once. Each has to be answered.
func TestCyclesGiveTheirStreamsBack(t *testing.T) {
	for _, s := range subjects {
		t.Run(s.short, func(t *testing.T) {
			c, err := s.connect()
			require.NoError(t, err)
			defer c.end()
			c.serve(2)
			buf := make([]byte, bufferSize)
			for i := range requestSize {
				buf[i] = byte(i)
			}
			want := bytes.Clone(buf[:requestSize])
			for i := range 300 {
				require.NoError(t, c.cycle(buf), "request %d", i)
				require.Equal(t, want, buf[:requestSize], "the answer is not the request")
			}
		})
	}
}

// TestPatternsLeaveBehindWhatIsKnown: in each pattern quic-go keeps streams at one
// end or both, and quiclife keeps none. quiclife needs a collection to find a
// stream that nobody has ended.
func TestPatternsLeaveBehindWhatIsKnown(t *testing.T) {
	const streams = 4
	cells, err := leftBehind(patterns, subjects[:2], streams)
	require.NoError(t, err)
	known := []struct {
		client, server bool // quic-go keeps streams
		collected      bool // by quiclife
	}{
		{true, false, true},
		{true, false, false},
		{true, true, true},
		{true, true, true},
		{true, false, false},
		{true, false, false},
		{false, true, false},
		{false, true, true},
	}
	require.Len(t, patterns, len(known))
	for i, p := range patterns {
		t.Run(p.name, func(t *testing.T) {
			plain, ours := cells[p.name]["quic-go"], cells[p.name]["quiclife"]
			require.Equal(t, known[i].client, plain.client > 0, "quic-go's client keeps %d of %d", plain.client, streams)
			require.Equal(t, known[i].server, plain.server > 0, "quic-go's server keeps %d of %d", plain.server, streams)
			require.Zero(t, ours.client, "quiclife's client keeps streams")
			require.Zero(t, ours.server, "quiclife's server keeps streams")
			require.Equal(t, known[i].collected, ours.collected, "whether quiclife needed a collection")
		})
	}
}

// TestOtherLibrariesPlayThePatterns: each library plays each pattern without an
// error. The test does not check what it leaves behind.
func TestOtherLibrariesPlayThePatterns(t *testing.T) {
	cells, err := leftBehind(patterns, subjects[2:], 1)
	require.NoError(t, err)
	for _, p := range patterns {
		require.Len(t, cells[p.name], 3, p.name) // HTTP/2 has no streams to play them with
	}
}

func TestMeasuresOfAllSubjects(t *testing.T) {
	all, err := measureAll(options{rounds: 2, run: 5 * time.Millisecond}, measures(), subjects, io.Discard)
	require.NoError(t, err)
	for _, m := range measures() {
		for _, f := range m.figures {
			for _, s := range subjects {
				if m.streams && s.library == nil {
					require.Empty(t, all[f.name][s.name], "%s, %s", f.name, s.name)
					continue
				}
				require.Len(t, all[f.name][s.name], 2, "%s, %s", f.name, s.name)
			}
		}
	}
	for _, s := range subjects {
		require.Positive(t, median(all["one at a time: time"][s.name]), s.name)
		require.Greater(t, median(all["one at a time: allocations"][s.name]), 10.0, s.name)
	}
	var table bytes.Buffer
	writeFigures(&table, measures(), subjects, all)
	require.Contains(t, table.String(), "| throughput, Write of 32 kB |")

	file := filepath.Join(t.TempDir(), "bench.svg")
	require.NoError(t, drawFigures(file, subjects, all))
	picture, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, text := range []string{"<svg", "64 at a time: CPU", "throughput by size of a Write", "yamux"} {
		require.Contains(t, string(picture), text)
	}
}

func TestScale(t *testing.T) {
	o := scaleOptions{conns: []int{2, 4}, streams: 5, rounds: 1, cycles: 50, deadline: 50 * time.Millisecond}
	file := filepath.Join(t.TempDir(), "scale.svg")
	var table bytes.Buffer
	require.NoError(t, doScale(&table, o, file))
	for _, text := range []string{"| 2 connections | 4 connections |", cycleAll + ": ratio", collection + ": difference", late} {
		require.Contains(t, table.String(), text)
	}
	picture, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(picture), "CPU of a garbage collection")
}

func TestBadOptions(t *testing.T) {
	for _, o := range []options{{0, time.Second}, {1, 0}} {
		require.Error(t, do(io.Discard, o, false, false, ""))
	}
	require.Error(t, do(io.Discard, options{1, time.Second}, false, false, "picture.png"))
}

func TestSpread(t *testing.T) {
	require.Equal(t, "3.00 µs (2.00–4.00)", spread([]float64{5e3, 1e3, 3e3, 2e3, 4e3}, 1e3, "µs", -1))
	require.Equal(t, "1.02 (1.01–1.03)", spread([]float64{1.00, 1.02, 1.04}, 1, "", 2))
	require.Equal(t, "18861 B (18861–18861)", spread([]float64{18861}, 1, "B", -1))
	for _, none := range [][]float64{nil, {0, 0}, {math.NaN()}} { // no figure
		require.Equal(t, "–", spread(none, 1, "µs", -1))
	}
}
