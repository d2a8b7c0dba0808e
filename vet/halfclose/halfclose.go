// Package halfclose finds streams of quic-go whose send half is ended, but whose
// receive half is not.
package halfclose

import (
	"golang.org/x/tools/go/analysis"

	"github.com/quiclife/quiclife/vet/internal/streams"
)

const doc = `report streams of quic-go with only the send half ended

Close and CancelWrite end the send half of a stream. The receive half stays open,
and keeps the stream, until somebody reads io.EOF or calls CancelRead. Reading
exactly the bytes of a message is not enough: the peer's FIN may come in a frame
of its own.

The analyzer reports a bidirectional stream of quic-go that stays in its
function, if its send half is ended, and its receive half is read in part or not
at all. Streams of quiclife end by themselves once the FIN has come. The comment
//quiclife:ended silences a line.`

// Analyzer reports receive halves that are left open.
var Analyzer = &analysis.Analyzer{
	Name:     "halfclose",
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
		e, ok := halfClosed(o)
		if !ok || streams.Silent(pass, o.Call.Pos(), tests) {
			continue
		}
		read := "does not read the answer"
		if e.Receive == streams.ReadPart {
			read = "may not have read to io.EOF"
		}
		end := "Close"
		if e.Send == streams.SendCancelled {
			end = "CancelWrite"
		}
		pass.Reportf(o.Call.Pos(), "the receive half of this stream leaks: %s ends the send half only, and the path that %s %s; read to io.EOF, or CancelRead", end, e.Where(pass), read)
	}
	return nil, nil
}

// halfClosed returns the first end that leaves the receive half open, if the
// function ends the send half on every path. Paths that return an error do not
// count, since the caller may close the connection then.
func halfClosed(o *streams.Opened) (first streams.End, ok bool) {
	if o.Library != streams.QuicGo || o.Kind != streams.Bidirectional || o.Escapes {
		return first, false
	}
	for _, e := range o.Ends {
		if e.Leaks(o) {
			return first, false // that is for streamleak
		}
		if !ok && !e.Fails && (e.Send == streams.SendClosed || e.Send == streams.SendCancelled) && e.Receive <= streams.ReadPart {
			first, ok = e, true
		}
	}
	return first, ok
}
