//go:build race

package debugpage_test

const slow = 10 // the race detector slows everything down
