package quiclife

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// TestKindsOfRecordsAreForgotten: after logging records for many openers, a
// Guard keeps none of them.
func TestKindsOfRecordsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Guard{Logger: slog.New(slog.DiscardHandler)}
		for _, opener := range []string{"a", "b", "b"} {
			g.log(slog.LevelWarn, recordKind{msg: "test", opener: opener})
		}
		time.Sleep(2*logInterval + time.Second)
		synctest.Wait()
		if n := len(g.records.kinds); n != 0 {
			t.Errorf("%d kinds of records are kept when none is held back", n)
		}
	})
}
