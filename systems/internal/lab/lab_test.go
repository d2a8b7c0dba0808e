package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// healthy is a system that works on quiclife only.
var healthy = System{
	Name:     "name",
	Title:    "a title",
	About:    "about",
	Requests: "what requests are",
	Columns:  []Term{{"more", "what more is"}},
	Events:   []Term{{"hiccup", "what a hiccup is"}},
	Run: func(ctx context.Context, r *Run) error {
		looks := make(chan struct{}, 1000)
		r.Watch(func() Sample {
			looks <- struct{}{}
			return Sample{Requests: 7, Open: -1, Limit: 8, Held: 9, More: []Value{{"more", "10"}}}
		})
		for range printEvery + 1 {
			<-looks
		}
		<-ctx.Done()
		r.Event("hiccup", "number %d", 1)
		r.Check(true, "it runs", "it did")
		r.Check(!r.Plain, "it goes on", "stuck: %t", r.Plain)
		r.Shown = "Shown."
		return nil
	},
}

func TestDo(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, healthy.Do(&out, Options{For: 1500 * time.Millisecond}))
	require.Regexp(t, `(?s)^name: a title. On quiclife, under load for 1.5s.\nabout\nColumns .*:\n`+
		`  requests, failed +what requests are\n.*  more +what more is\nEvents:\n  hiccup +what a hiccup is\n\n`+
		` +s requests failed +open +limit +held heap MiB goroutines +more\n`+
		`( +\d+\.\d +7 +0 +\? +8 +9 +\d+\.\d +\d+ +10\n)+ +\d\.\d -- hiccup: number 1\n\n`+
		`Verdict Expected    Seen\nok      it runs     it did\nok      it goes on  stuck: false\n`+
		`ok \(quiclife\): all 2 as expected. Shown.\n$`, out.String())
	require.NotContains(t, out.String(), "%") // only a terminal gets a progress bar

	out.Reset()
	require.EqualError(t, healthy.Do(&out, Options{For: 1500 * time.Millisecond, Plain: true}), "it goes on: stuck: true")
	require.Contains(t, out.String(), "FAILED  it goes on  stuck: true\nFAILED (quic-go): 1 of 2 not as expected. Shown.\n")
}

// The verdict must not claim that a run has shown something if it has not.
func TestVerdictSaysWhatWasShown(t *testing.T) {
	for _, c := range []struct {
		plain, ok bool
		err       error
		want      string
	}{
		{false, true, nil, "ok (quiclife): all 1 as expected. Shown."},
		{true, false, nil, "FAILED (quic-go): 1 of 1 not as expected. Shown."},
		{true, true, nil, "ok (quic-go): all 1 as expected. This run was too short to show the leak."},
		{false, false, nil, "FAILED (quiclife): 1 of 1 not as expected. This is not as it should be."},
		{false, true, errors.New("no socket"), "FAILED (quiclife): no socket"},
	} {
		r := &Run{Plain: c.plain, Shown: "Shown."}
		r.Check(c.ok, "it works", "look")
		var out bytes.Buffer
		err := r.conclude(&out, c.err)
		require.Equal(t, c.want == "" || !c.ok || c.err != nil, err != nil)
		require.Contains(t, out.String(), c.want+"\n")
	}
}

func TestEveryWordIsExplained(t *testing.T) {
	r := &Run{system: healthy, screen: newScreen(new(bytes.Buffer))}
	require.Panics(t, func() { r.Event("fall", "") }, "an event without an explanation")
	require.Panics(t, func() { r.show(Sample{More: []Value{{"less", "1"}}}) }, "a column without an explanation")
	require.NotPanics(t, func() { r.Event("hiccup", ""); r.show(Sample{More: []Value{{"more", "1"}}}) })
}

func TestWrapKeepsToTheScreen(t *testing.T) {
	text := strings.Repeat("word ", 50)
	wrapped := strings.Split(wrap(text, 20), "\n")
	require.Len(t, wrapped, 4)
	for i, line := range wrapped {
		if i > 0 {
			require.Regexp(t, "^ {20}word", line)
		} else {
			line = strings.Repeat(" ", 20) + line
		}
		require.LessOrEqual(t, len(line), width)
	}
	require.Equal(t, strings.Fields(text), strings.Fields(wrap(text, 20)))
}

func TestBadOptions(t *testing.T) {
	var out bytes.Buffer
	for _, opt := range []Options{{}, {For: -1}, {For: 1, Plot: "picture.png"}, {For: 1, Plain: true, Import: true}} {
		require.Error(t, healthy.Do(&out, opt))
	}
	require.NotContains(t, out.String(), "about") // the system was not run
}

func TestScreenOnTerminal(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	s.terminal = true
	s.line("head", "1", "a", 0.5)
	s.line("head", "2", "b", 1)
	s.printf("%s", "between\n")
	s.end()
	half, full := "[====================                    ]  50%", "[========================================] 100%"
	wipe := "\r\x1b[K"
	require.Equal(t, "head\n1\n"+half+wipe+"2\n"+full+wipe+"between\n"+full+wipe, out.String())
}

func TestLinesWithoutNewsAreLeftOut(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	for i, news := range []string{"a", "b", "b", "c", "c", "c", "c", "d", "d", "d"} {
		s.line("head", fmt.Sprint(i), news, 0)
	}
	s.printf("between\n")
	s.line("head", "10", "d", 0) // printed, because something else was printed before it
	s.end()
	require.Equal(t, "head\n0\n1\n2\n3\n  ... the same until\n6\n7\n  ... the same until\n9\nbetween\n10\n", out.String())
}

func TestTable(t *testing.T) {
	plain := &Run{Plain: true, samples: []Sample{{At: 1500 * time.Millisecond, Requests: 4, Held: 2, Heap: 3}}, events: []event{{2 * time.Second, "kill -9"}}}
	imported := &Run{Import: true, samples: []Sample{{At: time.Second}}}
	with := &Run{system: System{With: "Serve"}, samples: []Sample{{At: time.Second}}}
	require.Equal(t, "library,seconds,held,heap,requests,event\n"+
		"quic-go,1.500,2,3,4,\nquic-go,2.000,,,,kill -9\n"+
		"\"quiclife, import alone\",1.000,0,0,0,\nquiclife with Serve,1.000,0,0,0,\n", table([]*Run{plain, imported, with}).String())
}
