package main

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"math"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A panel is a panel of the dashboard, with the lines that it shows.
type panel struct {
	Title       string
	GridPos     struct{ X, Y int }
	Targets     []struct{ Expr, LegendFormat string }
	FieldConfig struct{ Defaults struct{ Unit string } }
	lines       []line
}

type line struct {
	name   string
	points [][2]float64 // seconds since the start, value
}

// drawBoard asks Prometheus the queries of the dashboard's panels, for the faulty
// program, and draws the answers.
func drawBoard(ctx context.Context, p *prometheus, dashboard, file string, start time.Time) error {
	text, err := os.ReadFile(dashboard)
	if err != nil {
		return err
	}
	var board struct{ Panels []*panel }
	if err := json.Unmarshal(text, &board); err != nil {
		return err
	}
	end := time.Now()
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			found, err := p.get(ctx, "/api/v1/query_range", url.Values{
				"query": {concrete(target.Expr)},
				"start": {unix(start)}, "end": {unix(end)}, "step": {"1"},
			})
			if err != nil {
				return err
			}
			for _, s := range found {
				l := line{name: legend(target.LegendFormat, s.Metric)}
				for _, v := range s.Values {
					l.points = append(l.points, [2]float64{v.at() - float64(start.UnixMilli())/1000, v.value()})
				}
				panel.lines = append(panel.lines, l)
			}
		}
		slices.SortStableFunc(panel.lines, func(a, b line) int { return strings.Compare(a.name, b.name) })
	}
	return os.WriteFile(file, []byte(paint(board.Panels, end.Sub(start).Seconds())), 0o644)
}

func unix(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

// concrete replaces the variables of the dashboard, as Grafana does. Rates are
// over four scrapes.
func concrete(expr string) string {
	return strings.NewReplacer("$job", programs[0].name, "$instance", ".*", "$guard", ".*",
		"$__rate_interval", fmt.Sprintf("%dms", 4*scraped.Milliseconds())).Replace(expr)
}

var variable = regexp.MustCompile(`\{\{(\w+)\}\}`)

func legend(format string, labels map[string]string) string {
	return variable.ReplaceAllStringFunc(format, func(v string) string { return labels[strings.Trim(v, "{}")] })
}

// Sizes and places in the picture, in pixels.
const (
	width, head           = 980, 40
	panelWidth, panelHigh = 484, 224
	plotLeft, plotRight   = 52, 470 // in a panel
	plotTop, plotBottom   = 34, 150
	legendTop             = 184
)

// colors can be told apart by people who are colour-blind.
var colors = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b6475", "#000000"}

// units maps the dashboard's names of units to what the picture shows.
var units = map[string]string{"ops": "/s", "s": " s"}

// paint draws the panels where the dashboard has them.
func paint(panels []*panel, seconds float64) string {
	rows := 0
	for _, p := range panels {
		rows = max(rows, p.GridPos.Y/8+1)
	}
	var b strings.Builder
	high := head + rows*(panelHigh+8) + 8
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="11">`+"\n", width, high)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#f5f6f8"/>`+"\n", width, high)
	fmt.Fprintf(&b, `<text x="8" y="25" font-size="14" font-weight="600" fill="#1c2230">The queries of metrics/dashboard.json, on a program that leaks and hoards streams; one second stands for %v minutes</text>`+"\n", faster/60)
	for _, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", 4+p.GridPos.X/12*(panelWidth+4), head+p.GridPos.Y/8*(panelHigh+8))
		p.paint(&b, seconds)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (p *panel) paint(b *strings.Builder, seconds float64) {
	fmt.Fprintf(b, `<rect width="%d" height="%d" rx="6" fill="#fff" stroke="#dde1e8"/><text x="12" y="21" font-size="13" font-weight="600" fill="#1c2230">%s</text>`+"\n",
		panelWidth, panelHigh, html.EscapeString(p.Title))
	top := 0.0
	for _, l := range p.lines {
		for _, v := range l.points {
			top = max(top, v[1])
		}
	}
	x := func(s float64) float64 { return plotLeft + s/seconds*(plotRight-plotLeft) }
	yStep, xStep := step(max(top, 1), 4), step(seconds, 8)
	top = max(math.Ceil(top/yStep), 1) * yStep
	y := func(v float64) float64 { return plotBottom - v/top*(plotBottom-plotTop) }
	for v := 0.0; v <= top*1.001; v += yStep {
		fmt.Fprintf(b, `<path d="M%d %.1fH%d" stroke="#e6e9ef"/><text x="%d" y="%.1f" text-anchor="end" fill="#5b6475">%s</text>`+"\n",
			plotLeft, y(v), plotRight, plotLeft-6, y(v)+4, strconv.FormatFloat(v, 'g', 6, 64)+units[p.FieldConfig.Defaults.Unit])
	}
	for s := 0.0; s <= seconds; s += xStep {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#5b6475">%g s</text>`+"\n", x(s), plotBottom+15, s)
	}
	at := 12
	row := legendTop
	for i, l := range p.lines {
		color := colors[i%len(colors)]
		var path strings.Builder
		last := math.Inf(-1)
		for _, v := range l.points {
			op := "L"
			if v[0]-last > 1.5 { // there is a gap in the data
				op = "M"
			}
			last = v[0]
			fmt.Fprintf(&path, "%s%.1f %.1f", op, x(v[0]), y(v[1]))
		}
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.5" stroke-linejoin="round"/>`+"\n", path.String(), color)
		long := 30 + 6*len(l.name)
		if at+long > panelWidth-4 {
			at, row = 12, row+15
		}
		fmt.Fprintf(b, `<path d="M%d %dh12" stroke="%s" stroke-width="3"/><text x="%d" y="%d" fill="#1c2230">%s</text>`+"\n",
			at, row-4, color, at+16, row, html.EscapeString(l.name))
		at += long
	}
}

// step returns a round distance between ticks, with at most n steps up to top.
func step(top float64, n int) float64 {
	base := math.Pow(10, math.Floor(math.Log10(top/float64(n))))
	for _, m := range []float64{1, 2, 5} {
		if base*m*float64(n) >= top {
			return base * m
		}
	}
	return 10 * base
}
