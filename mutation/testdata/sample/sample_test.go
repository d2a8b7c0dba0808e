package sample

import (
	"runtime"
	"slices"
	"testing"
	"time"
)

func TestStrong(t *testing.T) {
	if strongBoundary(1, 2) != [4]bool{true, true, false, false} || strongBoundary(2, 2) != [4]bool{false, true, false, true} ||
		strongBoundary(2, 1) != [4]bool{false, false, true, true} {
		t.Error("boundary")
	}
	for _, c := range [][4]bool{{false, false, false, false}, {false, true, false, true}, {true, false, true, false}, {true, true, true, true}} {
		if x, y := strongLogic(c[0], c[1]); x != c[2] || y != c[3] {
			t.Error("logic", c, x, y)
		}
	}
	if !slices.Equal(strongArithmetic(6, 2), []float64{8, 4, 12, 3}) {
		t.Error("arithmetic")
	}
	out := make(chan int, 2)
	if sum, err := strongEffects(nil, out); sum != 0 || err != errEmpty {
		t.Error("effects of nothing", sum, err)
	}
	if sum, err := strongEffects([]int{1, 2, 7}, out); sum != -2 || err != nil {
		t.Error("effects", sum, err)
	}
	if n, err := strongZero(true); n != 0 || err != errEmpty {
		t.Error("zero of a failure", n, err)
	}
	if n, err := strongZero(false); n != 3 || err != nil {
		t.Error("zero", n, err)
	}
	collections := 0
	if !strongKept(func() { collections++; runtime.GC() }) || collections != 1 {
		t.Error("not kept")
	}
	if n := <-out; n != 1 {
		t.Error("sent", n)
	}
}

func TestWeak(t *testing.T) {
	t.Parallel()
	if _, ok := weak(5); !ok {
		t.Error("not ok")
	}
	loop(3)
	crash(1)
	if s := odd(-2); s != "zero-one-" {
		t.Error(s)
	}
	if largest(1, 2) != 2 || largest("b", "a") != "b" {
		t.Error("not the largest")
	}
}

// TestOther is under way while TestWeak is.
func TestOther(t *testing.T) {
	t.Parallel()
	weak(1)
	loop(0)
	time.Sleep(10 * time.Millisecond)
}

func TestSlow(t *testing.T) {
	if testing.Short() {
		t.Skip("slow")
	}
	if slow(1) != 2 {
		t.Error("slow")
	}
}
