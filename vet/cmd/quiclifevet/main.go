// Quiclifevet finds streams of quic-go and of quiclife that are not ended.
//
//	go vet -vettool=$(which quiclifevet) ./...
//	quiclifevet ./...
//	go tool quiclifevet ./...   # after go get -tool github.com/quiclife/quiclife/vet/cmd/quiclifevet
//
// It has the analyzers streamleak, limitcompare, halfclose and closeloss;
// quiclifevet help says what each of them reports. The last one is off unless it
// is asked for: with -closeloss, or with others beside it that are to run as
// well, as in -closeloss -streamleak. A line with the comment
// //quiclife:ended is left alone. With -fix, which needs the second or third
// form, what it suggests is done.
package main

import (
	"os"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/multichecker"
	"golang.org/x/tools/go/analysis/unitchecker"

	"github.com/quiclife/quiclife/vet/closeloss"
	"github.com/quiclife/quiclife/vet/halfclose"
	"github.com/quiclife/quiclife/vet/limitcompare"
	"github.com/quiclife/quiclife/vet/streamleak"
)

func main() {
	args := os.Args[1:]
	analyzers := []*analysis.Analyzer{streamleak.Analyzer, limitcompare.Analyzer, halfclose.Analyzer}
	if named(args, "closeloss") {
		analyzers = append(analyzers, closeloss.Analyzer)
	}
	if calledByGoVet(args) {
		unitchecker.Main(analyzers...)
	}
	multichecker.Main(analyzers...)
}

// named says whether the arguments name an analyzer that is off otherwise, or
// ask for the flags or for help.
func named(args []string, analyzer string) bool {
	for _, arg := range args {
		flag := strings.TrimLeft(arg, "-")
		if flag == "flags" || flag == "help" || flag != arg && strings.HasPrefix(flag, analyzer) {
			return true
		}
	}
	return false
}

// calledByGoVet says whether the arguments are those with which go vet calls
// its tools.
func calledByGoVet(args []string) bool {
	for _, arg := range args {
		if arg == "-V=full" || arg == "-flags" || strings.HasSuffix(arg, ".cfg") {
			return true
		}
	}
	return false
}
