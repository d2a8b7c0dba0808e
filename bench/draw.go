package main

import (
	"image/color"
	"math"
	"os"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The colour-blind can tell these colors apart, too. systems/plot uses the first
// two.
var colors = []color.Color{
	color.RGBA{R: 0xd5, G: 0x5e, A: 0xff},
	color.RGBA{G: 0x72, B: 0xb2, A: 0xff},
	color.RGBA{G: 0x9e, B: 0x73, A: 0xff},
	color.RGBA{R: 0xcc, G: 0x79, B: 0xa7, A: 0xff},
	color.RGBA{R: 0xe6, G: 0x9f, A: 0xff},
	color.RGBA{R: 0x56, G: 0xb4, B: 0xe9, A: 0xff},
}

// drawFigures draws the measures of all subjects.
func drawFigures(file string, subjects []subject, all results) error {
	var panels [][]*plot.Plot
	for _, pair := range [][]string{
		{"one at a time: time", "64 at a time: CPU"},
		{"throughput", "heap of an open stream, both ends"},
	} {
		var line []*plot.Plot
		for _, name := range pair {
			var p *plot.Plot
			var err error
			switch name {
			case "throughput":
				p, err = drawThroughput(subjects, all)
			case "heap of an open stream, both ends":
				p, err = drawBars(name, "bytes", 1, subjects, all[name])
			default:
				p, err = drawBars("request and answer, "+name, "µs", 1e3, subjects, all[name])
			}
			if err != nil {
				return err
			}
			line = append(line, p)
		}
		panels = append(panels, line)
	}
	return save(file, panels)
}

func newPlot(title, unit string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.White // even on a dark page
	p.Title.Text = title
	p.Y.Label.Text = unit
	p.Y.Min = 0
	p.Y.Tick.Marker = ticks{}
	p.Legend.Top = true
	p.Legend.Padding = vg.Millimeter
	return p
}

// drawBars draws a bar for each subject that has values, with their median and
// quartiles.
func drawBars(title, unit string, by float64, subjects []subject, values map[string][]float64) (*plot.Plot, error) {
	p := newPlot(title, unit)
	var short []string
	for i, s := range subjects {
		if len(values[s.name]) == 0 {
			continue
		}
		at := float64(len(short))
		if err := addBar(p, values[s.name], by, at, 12*vg.Millimeter, 0, colors[i%len(colors)]); err != nil {
			return nil, err
		}
		if err := addQuartiles(p, values[s.name], by, at); err != nil {
			return nil, err
		}
		short = append(short, s.short)
	}
	p.Y.Max *= 1.05
	p.NominalX(short...)
	return p, nil
}

// drawThroughput draws the throughput in proportion to quic-go's.
func drawThroughput(subjects []subject, all results) (*plot.Plot, error) {
	p := newPlot("throughput by size of a Write", "times "+baseline)
	var short []string
	width := 15 * vg.Millimeter / vg.Length(len(subjects))
	for at, size := range sizes {
		name := throughputName(size)
		short = append(short, sizeName(size))
		for i, s := range subjects {
			if len(all[name][s.name]) == 0 {
				continue
			}
			offset := (vg.Length(i) - vg.Length(len(subjects)-2)/2) * width
			if err := addBar(p, all.ratios(name, s.name), 1, float64(at), width, offset, colors[i%len(colors)]); err != nil {
				return nil, err
			}
		}
	}
	for i, s := range subjects {
		if s.library != nil {
			bar, err := plotter.NewBarChart(plotter.Values{0}, width)
			if err != nil {
				return nil, err
			}
			bar.Color = colors[i%len(colors)]
			p.Legend.Add(s.name, bar)
		}
	}
	p.Legend.Left = true
	p.Y.Max *= 2.4 // room for the legend
	p.NominalX(short...)
	return p, nil
}

// addBar adds a bar as high as the median of xs.
func addBar(p *plot.Plot, xs []float64, by, at float64, width, offset vg.Length, c color.Color) error {
	if math.IsNaN(median(xs)) {
		return nil
	}
	bar, err := plotter.NewBarChart(plotter.Values{median(xs) / by}, width)
	if err != nil {
		return err
	}
	bar.Color, bar.LineStyle.Width = c, 0
	bar.XMin, bar.Offset = at, offset
	p.Add(bar)
	return nil
}

func addQuartiles(p *plot.Plot, xs []float64, by, at float64) error {
	m := median(xs)
	if math.IsNaN(m) {
		return nil
	}
	bars, err := plotter.NewYErrorBars(struct {
		plotter.XYs
		plotter.YErrors
	}{
		plotter.XYs{{X: at, Y: m / by}},
		plotter.YErrors{{Low: (m - quantile(xs, 0.25)) / by, High: (quantile(xs, 0.75) - m) / by}},
	})
	if err != nil {
		return err
	}
	p.Add(bars)
	return nil
}

// drawLines draws lines over the number of connections. Each has a median and
// quartiles at each of xs.
func drawLines(title, unit string, by float64, xs []int, lines map[string][][]float64, order []string) (*plot.Plot, error) {
	p := newPlot(title, unit)
	p.X.Label.Text = "connections"
	p.X.Scale = plot.LogScale{}
	p.X.Tick.Marker = connTicks(xs)
	p.Add(plotter.NewGrid())
	top := 0.0
	for i, name := range order {
		var at plotter.XYs
		for j, values := range lines[name] {
			if len(values) > 0 {
				at = append(at, plotter.XY{X: float64(xs[j]), Y: median(values) / by})
				top = max(top, median(values)/by)
			}
		}
		if len(at) == 0 {
			continue
		}
		line, points, err := plotter.NewLinePoints(at)
		if err != nil {
			return nil, err
		}
		line.Color, points.Color = colors[i%len(colors)], colors[i%len(colors)]
		line.Width = vg.Points(1.5)
		points.Shape = draw.CircleGlyph{}
		p.Add(line, points)
		p.Legend.Add(name, line)
	}
	p.Y.Max = max(1.4*top, 1e-3) // room for the legend
	p.Legend.Left = true
	return p, nil
}

// save draws panels into an SVG file.
func save(file string, panels [][]*plot.Plot) error {
	rows, cols := len(panels), len(panels[0])
	canvas := vgsvg.New(vg.Length(cols)*11*vg.Centimeter, vg.Length(rows)*7*vg.Centimeter)
	pad := 3 * vg.Millimeter
	tiles := draw.Tiles{Rows: rows, Cols: cols, PadX: 6 * vg.Millimeter, PadY: 6 * vg.Millimeter, PadTop: pad, PadBottom: pad, PadLeft: pad, PadRight: pad}
	for i, line := range plot.Align(panels, tiles, draw.New(canvas)) {
		for j, c := range line {
			panels[i][j].Draw(c)
		}
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// ticks are the default ticks, without useless decimals.
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

// connTicks are ticks at the numbers of connections that were measured.
type connTicks []int

func (t connTicks) Ticks(float64, float64) (all []plot.Tick) {
	for _, n := range t {
		all = append(all, plot.Tick{Value: float64(n), Label: strconv.Itoa(n)})
	}
	return all
}
