package main

import (
	"bytes"
	"cmp"
	"fmt"
	"image/color"
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/quiclife/quiclife/ledger"
)

const (
	mostSpells = 256 // for each connection
	mostPanels = 6
)

// A moment says how many streams of each kind and share were held at one time.
type moment struct {
	at int64 // nanoseconds since 1970
	by [4][shares]int32
}

func (m *moment) sum() (n int64) {
	for _, by := range m.by {
		n += sumOf(by)
	}
	return n
}

func sumOf(by [shares]int32) (n int64) {
	for _, m := range by {
		n += int64(m)
	}
	return n
}

// A spell is a stretch of time. peak is the moment in it at which the most streams
// were held. last is its last moment, which is valid until the next spell begins.
type spell struct{ peak, last moment }

// A sampler looks at the connections of a file while it is read. A file does not
// say at the start how much time it covers. So the spells begin short, and become
// longer.
type sampler struct {
	conns map[*ledger.Conn]*samples
	// Each look takes time in proportion to the streams. So the sampler may look at
	// streamsAtFirst streams at once, and after that, on average, at
	// streamsPerEvent streams for each event.
	spent, events int64
}

type samples struct {
	began, length int64 // nanoseconds
	spells        []spell
	streams       int64 // how many streams the last look counted
}

const (
	streamsAtFirst  = 1 << 20 // about a second
	streamsPerEvent = 4
)

// each is the callback for ledger.Read.
func (s *sampler) each(c *ledger.Conn, at time.Time) error {
	of := s.conns[c]
	if of == nil {
		if s.conns == nil {
			s.conns = make(map[*ledger.Conn]*samples)
		}
		of = &samples{began: at.UnixNano(), length: int64(time.Millisecond)}
		s.conns[c] = of
	}
	s.events++
	if s.spent+of.streams <= streamsAtFirst+s.events*streamsPerEvent {
		of.look(c, at.UnixNano())
		s.spent += of.streams
	}
	return nil
}

func (s *samples) look(c *ledger.Conn, at int64) {
	r := c.Report()
	s.streams = 0
	m := moment{at: max(at, s.began)}
	for i, t := range tallies(&r, c.Streams(), func(ledger.Stream) { s.streams++ }) {
		for j, n := range t.by {
			m.by[i][j] = int32(min(n, math.MaxInt32))
		}
	}
	if n := len(s.spells); n > 0 {
		m.at = max(m.at, s.spells[n-1].last.at) // times must not go back, even if a clock does
	}
	s.add(spell{m, m})
	for len(s.spells) >= mostSpells {
		s.length *= 2
		all := s.spells
		s.spells = all[:0]
		for _, next := range all {
			s.add(next)
		}
	}
}

// add appends next, or merges it into the last spell if it is in the same stretch
// of time.
func (s *samples) add(next spell) {
	if n := len(s.spells); n > 0 {
		last := &s.spells[n-1]
		if (last.last.at-s.began)/s.length == (next.last.at-s.began)/s.length {
			if next.peak.sum() > last.peak.sum() {
				last.peak = next.peak
			}
			last.last = next.last
			return
		}
	}
	s.spells = append(s.spells, next)
}

// A panel shows one kind of streams of a connection over time.
type panel struct {
	title   string
	limit   int64 // -1 if it is not known
	began   int64
	times   []float64 // seconds
	by      [][shares]int32
	highest int64
}

// plots has the panels with the most streams, from all files.
type plots struct{ panels []*panel }

func (p *plots) add(s *sampler, conns []*ledger.Conn) {
	for _, c := range conns {
		of := s.conns[c]
		if of == nil {
			continue // it had no events
		}
		r := c.Report()
		last := of.spells[len(of.spells)-1].last.at
		if !r.Ended.IsZero() {
			last = max(last, r.Ended.UnixNano())
		}
		of.look(c, last)
		for i, count := range countsOf(&r) {
			end := "server"
			if r.Client {
				end = "client"
			}
			next := &panel{
				title: fmt.Sprintf("%s streams held, at the %s of %s", kindNames[i], end, harmless(cmp.Or(r.ID, "?"), 12)),
				limit: count.Limit, began: of.began,
			}
			if count.Opened > 0 || i == 0 {
				next.take(of.spells, i)
				p.panels = append(p.panels, next)
			}
		}
		slices.SortStableFunc(p.panels, func(a, b *panel) int { return cmp.Compare(b.highest, a.highest) })
		if len(p.panels) > mostPanels {
			clear(p.panels[mostPanels:])
			p.panels = p.panels[:mostPanels]
		}
		for len(p.panels) > 1 && p.panels[len(p.panels)-1].highest == 0 {
			p.panels = p.panels[:len(p.panels)-1]
		}
	}
}

func (p *panel) take(spells []spell, kind int) {
	for _, s := range spells {
		p.point(s.peak.at, s.peak.by[kind])
		p.point(s.last.at, s.last.by[kind])
	}
}

func (p *panel) point(at int64, by [shares]int32) {
	p.times = append(p.times, float64(at-p.began)/1e9)
	p.by = append(p.by, by)
	p.highest = max(p.highest, sumOf(by))
}

func (p *plots) write(name string) error {
	const width, height, legend = 23 * vg.Centimeter, 7 * vg.Centimeter, 5 * vg.Centimeter
	canvas := vgsvg.New(width, height*vg.Length(len(p.panels)))
	all := draw.New(canvas)
	tiles := draw.Tiles{Cols: 1, Rows: len(p.panels), PadY: 6 * vg.Millimeter, PadTop: 3 * vg.Millimeter, PadLeft: 2 * vg.Millimeter, PadBottom: 2 * vg.Millimeter}
	left := draw.Crop(all, 0, -legend, 0, 0)
	pictures, legends := make([][]*plot.Plot, len(p.panels)), make([]plot.Legend, len(p.panels))
	for i, panel := range p.panels {
		picture, l, err := panel.paint()
		if err != nil {
			return err
		}
		pictures[i], legends[i] = []*plot.Plot{picture}, l
	}
	for i, c := range plot.Align(pictures, tiles, left) {
		pictures[i][0].Draw(c[0])
		beside := c[0]
		beside.Min.X, beside.Max.X = width-legend, width-2*vg.Millimeter
		beside.Max.Y -= 8 * vg.Millimeter
		legends[i].Draw(beside)
	}
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o666)
}

// colors can be told apart by colour-blind people.
var colors = [shares]color.Color{
	shareOurApp:   color.RGBA{R: 0xd5, G: 0x5e, A: 0xff},
	sharePeerApp:  color.RGBA{G: 0x72, B: 0xb2, A: 0xff},
	shareWire:     color.RGBA{R: 0xf0, G: 0xe4, B: 0x42, A: 0xff},
	shareComplete: color.RGBA{G: 0x9e, B: 0x73, A: 0xff},
	shareUnknown:  color.RGBA{R: 0xbb, G: 0xbb, B: 0xbb, A: 0xff},
}

var legendNames = [shares]string{
	shareOurApp: "our application", sharePeerApp: "peer's application", shareWire: "network", shareComplete: "complete", shareUnknown: "unknown",
}

// paint draws the shares on top of each other.
func (p *panel) paint() (*plot.Plot, plot.Legend, error) {
	picture, legend := plot.New(), plot.NewLegend()
	legend.Top, legend.Left = true, true
	legend.Padding = vg.Millimeter
	picture.BackgroundColor = color.White // even on dark pages
	picture.Title.Text = p.title
	picture.X.Label.Text = "seconds from " + time.Unix(0, p.began).Format(timeFormat)
	picture.Y.Label.Text = "streams"
	picture.X.Tick.Marker, picture.Y.Tick.Marker = ticks{}, ticks{whole: true}
	picture.Add(plotter.NewGrid())
	sums := make([]float64, len(p.times))
	var areas []plot.Plotter
	for _, s := range shareOrder {
		points, some := make(plotter.XYs, len(p.times)), false
		for i, by := range p.by {
			sums[i] += float64(by[s])
			some = some || by[s] > 0
			points[i] = plotter.XY{X: p.times[i], Y: sums[i]}
		}
		if !some {
			continue
		}
		area, err := plotter.NewLine(points)
		if err != nil {
			return nil, legend, err
		}
		area.StepStyle = plotter.PostStep
		area.LineStyle.Width = 0
		area.FillColor = colors[s]
		areas = append(areas, area)
		legend.Add(legendNames[s], area)
	}
	slices.Reverse(areas) // the lower ones cover the higher ones
	picture.Add(areas...)
	last := max(p.times[len(p.times)-1], 1e-3)
	picture.X.Min, picture.X.Max = 0, last
	picture.Y.Min, picture.Y.Max = 0, 1.1*max(float64(p.highest), 1)
	if p.limit >= 0 {
		line, err := plotter.NewLine(plotter.XYs{{X: 0, Y: float64(p.limit)}, {X: last, Y: float64(p.limit)}})
		if err != nil {
			return nil, legend, err
		}
		line.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
		line.Width = vg.Points(1.2)
		name := "limit " + grouped(p.limit)
		if p.limit <= 10*max(p.highest, 1) {
			picture.Add(line)
			picture.Y.Max = max(picture.Y.Max, 1.1*float64(p.limit))
		} else {
			name += ", above"
		}
		legend.Add(name, line)
	}
	return picture, legend, nil
}

// ticks are the default ticks without useless decimals.
type ticks struct {
	plot.DefaultTicks
	whole bool // only whole numbers
}

func (t ticks) Ticks(lowest, highest float64) (all []plot.Tick) {
	for _, tick := range t.DefaultTicks.Ticks(lowest, highest) {
		if t.whole && tick.Value != math.Round(tick.Value) {
			continue
		}
		if !tick.IsMinor() {
			tick.Label = strconv.FormatFloat(tick.Value, 'g', 6, 64)
		}
		all = append(all, tick)
	}
	return all
}
