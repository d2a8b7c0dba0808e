package debugpage

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A query is the parameters of a request.
type query struct {
	filter  string // lower case
	sort    string // a column of conns or of groups; "" means the default of each
	refresh int    // seconds; 0 means never
	format  string // html, json or text
}

// longestRefresh is a day. A longer time would be a mistake.
const longestRefresh = 24 * 60 * 60

func parse(v url.Values) (query, error) {
	q := query{filter: strings.ToLower(v.Get("q")), sort: v.Get("sort"), format: v.Get("format")}
	if q.format == "" {
		q.format = "html"
	}
	if !slices.Contains([]string{"html", "json", "text"}, q.format) {
		return q, fmt.Errorf("format is %q, but must be html, json or text", q.format)
	}
	if _, conn := connOrders[q.sort]; !conn && q.sort != "" {
		if _, group := groupOrders[q.sort]; !group {
			columns := slices.Sorted(maps.Keys(connOrders))
			columns = append(columns, slices.Sorted(maps.Keys(groupOrders))...)
			return q, fmt.Errorf("sort is %q, but must be one of %s", q.sort, strings.Join(columns, ", "))
		}
	}
	if s := v.Get("refresh"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > longestRefresh {
			return q, fmt.Errorf("refresh is %q, but must be 1 to %d seconds", s, longestRefresh)
		}
		q.refresh = n
	}
	return q, nil
}

// matches reports whether one of texts contains the filter.
func (q query) matches(texts ...string) bool {
	return q.filter == "" || slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(strings.ToLower(s), q.filter) })
}

// with returns the query string of q with one parameter changed.
func (q query) with(key, value string) string {
	v := url.Values{}
	if q.filter != "" {
		v.Set("q", q.filter)
	}
	if q.sort != "" {
		v.Set("sort", q.sort)
	}
	if q.refresh > 0 {
		v.Set("refresh", strconv.Itoa(q.refresh))
	}
	v.Set(key, value)
	return "?" + v.Encode()
}
