// Package streamleak finds streams that a function opens or accepts, and then
// drops.
package streamleak

import (
	"go/token"

	"golang.org/x/tools/go/analysis"

	"github.com/quiclife/quiclife/vet/internal/streams"
)

const doc = `report streams that are neither ended nor handed on

A function that opens or accepts a stream of quic-go or quiclife has to end it
on every path: by Close, CancelWrite, Release and the like, or by handing it to
code that ends it. Otherwise the stream takes one of the peer's slots until the
connection ends.

The analyzer is silent where it does not know what happens to a stream. The
comment //quiclife:ended silences a line.`

// Analyzer reports streams that are not ended on some path.
var Analyzer = &analysis.Analyzer{
	Name:     "streamleak",
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
		leaks := leaks(o)
		if len(leaks) == 0 || streams.Silent(pass, o.Call.Pos(), tests) {
			continue
		}
		pass.Report(analysis.Diagnostic{
			Pos:            o.Call.Pos(),
			Message:        message(pass, o, leaks[0]),
			SuggestedFixes: fixes(pass, o, leaks),
		})
	}
	return nil, nil
}

// leaks returns the ends of paths on which the stream is still open.
func leaks(o *streams.Opened) (found []streams.End) {
	for _, e := range o.Ends {
		if e.Leaks(o) {
			found = append(found, e)
		}
	}
	return found
}

func message(pass *analysis.Pass, o *streams.Opened, e streams.End) string {
	var half string
	switch {
	case o.Kind == streams.ReceiveOnly:
		half = "it is neither read nor"
	case o.Kind == streams.SendOnly:
		half = "it is not"
	case e.Receive == streams.Unread:
		half = "neither half is"
	default:
		half = "its send half is not"
	}
	return "this stream leaks: " + half + " ended on the path that " + e.Where(pass)
}

// fixes suggests a deferred Release where that is certain to be right: the type
// has it, nobody else uses the stream, and no path that leaks has written
// something that the peer should get.
func fixes(pass *analysis.Pass, o *streams.Opened, leaks []streams.End) []analysis.SuggestedFix {
	if o.Library != streams.Quiclife || o.Escapes {
		return nil
	}
	for _, e := range leaks {
		if e.Loop || e.Wrote {
			return nil
		}
	}
	name, after := afterErrorCheck(streams.FileOf(pass, o.Call.Pos()), o.Call.Pos())
	if after == token.NoPos {
		return nil
	}
	return []analysis.SuggestedFix{{
		Message:   "Defer its Release",
		TextEdits: []analysis.TextEdit{{Pos: after, End: after, NewText: []byte("\ndefer " + name + ".Release()")}},
	}}
}
