//go:build !race

package debugpage_test

const slow = 1
