package main

import (
	"bytes"
	"image/color"
	"math"
	"regexp"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A picture has two panels side by side. Each panel shows all series.
type picture struct {
	title    string
	requests bool // the second panel shows requests instead of the heap
	all      []*series
}

const (
	pageWidth, pageHeight = 20 * vg.Centimeter, 9 * vg.Centimeter
	margin                = 3 * vg.Millimeter
	fontSize              = 9.5 // small, because pages show the picture a third larger
)

// These colours can be told apart by people who are colour-blind.
var (
	orange = color.RGBA{R: 0xd5, G: 0x5e, A: 0xff}
	green  = color.RGBA{G: 0x9e, B: 0x73, A: 0xff}
	blue   = color.RGBA{G: 0x72, B: 0xb2, A: 0xff}
	ink    = color.Gray{0x20}
	pale   = color.Gray{0xdd}
	middle = color.Gray{0x70}
)

// colorOf returns the colour of series i. The first series is quic-go, and the
// last is quiclife.
func (p picture) colorOf(i int) color.Color {
	switch i {
	case 0:
		return orange
	case len(p.all) - 1:
		return blue
	}
	return green
}

// paint returns the picture as SVG.
func (p picture) paint() ([]byte, error) {
	canvas := vgsvg.New(pageWidth, pageHeight)
	page := draw.New(canvas)
	page.FillPolygon(color.White, []vg.Point{page.Min, {X: page.Max.X, Y: page.Min.Y}, page.Max, {X: page.Min.X, Y: page.Max.Y}}) // a white background, on dark pages too
	page = draw.Crop(page, margin, -margin, margin, -margin)

	top := page.Max.Y
	for _, l := range []func(draw.Canvas, vg.Length) vg.Length{p.drawTitle, p.drawLegend} {
		top -= l(page, top)
	}
	marks := p.marks()
	held, err := p.panel("streams that quic-go holds, both ends", marks, func(s *series) plotter.XYs { return s.held })
	if err != nil {
		return nil, err
	}
	title, of := "live heap, MiB", func(s *series) plotter.XYs { return s.heap }
	if p.requests {
		title, of = "requests answered", func(s *series) plotter.XYs { return s.requests }
	}
	second, err := p.panel(title, marks, of)
	if err != nil {
		return nil, err
	}
	tiles := draw.Tiles{Cols: 2, Rows: 1, PadX: 6 * vg.Millimeter}
	below := draw.Crop(page, 0, 0, 0, top-page.Max.Y)
	panels := []*plot.Plot{held, second}
	for i, c := range plot.Align([][]*plot.Plot{panels}, tiles, below)[0] {
		panels[i].Draw(c)
	}
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, err
	}
	return fit(b.Bytes()), nil
}

// style returns the style of a text. The text is placed by its top left corner.
func style(size vg.Length, c color.Color) text.Style {
	return text.Style{
		Color: c, Font: font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, size),
		XAlign: draw.XLeft, YAlign: draw.YTop, Handler: plot.DefaultTextHandler,
	}
}

// drawTitle draws the title below top, and returns its height.
func (p picture) drawTitle(c draw.Canvas, top vg.Length) vg.Length {
	c.FillText(style(fontSize+2, ink), vg.Point{X: c.Min.X, Y: top}, p.title)
	return 1.5 * (fontSize + 2)
}

func (p picture) drawLegend(c draw.Canvas, top vg.Length) vg.Length {
	x := c.Min.X
	for i, s := range p.all {
		y := top - fontSize/2
		c.StrokeLine2(draw.LineStyle{Color: p.colorOf(i), Width: vg.Points(2)}, x, y, x+5*vg.Millimeter, y)
		x += 6 * vg.Millimeter
		st := style(fontSize, ink)
		c.FillText(st, vg.Point{X: x, Y: top}, s.library)
		x += st.Width(s.library) + 8*vg.Millimeter
	}
	return 1.8 * fontSize
}

// panel returns a plot of all series. of returns the points of a series.
func (p picture) panel(title string, marks []mark, of func(*series) plotter.XYs) (*plot.Plot, error) {
	panel := plot.New()
	panel.BackgroundColor = nil
	panel.Title.Text = title
	panel.Title.TextStyle = style(fontSize, ink)
	panel.Title.TextStyle.XAlign = draw.XCenter
	panel.Title.Padding = 2
	panel.X.Label.Text = "seconds"
	panel.X.Label.TextStyle.Font = style(fontSize, ink).Font
	for _, a := range []*plot.Axis{&panel.X, &panel.Y} {
		a.Min = 0
		a.Tick.Label.Font = style(fontSize, ink).Font
		a.Tick.Label.Color = ink
		a.Padding = 0
		a.Color = middle
		a.Tick.Length = 3
		a.Tick.Color = middle
	}
	panel.Y.Width, panel.Y.Tick.Width = 0, 0 // the grid is enough
	grid := plotter.NewGrid()
	grid.Vertical.Color = nil
	grid.Horizontal = draw.LineStyle{Color: pale, Width: vg.Points(0.75)}
	panel.Add(grid, band{marks: marks})

	top := 0.0
	for i, s := range p.all {
		line, err := plotter.NewLine(of(s))
		if err != nil {
			return nil, err
		}
		line.Color = p.colorOf(i)
		line.Width = vg.Points(1.75)
		panel.Add(line)
		for _, at := range of(s) {
			top = max(top, at.Y)
		}
	}
	top = max(1.05*top, 1)
	panel.X.Max, panel.Y.Max = p.last(), top/(1-share(rows(marks)))
	panel.X.Tick.Marker, panel.Y.Tick.Marker = ticks{p.last(), 9}, ticks{top, 5}
	return panel, nil
}

// last returns the time of the last sample of the longest run.
func (p picture) last() (last float64) {
	for _, s := range p.all {
		for _, at := range s.held {
			last = max(last, at.X)
		}
	}
	return last
}

// ticks places the ticks of an axis. There are none above highest, where the
// names of events are.
type ticks struct {
	highest float64
	most    int // steps
}

func (t ticks) Ticks(float64, float64) (all []plot.Tick) {
	step := math.Pow(10, math.Floor(math.Log10(t.highest)))
	for t.highest/step < float64(t.most) {
		step /= 10
	}
	for i := 0; t.highest/step > float64(t.most); i++ {
		step *= []float64{2, 2.5, 2}[i%3] // 1, 2, 5, 10
	}
	for i := 0.0; i*step <= t.highest; i++ {
		all = append(all, plot.Tick{Value: i * step, Label: grouped(i * step)})
	}
	return all
}

// grouped returns v as text, with a comma between thousands.
func grouped(v float64) string {
	if v != float64(int(v)) {
		return strconv.FormatFloat(v, 'g', 6, 64)
	}
	s := strconv.Itoa(int(v))
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

var texts = regexp.MustCompile(`(?s)<text (.*?)font-family:Liberation Sans;(.*?)font-size:([0-9.]+)px(.*?)>(.*?)</text>`)

// fit gives each text in the SVG the width that was computed for it. So the
// layout holds with any font that the viewer has.
func fit(svg []byte) []byte {
	return texts.ReplaceAllFunc(svg, func(b []byte) []byte {
		m := texts.FindSubmatch(b)
		size, err := strconv.ParseFloat(string(m[3]), 64)
		if err != nil {
			return b
		}
		width := style(vg.Length(size), ink).Width(string(m[5]))
		return bytes.Join([][]byte{
			[]byte(`<text textLength="` + strconv.FormatFloat(width.Points(), 'f', 1, 64) + `" lengthAdjust="spacingAndGlyphs" `), m[1],
			[]byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"), m[2],
			[]byte("font-size:"), m[3], []byte("px"), m[4], []byte(">"), m[5], []byte("</text>"),
		}, nil)
	})
}
