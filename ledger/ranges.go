package ledger

import (
	"cmp"
	"slices"
)

// An interval is the numbers from lo up to hi, without hi.
type interval struct {
	lo, hi int64
	at     int64 // when it was first added, where that matters
}

// ranges is a set of numbers: intervals in order, with gaps between them.
type ranges []interval

// add adds the numbers from lo up to hi, without hi. If that would take more
// than limit intervals, it adds nothing and returns false.
func (r *ranges) add(lo, hi int64, limit int) bool { return r.addAt(lo, hi, 0, limit) }

// addAt is like add, and stores the time in a new interval.
func (r *ranges) addAt(lo, hi, at int64, limit int) bool {
	if lo >= hi {
		return true
	}
	s := *r
	// The usual case: the last interval grows.
	if n := len(s); n > 0 && s[n-1].lo <= lo && lo <= s[n-1].hi {
		s[n-1].hi = max(s[n-1].hi, hi)
		return true
	}
	// The intervals from i up to j, without j, touch [lo, hi).
	i, _ := slices.BinarySearchFunc(s, lo, func(v interval, lo int64) int { return cmp.Compare(v.hi, lo) })
	j := i
	for j < len(s) && s[j].lo <= hi {
		lo, hi, at = min(lo, s[j].lo), max(hi, s[j].hi), min(at, s[j].at)
		j++
	}
	if i == j && len(s) >= limit {
		return false
	}
	*r = slices.Replace(s, i, j, interval{lo, hi, at})
	return true
}

// remove removes x, and returns whether x was in the set. It does not remove x
// if the set would then have more than limit intervals.
func (r *ranges) remove(x int64, limit int) bool {
	s := *r
	i, _ := slices.BinarySearchFunc(s, x+1, func(v interval, hi int64) int { return cmp.Compare(v.hi, hi) })
	if i == len(s) || s[i].lo > x {
		return false
	}
	v := s[i]
	switch {
	case v.lo == x && v.hi == x+1:
		*r = slices.Delete(s, i, i+1)
	case v.lo == x:
		s[i].lo++
	case v.hi == x+1:
		s[i].hi--
	case len(s) < limit:
		*r = slices.Replace(s, i, i+1, interval{v.lo, x, v.at}, interval{x + 1, v.hi, v.at})
	}
	return true
}

func (r ranges) has(x int64) bool {
	i, _ := slices.BinarySearchFunc(r, x+1, func(v interval, hi int64) int { return cmp.Compare(v.hi, hi) })
	return i < len(r) && r[i].lo <= x
}

// size returns how many numbers are in the set.
func (r ranges) size() (n int64) {
	for _, v := range r {
		n += v.hi - v.lo
	}
	return n
}

// spans is a set of bytes of a stream. It is small if most bytes come in order.
type spans struct {
	prefix int64  // all bytes below it are in the set
	rest   ranges // the bytes above prefix
}

// add is like [ranges.add].
func (s *spans) add(lo, hi int64) bool {
	if lo > s.prefix {
		return s.rest.add(lo, hi, maxGaps)
	}
	s.prefix = max(s.prefix, hi)
	n := 0
	for n < len(s.rest) && s.rest[n].lo <= s.prefix {
		s.prefix = max(s.prefix, s.rest[n].hi)
		n++
	}
	if n > 0 {
		s.rest = slices.Delete(s.rest, 0, n)
	}
	if len(s.rest) == 0 {
		s.rest = nil
	}
	return true
}
