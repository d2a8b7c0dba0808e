package main

import (
	"cmp"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// A mark is a thin vertical line where something happened, and its name.
type mark struct {
	event
	of    int         // the series; -1: of more than one
	color color.Color // of the series
	row   int         // of the name, from below; -1: it has none
}

const (
	together  = 0.04 // of the width: events of two series that are one in the picture
	rowHeight = 1.3 * fontSize
	mostRows  = 3                  // of names; if there are more, each name is drawn once
	plain     = 66 * vg.Millimeter // at least so wide is a panel where names go
	high      = 55 * vg.Millimeter // and at least so high
)

// share is how much of the height of a panel the names of the marks take.
func share(rows int) float64 { return float64(rows) * float64(rowHeight) / float64(high) }

// rows is how many rows the names of the marks take.
func rows(marks []mark) (n int) {
	for _, m := range marks {
		n = max(n, m.row+1)
	}
	return n
}

// marks are the events of all series, those of one name that nearly coincide as
// one. Of those that come again and again only the first has its name drawn.
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
	if rows(marks) > mostRows { // the colours say enough
		for i := range marks {
			if slices.ContainsFunc(marks, func(m mark) bool { return m.row >= 0 && m.name == marks[i].name && m.of < marks[i].of }) {
				marks[i].row = -1
			}
		}
		arrange(marks, width)
	}
	return marks
}

// arrange puts the names into rows so that none is upon another. A line goes up
// to its name, which begins to the right of it, or ends to the left of it if the
// panel does. So from the right to the left each name goes into the lowest row
// where no line is in the way either. If all rows have one, the name hides it.
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

// overlaps says whether the names of m and o are upon each other.
func (m mark) overlaps(o mark, width float64) bool {
	from, to := m.span(width)
	oFrom, oTo := o.span(width)
	return m.row == o.row && from < oTo && oFrom < to
}

// crosses says whether the line of m crosses the name of o.
func (m mark) crosses(o mark, width float64) bool {
	from, to := o.span(width)
	return o.row >= 0 && m.row > o.row && from < m.at && m.at < to
}

// span is where the name is, in seconds.
func (m mark) span(width float64) (from, to float64) {
	long := float64((style(fontSize, ink).Width(m.name)+2*gap)/plain) * width
	if m.at+long > width {
		return m.at - long, m.at
	}
	return m.at, m.at + long
}

const gap = vg.Length(2) // between a line and its name

// A band draws the marks, their names in rows at the top of the panel.
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
