//go:build race

package metrics

const slow = 10 // the race detector slows everything down
