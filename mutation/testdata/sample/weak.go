package sample

import "time"

const grace = 2 * time.Second // constant here, so there is no mutation of it

// weak is called by a test that looks at little.
func weak(n int) (limit time.Duration, ok bool) {
	if n > 10 {
		limit = grace
	}
	limit += time.Duration(n) * time.Millisecond
	return limit, n > 0
}

// unreached is called by no test.
func unreached(xs []int) bool { return len(xs) == 1 }

// slow is called by a test that is skipped when -test.short is set.
func slow(n int) int { return n + 1 }

// loop has a mutation that ends no more.
func loop(n int) {
	for n > 0 {
		n--
	}
}

// crash has a mutation that ends the process.
func crash(n int) {
	done := make(chan struct{})
	go func() {
		_ = make([]int, n)[n-1]
		close(done)
	}()
	<-done
}

// odd has what is hard to mutate.
func odd(n int) (s string) {
	table := [...]string{0: "zero", 1: "one"}
	type number int8
	var m number = 127
	for i := 0; i < len(table); i++ {
		s += table[i] + "-"
	}
again:
	switch {
	case n < 0:
		n++
		goto again
	case m == 127 && n<<1 == 2*n:
		return s
	}
	panic("odd")
}

func largest[T ~int | ~string](a, b T) T {
	if a > b {
		return a
	}
	return b
}
