package streams_test

import (
	"testing"

	"golang.org/x/tools/go/analysis/analysistest"

	"github.com/quiclife/quiclife/vet/internal/streams"
	"github.com/quiclife/quiclife/vet/internal/vettest"
)

func TestFactsOfParameters(t *testing.T) {
	analysistest.Run(t, vettest.Current(t), streams.Analyzer, "helpers")
}
