// Package hostile_test has peers on plain quic-go that do their worst to a
// wrapped server.
package hostile_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// eventually polls in real time, for what no channel reports.
func eventually(t *testing.T, f func() bool, msg ...any) {
	t.Helper()
	require.Eventually(t, f, 20*time.Second, 2*time.Millisecond, msg...)
}
