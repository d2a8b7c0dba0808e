// Plot draws what the example systems have measured.
//
// It reads CSV, a line for each moment: the library, the seconds since the
// start, the streams that quic-go held, and the bytes of live heap.
package main

import (
	"encoding/csv"
	"flag"
	"fmt"
	"image/color"
	"io"
	"os"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

func main() {
	title := flag.String("title", "", "title of the picture")
	out := flag.String("o", "", "`file` to draw to")
	flag.Parse()
	if err := run(os.Stdin, *out, *title); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

func run(r io.Reader, out, title string) error {
	series, err := read(r)
	if err != nil {
		return err
	}
	picture, err := paint(title, series)
	if err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	if _, err := picture.WriteTo(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// A series is what one library did.
type series struct {
	library    string
	held, heap plotter.XYs // heap in MiB
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
		if len(line) != 4 {
			return nil, fmt.Errorf("a line has %d fields instead of 4", len(line))
		}
		var v [3]float64
		for i := range v {
			if v[i], err = strconv.ParseFloat(line[1+i], 64); err != nil {
				return nil, err
			}
		}
		if len(all) == 0 || all[len(all)-1].library != line[0] {
			all = append(all, &series{library: line[0]})
		}
		s := all[len(all)-1]
		s.held = append(s.held, plotter.XY{X: v[0], Y: v[1]})
		s.heap = append(s.heap, plotter.XY{X: v[0], Y: v[2] / (1 << 20)})
	}
	return all, nil
}

// colors are told apart also by the colour-blind.
var colors = []color.Color{color.RGBA{R: 0xd5, G: 0x5e, A: 0xff}, color.RGBA{G: 0x72, B: 0xb2, A: 0xff}}

// paint draws two panels side by side, the series together in each.
func paint(title string, all []*series) (io.WriterTo, error) {
	held, err := panel(title+": streams held, both ends", "streams", all, func(s *series) plotter.XYs { return s.held })
	if err != nil {
		return nil, err
	}
	heap, err := panel(title+": live heap", "MiB", all, func(s *series) plotter.XYs { return s.heap })
	if err != nil {
		return nil, err
	}
	canvas := vgsvg.New(20*vg.Centimeter, 7*vg.Centimeter)
	tiles := draw.Tiles{Cols: 2, Rows: 1, PadX: 8 * vg.Millimeter, PadTop: 2 * vg.Millimeter, PadRight: 4 * vg.Millimeter, PadLeft: 2 * vg.Millimeter, PadBottom: 2 * vg.Millimeter}
	for i, c := range plot.Align([][]*plot.Plot{{held, heap}}, tiles, draw.New(canvas))[0] {
		[]*plot.Plot{held, heap}[i].Draw(c)
	}
	return canvas, nil
}

func panel(title, unit string, all []*series, of func(*series) plotter.XYs) (*plot.Plot, error) {
	p := plot.New()
	p.BackgroundColor = color.White // also where pages are dark
	p.Title.Text = title
	p.X.Label.Text = "time (s)"
	p.Y.Label.Text = unit
	p.X.Min, p.Y.Min = 0, 0
	p.X.Tick.Marker, p.Y.Tick.Marker = ticks{}, ticks{}
	p.Add(plotter.NewGrid())
	top := 0.0
	for i, s := range all {
		line, err := plotter.NewLine(of(s))
		if err != nil {
			return nil, err
		}
		line.Color = colors[i%len(colors)]
		line.Width = vg.Points(1.5)
		p.Add(line)
		p.Legend.Add(s.library, line)
		for _, at := range of(s) {
			top = max(top, at.Y)
		}
	}
	p.Y.Max = max(1.35*top, 1) // room for the legend
	p.Legend.Top = true
	p.Legend.Left = true
	p.Legend.Padding = vg.Millimeter
	return p, nil
}

// ticks are the default ones, without decimals that say nothing.
type ticks struct{ plot.DefaultTicks }

func (t ticks) Ticks(lowest, highest float64) []plot.Tick {
	all := t.DefaultTicks.Ticks(lowest, highest)
	for i, tick := range all {
		if !tick.IsMinor() {
			all[i].Label = strconv.FormatFloat(tick.Value, 'g', 6, 64)
		}
	}
	return all
}
