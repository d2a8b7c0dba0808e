//go:build !unix

package rig

import "time"

// CPU returns 0: the CPU time of the process is not known.
func CPU() time.Duration { return 0 }
