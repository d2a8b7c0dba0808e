package main

import (
	"regexp"
	"strconv"
	"time"
)

var (
	duration  = regexp.MustCompile(`\b\d+[smhd]\b`)
	threshold = regexp.MustCompile(`(_seconds\{[^}]*\} > )(\d+)`)
)

// shorten divides the durations in the rules by faster, and also the ages with
// which alerts compare. It leaves names such as x:min10m as they are.
func shorten(rules string) string {
	rules = threshold.ReplaceAllStringFunc(rules, func(found string) string {
		parts := threshold.FindStringSubmatch(found)
		seconds, _ := strconv.ParseFloat(parts[2], 64)
		return parts[1] + strconv.FormatFloat(seconds/faster, 'f', -1, 64)
	})
	return duration.ReplaceAllStringFunc(rules, func(found string) string {
		d, err := time.ParseDuration(found)
		if err != nil { // days, which ParseDuration does not know
			n, _ := strconv.Atoi(found[:len(found)-1])
			d = time.Duration(n) * 24 * time.Hour
		}
		return strconv.FormatInt((d/faster).Milliseconds(), 10) + "ms"
	})
}

var alert = regexp.MustCompile(`- alert: (\w+)`)

func alertNames(rules string) (names []string) {
	for _, found := range alert.FindAllStringSubmatch(rules, -1) {
		names = append(names, found[1])
	}
	return names
}
