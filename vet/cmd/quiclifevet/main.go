// Quiclifevet finds streams of quic-go and of quiclife that are not ended.
//
//	go vet -vettool=$(which quiclifevet) ./...
//	quiclifevet ./...
//	go tool quiclifevet ./...   # after go get -tool github.com/quiclife/quiclife/vet/cmd/quiclifevet
//
// It has the analyzers streamleak, limitcompare, halfclose and closeloss.
// "quiclifevet help" says what each of them reports. closeloss is off by
// default. The flag -closeloss runs only closeloss; -closeloss -streamleak runs
// both. A line with the comment //quiclife:ended is left alone. -fix applies
// what the findings suggest; it works with the second and the third form.
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

// named says whether the arguments name an analyzer that is off by default, or
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

// calledByGoVet says whether these are the arguments that go vet gives to its
// tools.
func calledByGoVet(args []string) bool {
	for _, arg := range args {
		if arg == "-V=full" || arg == "-flags" || strings.HasSuffix(arg, ".cfg") {
			return true
		}
	}
	return false
}
