// Package mutant is built into a library with mutations. It says which mutation is
// chosen, and notes which are reached.
package mutant

import (
	"cmp"
	"os"
	"strconv"
	"sync/atomic"
)

var (
	chosen, _ = strconv.Atoi(os.Getenv("QUICLIFE_MUTANT"))
	reached   = open(os.Getenv("QUICLIFE_REACHED")) // a line for each mutation that is reached
	noted     [1 << 16]atomic.Bool
)

func open(name string) *os.File {
	if name == "" {
		return nil
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	return f
}

// On reports whether mutation id is chosen. It is small enough to be inlined.
func On(id int) bool { return id == chosen || reached != nil && note(id) }

func note(id int) bool {
	if !noted[id].Swap(true) {
		reached.WriteString(strconv.Itoa(id) + "\n") // written at once, since a test binary may call os.Exit
	}
	return false
}

// Each func below stands for an expression. It returns the value of the
// expression, or of its mutation if id is chosen.

// Pick stands for a constant.
func Pick[T any](id int, original, mutated T) T {
	if On(id) {
		return mutated
	}
	return original
}

// Zero stands for a value that is returned.
func Zero[T any](id int, original T) (v T) {
	if On(id) {
		return v
	}
	return original
}

// Less stands for a < b.
func Less[T cmp.Ordered](id int, a, b T) bool {
	if On(id) {
		return a <= b
	}
	return a < b
}

// LessEqual stands for a <= b.
func LessEqual[T cmp.Ordered](id int, a, b T) bool {
	if On(id) {
		return a < b
	}
	return a <= b
}

// Greater stands for a > b.
func Greater[T cmp.Ordered](id int, a, b T) bool {
	if On(id) {
		return a >= b
	}
	return a > b
}

// GreaterEqual stands for a >= b.
func GreaterEqual[T cmp.Ordered](id int, a, b T) bool {
	if On(id) {
		return a > b
	}
	return a >= b
}

type number interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr | ~float32 | ~float64
}

// Add stands for a + b.
func Add[T number](id int, a, b T) T {
	if On(id) {
		return a - b
	}
	return a + b
}

// Sub stands for a - b.
func Sub[T number](id int, a, b T) T {
	if On(id) {
		return a + b
	}
	return a - b
}

// Mul stands for a * b.
func Mul[T number](id int, a, b T) T {
	if On(id) {
		return a / b
	}
	return a * b
}

// Quo stands for a / b.
func Quo[T number](id int, a, b T) T {
	if On(id) {
		return a * b
	}
	return a / b
}
