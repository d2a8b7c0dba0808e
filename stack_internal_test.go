package quiclife

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// deep calls f at the given depth of calls.
func deep(n int, f func()) {
	if n == 0 {
		f()
		return
	}
	deep(n-1, f)
}

// TestSampledStacksAreShort: a full one has fifteen calls.
func TestSampledStacksAreShort(t *testing.T) {
	for full, calls := range map[bool]int{false: sampledDepth, true: 15} {
		var s *stack
		deep(30, func() { s = callers(-1, full) })
		require.Equal(t, calls, strings.Count(s.String(), "\n"), "calls, in full: %v", full)
		require.Contains(t, s.String(), "TestSampledStacksAreShort.func", "the innermost call")
	}
}
