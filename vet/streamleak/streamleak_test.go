package streamleak_test

import (
	"testing"

	"golang.org/x/tools/go/analysis/analysistest"

	"github.com/quiclife/quiclife/vet/internal/vettest"
	"github.com/quiclife/quiclife/vet/streamleak"
)

func TestStreamsLeftOpenOnAPathAreFound(t *testing.T) {
	analysistest.Run(t, vettest.Current(t), streamleak.Analyzer, "leak")
}

func TestTheEndOfMainEndsItsStreams(t *testing.T) {
	analysistest.Run(t, vettest.Current(t), streamleak.Analyzer, "leakmain")
}

func TestInterfacesOfOlderVersionsAreStreams(t *testing.T) {
	analysistest.Run(t, vettest.Old(t), streamleak.Analyzer, "interfaces")
}

func TestReleaseIsSuggestedWhereItCutsNothing(t *testing.T) {
	analysistest.RunWithSuggestedFixes(t, vettest.Current(t), streamleak.Analyzer, "leakfix")
}
