package closeloss_test

import (
	"testing"

	"golang.org/x/tools/go/analysis/analysistest"

	"github.com/quiclife/quiclife/vet/closeloss"
	"github.com/quiclife/quiclife/vet/internal/vettest"
)

func TestConnectionsClosedOverUnacknowledgedDataAreFound(t *testing.T) {
	analysistest.Run(t, vettest.Current(t), closeloss.Analyzer, "closeloss")
}
