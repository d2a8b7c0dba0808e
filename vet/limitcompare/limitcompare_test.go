package limitcompare_test

import (
	"testing"

	"golang.org/x/tools/go/analysis/analysistest"

	"github.com/quiclife/quiclife/vet/internal/vettest"
	"github.com/quiclife/quiclife/vet/limitcompare"
)

func TestComparisonsThatMissALimitErrorAreFoundAndMended(t *testing.T) {
	analysistest.RunWithSuggestedFixes(t, vettest.Current(t), limitcompare.Analyzer, "limit")
}

func TestComparisonsOfQuicGosErrorsAreLeftAlone(t *testing.T) {
	analysistest.Run(t, vettest.Current(t), limitcompare.Analyzer, "limitquicgo")
}
