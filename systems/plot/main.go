// Plot draws the measurements of the example systems.
//
// It reads CSV. A line is either a sample or an event. A sample has the library,
// the seconds since the start, the streams that quic-go held, the bytes of live
// heap and the requests done. An event has the library, the seconds and a name.
package main

import (
	"encoding/csv"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"

	"gonum.org/v1/plot/plotter"
)

func main() {
	var p picture
	flag.StringVar(&p.title, "title", "", "title of the picture")
	flag.BoolVar(&p.requests, "requests", false, "draw requests instead of the heap")
	out := flag.String("o", "", "`file` to draw to")
	flag.Parse()
	if err := run(os.Stdin, *out, p); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

func run(r io.Reader, out string, p picture) (err error) {
	if p.all, err = read(r); err != nil {
		return err
	}
	svg, err := p.paint()
	if err != nil {
		return err
	}
	return os.WriteFile(out, svg, 0o666)
}

// A series holds the samples and events of one version.
type series struct {
	library              string
	held, heap, requests plotter.XYs // heap in MiB
	events               []event
}

// An event is something that happened during a run.
type event struct {
	at   float64 // in seconds
	name string
}

func read(r io.Reader) ([]*series, error) {
	lines, err := csv.NewReader(r).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(lines) < 2 {
		return nil, fmt.Errorf("no measurements")
	}
	var all []*series
	for _, line := range lines[1:] {
		if len(line) != 6 {
			return nil, fmt.Errorf("a line has %d fields instead of 6", len(line))
		}
		if len(all) == 0 || all[len(all)-1].library != line[0] {
			all = append(all, &series{library: line[0]})
		}
		if err := all[len(all)-1].add(line); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (s *series) add(line []string) error {
	isEvent := line[5] != ""
	var v [4]float64
	for i := range v {
		var err error
		if v[i], err = strconv.ParseFloat(line[1+i], 64); err != nil && (i == 0 || !isEvent) {
			return err
		}
	}
	if isEvent {
		s.events = append(s.events, event{v[0], line[5]})
		return nil
	}
	s.held = append(s.held, plotter.XY{X: v[0], Y: v[1]})
	s.heap = append(s.heap, plotter.XY{X: v[0], Y: v[2] / (1 << 20)})
	s.requests = append(s.requests, plotter.XY{X: v[0], Y: v[3]})
	return nil
}
