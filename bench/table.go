package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// row writes a row of a markdown table.
func row(w io.Writer, cells ...string) {
	fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
}

func header(w io.Writer, cells ...string) {
	row(w, cells...)
	fmt.Fprintf(w, "|%s\n", strings.Repeat("---|", len(cells)))
}

func names(subjects []subject) (all []string) {
	for _, s := range subjects {
		all = append(all, s.name)
	}
	return all
}

// writeFigures writes a table of the medians, with the quartiles around them.
func writeFigures(w io.Writer, measures []measure, subjects []subject, all results) {
	header(w, append([]string{""}, names(subjects)...)...)
	for _, m := range measures {
		for _, f := range m.figures {
			cells := []string{f.name}
			for _, s := range subjects {
				if f.ratio && s.name != baseline {
					cells = append(cells, spread(all.ratios(f.name, s.name), 1, "", 2))
				} else {
					cells = append(cells, spread(all[f.name][s.name], f.by, f.unit, -1))
				}
			}
			row(w, cells...)
		}
	}
}

// spread writes the median of xs and its quartiles. If decimals is negative, they
// have three digits.
func spread(xs []float64, by float64, unit string, decimals int) string {
	if len(xs) == 0 || math.IsNaN(median(xs)) || median(xs) == 0 {
		return "–"
	}
	format := func(x float64) string {
		if decimals < 0 {
			return digits(x / by)
		}
		return strconv.FormatFloat(x/by, 'f', decimals, 64)
	}
	if unit != "" {
		unit = " " + unit
	}
	return fmt.Sprintf("%s%s (%s–%s)", format(median(xs)), unit, format(quantile(xs, 0.25)), format(quantile(xs, 0.75)))
}

// digits writes x with three digits, or more if more are before the point.
func digits(x float64) string {
	if x == 0 {
		return "0"
	}
	decimals := 2 - int(math.Floor(math.Log10(math.Abs(x))))
	return strconv.FormatFloat(x, 'f', max(0, decimals), 64)
}

// writeCells writes a table of what the patterns leave behind.
func writeCells(w io.Writer, patterns []pattern, subjects []subject, cells map[string]map[string]cell) {
	var withStreams []subject
	for _, s := range subjects {
		if s.library != nil {
			withStreams = append(withStreams, s)
		}
	}
	header(w, append([]string{""}, names(withStreams)...)...)
	for _, p := range patterns {
		line := []string{p.name}
		for _, s := range withStreams {
			line = append(line, cells[p.name][s.name].String())
		}
		row(w, line...)
	}
}
