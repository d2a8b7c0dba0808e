package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const measured = `library,seconds,held,heap,requests,event
quic-go,0.0,10,1048576,0,
quic-go,20.0,12000,4194304,100,
quic-go,5.0,,,,kill -9
quiclife,0.0,0,1048576,0,
quiclife,20.0,3,1048577,98000,
quiclife,5.1,,,,kill -9
quiclife,9.0,,,,restart
quiclife,12.0,,,,restart
`

// paint draws the measured data, and returns the picture.
func paint(t *testing.T, p picture) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.svg")
	if err := run(strings.NewReader(measured), out, p); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// count fails the test if a text is not in the picture want times.
func count(t *testing.T, svg, text string, want int) {
	t.Helper()
	if got := strings.Count(svg, ">"+text+"</text>"); got != want {
		t.Errorf("%q is in the picture %d times, not %d times", text, got, want)
	}
}

func TestPictureNamesLibrariesAndPanels(t *testing.T) {
	svg := paint(t, picture{title: "proxy: a proxy"})
	for _, text := range []string{"proxy: a proxy", "quic-go", "quiclife", "streams that quic-go holds, both ends", "live heap, MiB", "10,000"} {
		count(t, svg, text, 1)
	}
	count(t, svg, "seconds", 2)
	count(t, svg, "requests answered", 0)
}

func TestSecondPanelHasRequests(t *testing.T) {
	svg := paint(t, picture{requests: true})
	count(t, svg, "requests answered", 1)
	count(t, svg, "live heap, MiB", 0)
}

func TestEventsAreInBothPanels(t *testing.T) {
	svg := paint(t, picture{})
	count(t, svg, "kill -9", 2) // the two runs have it at nearly the same time, so it is drawn as one
	count(t, svg, "restart", 2) // the second event of a name has a line, but no name
	if lines := strings.Count(svg, "stroke-dasharray"); lines != 2*3 {
		t.Errorf("the picture has %d lines of events, not %d", lines, 2*3)
	}
}

func TestTextsKeepTheRoomReckonedWith(t *testing.T) {
	svg := paint(t, picture{title: "title"})
	if all, fitted := strings.Count(svg, "<text"), strings.Count(svg, "<text textLength="); all == 0 || all != fitted {
		t.Errorf("of %d texts %d have a length", all, fitted)
	}
}

func TestNamesOfEventsDoNotCollide(t *testing.T) {
	for _, at := range [][]float64{{1, 2, 3, 4}, {1, 3, 6}, {19, 19.2, 19.6, 20}, {0, 0, 20, 20}, {5, 18, 19}} {
		var s series
		for i, x := range at {
			s.held = append(s.held, struct{ X, Y float64 }{20, 0})
			s.events = append(s.events, event{x, "event " + strconv.Itoa(i)})
		}
		marks := picture{all: []*series{&s}}.marks()
		for i, a := range marks {
			if from, to := a.span(20); from < 0 || to > 20 {
				t.Errorf("events at %v: %q goes from %g to %g, beyond the panel", at, a.name, from, to)
			}
			for _, b := range marks[i+1:] {
				if a.overlaps(b, 20) {
					t.Errorf("events at %v: %q overlaps %q", at, a.name, b.name)
				}
				if at[0] == 1 && (a.crosses(b, 20) || b.crosses(a, 20)) {
					t.Errorf("events at %v: the line of %q or %q crosses the other's name", at, a.name, b.name)
				}
			}
		}
	}
}

// With many events each name is drawn only once, to leave room for the curves.
func TestManyEventsAreNamedOnce(t *testing.T) {
	p := picture{all: []*series{{}, {}}}
	for i, s := range p.all {
		s.held = append(s.held, struct{ X, Y float64 }{20, 0})
		for n := range 4 {
			s.events = append(s.events, event{float64(2*n + i), "something happens " + strconv.Itoa(n)})
		}
	}
	named := make(map[string]int)
	marks := p.marks()
	for _, m := range marks {
		if m.row >= 0 {
			named[m.name]++
		}
	}
	for name, n := range named {
		if n != 1 {
			t.Errorf("%q is drawn %d times", name, n)
		}
	}
	if len(marks) != 8 || len(named) != 4 {
		t.Errorf("there are %d lines and %d names, not 8 and 4", len(marks), len(named))
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		highest float64
		most    int
		want    string
	}{{17.2, 9, "0 2 4 6 8 10 12 14 16"}, {12600, 5, "0 5,000 10,000"}, {100000, 5, "0 20,000 40,000 60,000 80,000 100,000"}, {1, 5, "0 0.2 0.4 0.6 0.8 1"}, {3, 9, "0 0.5 1 1.5 2 2.5 3"}} {
		var got []string
		for _, tick := range (ticks{c.highest, c.most}).Ticks(0, 0) {
			got = append(got, tick.Label)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("up to %g there are ticks at %v, not at %s", c.highest, got, c.want)
		}
	}
}

func TestGrouped(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 7.5: "7.5", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := grouped(v); got != want {
			t.Errorf("%g is %q, not %q", v, got, want)
		}
	}
}

func TestBadInput(t *testing.T) {
	for _, in := range []string{"", "library,seconds,held,heap,requests,event\n", "a,b,c,d,e,f\nquic-go,x,1,2,3,\n", "a,b,c,d,e,f\nquic-go,1,,,,\n", "a,b\nc,d\n", "a\n\"b"} {
		out := filepath.Join(t.TempDir(), "out.svg")
		if err := run(strings.NewReader(in), out, picture{}); err == nil {
			t.Errorf("%q was drawn", in)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%q left a file", in)
		}
	}
}
