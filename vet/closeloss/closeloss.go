// Package closeloss finds connections that are closed before the data written to
// them can have arrived.
package closeloss

import (
	"golang.org/x/tools/go/analysis"

	"github.com/quiclife/quiclife/vet/internal/streams"
)

const doc = `report CloseWithError right after Close of a stream

CloseWithError drops what the peer has not acknowledged. If it comes right after
a Write and a Close of a stream, and nothing in between waits for the peer, the
peer practically never gets the data. Wait for the peer's answer, or use
quiclife's Shutdown. The comment //quiclife:ended silences a line.`

// Analyzer reports connections that are closed right after one of their streams.
var Analyzer = &analysis.Analyzer{
	Name:     "closeloss",
	Doc:      doc,
	Run:      run,
	Requires: []*analysis.Analyzer{streams.Analyzer},
}

var tests bool

func init() {
	Analyzer.Flags.BoolVar(&tests, "tests", false, "check _test.go files as well")
}

func run(pass *analysis.Pass) (any, error) {
	for _, o := range pass.ResultOf[streams.Analyzer].([]*streams.Opened) {
		for _, pos := range o.Losses {
			if !streams.Silent(pass, pos, tests) {
				line := pass.Fset.Position(o.Call.Pos()).Line
				pass.Reportf(pos, "this drops what was written to the stream of line %d, which was closed just before: the peer has had no time to get it", line)
			}
		}
	}
	return nil, nil
}
