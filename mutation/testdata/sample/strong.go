// Package sample is mutated by the tests of the tool. Its tests kill every
// mutation of what is called strong.
package sample

import (
	"errors"
	"runtime"
	"time"
	pointer "weak"
)

var errEmpty = errors.New("empty")

func strongBoundary(a, b time.Duration) [4]bool { return [...]bool{a < b, a <= b, a > b, a >= b} }

func strongLogic(a, b bool) (bool, bool) {
	if !a {
		return a && b, a != b
	}
	return a || b, a == b
}

func strongArithmetic(a, b float64) []float64 { return []float64{a + b, a - b, a * b, a / b} }

func strongEffects(xs []int, out chan<- int) (sum int, err error) {
	var calls []string
	defer func() { sum += len(calls) }()
	if len(xs) == 0 {
		return 0, errEmpty
	}
	call := func(s string) { calls = append(calls, s) }
	for _, x := range xs {
		switch x {
		case 7:
			call("seven")
		default:
			sum -= x
		}
	}
	go send(out)
	return sum, nil
}

func strongZero(fail bool) (none int, err error) {
	if fail {
		return none, errEmpty // none has no mutation
	}
	return 3, nil
}

// strongKept is true because of the KeepAlive.
func strongKept(collect func()) bool {
	p := new([64]byte)
	w := pointer.Make(p)
	collect()
	kept := w.Value() != nil
	runtime.KeepAlive(p)
	return kept
}

func send(out chan<- int) { out <- 1 }
