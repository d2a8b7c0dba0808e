//go:build !race

package metrics

const slow = 1
