package main

import (
	"math"
	"regexp"
	"runtime"
)

// opensStream matches the functions of both libraries that make streams.
var opensStream = regexp.MustCompile(`^github\.com/(quic-go/quic-go|quiclife/quiclife)\.` +
	`(newStream|newSendStream|newReceiveStream|.*\)\.([oO]pen|GetOrOpen)Stream(Sync)?)$`)

// newStreamShare returns the share of the heap that was allocated to open
// streams, as of the second-last garbage collection.
func newStreamShare() float64 {
	var records []runtime.MemProfileRecord
	n, ok := runtime.MemProfile(nil, false)
	for !ok { // there may be more records by now
		records = make([]runtime.MemProfileRecord, n+64)
		n, ok = runtime.MemProfile(records, false)
	}
	var all, streams float64
	for _, r := range records[:n] {
		bytes := inUse(r)
		all += bytes
		if opens(r.Stack()) {
			streams += bytes
		}
	}
	return streams / max(all, 1)
}

// inUse estimates the bytes of all allocations of one size from the sampled
// ones, as pprof does: an allocation of size s is sampled with probability
// 1 - e^(-s/rate).
func inUse(r runtime.MemProfileRecord) float64 {
	if r.InUseObjects() <= 0 {
		return 0
	}
	size := float64(r.InUseBytes()) / float64(r.InUseObjects())
	return float64(r.InUseBytes()) / (1 - math.Exp(-size/float64(runtime.MemProfileRate)))
}

func opens(stack []uintptr) bool {
	frames := runtime.CallersFrames(stack)
	for {
		frame, more := frames.Next()
		if opensStream.MatchString(frame.Function) {
			return true
		}
		if !more {
			return false
		}
	}
}
