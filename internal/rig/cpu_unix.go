//go:build unix

package rig

import (
	"syscall"
	"time"
)

// CPU returns the CPU time that the process has used so far, or 0 if that is
// not known.
func CPU() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
