package halfclose_test

import (
	"testing"

	"golang.org/x/tools/go/analysis/analysistest"

	"github.com/quiclife/quiclife/vet/halfclose"
	"github.com/quiclife/quiclife/vet/internal/vettest"
)

func TestReceiveHalvesLeftOpenByCloseAreFound(t *testing.T) {
	analysistest.Run(t, vettest.Current(t), halfclose.Analyzer, "halfclose")
}
