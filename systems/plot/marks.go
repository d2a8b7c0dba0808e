package main

import (
	"cmp"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// A mark is a thin vertical line where something happened, with a name.
type mark struct {
	event
	of    int         // the series; -1 if several series have the event
	color color.Color // the colour of the series
	row   int         // the row of the name, from below; -1 if the name is not drawn
}

const (
	together  = 0.04 // events of two series are drawn as one if they are this close, as a share of the width
	rowHeight = 1.3 * fontSize
	mostRows  = 3                  // if the names need more rows, each name is drawn only once
	plain     = 66 * vg.Millimeter // the least width of a panel's drawing area
	high      = 55 * vg.Millimeter // the least height of a panel's drawing area
)

// share returns the share of a panel's height that rows of names take.
func share(rows int) float64 { return float64(rows) * float64(rowHeight) / float64(high) }

// rows returns how many rows the names of the marks take.
func rows(marks []mark) (n int) {
	for _, m := range marks {
		n = max(n, m.row+1)
	}
	return n
}

// marks returns a mark for each event of all series. If two series have an event
// of the same name at nearly the same time, both share a mark. If a series has
// several events of the same name, only the first mark has the name drawn.
func (p picture) marks() (marks []mark) {
	width := p.last()
	for i, s := range p.all {
		named := make(map[string]bool)
		for _, e := range s.events {
			same := slices.IndexFunc(marks, func(m mark) bool {
				return m.name == e.name && m.of != i && max(m.at-e.at, e.at-m.at) < together*width
			})
			if same >= 0 {
				marks[same].of, marks[same].color = -1, middle
			} else {
				m := mark{event: e, of: i, color: p.colorOf(i)}
				if named[e.name] {
					m.row = -1
				}
				marks = append(marks, m)
			}
			named[e.name] = true
		}
	}
	slices.SortStableFunc(marks, func(a, b mark) int { return cmp.Compare(a.at, b.at) })
	arrange(marks, width)
	if rows(marks) > mostRows { // draw each name once; the colours tell the series apart
		for i := range marks {
			if slices.ContainsFunc(marks, func(m mark) bool { return m.row >= 0 && m.name == marks[i].name && m.of < marks[i].of }) {
				marks[i].row = -1
			}
		}
		arrange(marks, width)
	}
	return marks
}

// arrange puts the names into rows so that they do not overlap. A line goes up to
// its name. The name stands to the right of its line, or to the left if there is
// no room on the right. arrange places the names from right to left. Each goes
// into the lowest row in which it overlaps no name and crosses no line. If every
// free row has a line in the way, the name covers that line.
func arrange(marks []mark, width float64) {
	for i := len(marks) - 1; i >= 0; i-- {
		m := &marks[i]
		if m.row < 0 {
			continue
		}
		var free, best []int
		for m.row = range marks {
			if !slices.ContainsFunc(marks[i+1:], func(o mark) bool { return m.overlaps(o, width) }) {
				free = append(free, m.row)
				if !slices.ContainsFunc(marks[i+1:], func(o mark) bool { return m.crosses(o, width) || o.crosses(*m, width) }) {
					best = append(best, m.row)
				}
			}
		}
		m.row = append(best, free...)[0]
	}
}

// overlaps reports whether the names of m and o overlap.
func (m mark) overlaps(o mark, width float64) bool {
	from, to := m.span(width)
	oFrom, oTo := o.span(width)
	return m.row == o.row && from < oTo && oFrom < to
}

// crosses reports whether the line of m crosses the name of o.
func (m mark) crosses(o mark, width float64) bool {
	from, to := o.span(width)
	return o.row >= 0 && m.row > o.row && from < m.at && m.at < to
}

// span returns where the name begins and ends, in seconds.
func (m mark) span(width float64) (from, to float64) {
	long := float64((style(fontSize, ink).Width(m.name)+2*gap)/plain) * width
	if m.at+long > width {
		return m.at - long, m.at
	}
	return m.at, m.at + long
}

const gap = vg.Length(2) // the distance between a line and its name

// A band draws the marks. Their names are in rows at the top of the panel.
type band struct{ marks []mark }

func (b band) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	bottom := c.Max.Y - vg.Length(share(rows(b.marks)))*(c.Max.Y-c.Min.Y)
	for _, m := range b.marks {
		at := x(m.at)
		line := draw.LineStyle{Color: m.color, Width: vg.Points(0.75), Dashes: []vg.Length{2, 2}}
		c.StrokeLine2(line, at, c.Min.Y, at, bottom+vg.Length(m.row+1)*rowHeight)
	}
	for _, m := range b.marks {
		if m.row < 0 {
			continue
		}
		from := vg.Point{X: x(m.at) + gap, Y: bottom + vg.Length(m.row+1)*rowHeight}
		st := style(fontSize, m.color)
		if at, _ := m.span(p.X.Max); at < m.at {
			from.X -= st.Width(m.name) + 2*gap
		}
		to := vg.Point{X: from.X + st.Width(m.name), Y: from.Y - rowHeight}
		c.FillPolygon(color.White, []vg.Point{from, {X: to.X, Y: from.Y}, to, {X: from.X, Y: to.Y}})
		c.FillText(st, from, m.name)
	}
}
