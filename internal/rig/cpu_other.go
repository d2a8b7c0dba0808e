//go:build !unix

package rig

import "time"

// CPU returns 0: the processor time of the process is not known.
func CPU() time.Duration { return 0 }
