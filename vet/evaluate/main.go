// Evaluate judges the analyzers on real programs that use quic-go.
//
//	go run ./evaluate -src DIR -half tuning     # the findings in that set
//	go run ./evaluate -src DIR -half held-out
//	go run ./evaluate -src DIR -half second     # and third
//	go run ./evaluate -src DIR -delete          # what is found when one end is deleted
//	go run ./evaluate -dir PROGRAM              # one program that is not in the list
//
// modules.txt lists the programs, each with its commit. DIR has a directory with
// the source of each, such as DIR/coredns/coredns. You have to fetch them. They
// are type-checked, never built or run. A program is in the held-out set if the
// fourth byte of the SHA-256 of its name is odd. Programs marked second or third
// were added after somebody had looked at the sets before.
package main

import (
	"bufio"
	"crypto/sha256"
	_ "embed"
	"flag"
	"fmt"
	"log"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis"

	"github.com/quiclife/quiclife/vet/closeloss"
	"github.com/quiclife/quiclife/vet/halfclose"
	"github.com/quiclife/quiclife/vet/internal/streams"
	"github.com/quiclife/quiclife/vet/limitcompare"
	"github.com/quiclife/quiclife/vet/streamleak"
)

//go:embed modules.txt
var modules string

var analyzers = []*analysis.Analyzer{streamleak.Analyzer, limitcompare.Analyzer, halfclose.Analyzer, closeloss.Analyzer}

func main() {
	log.SetFlags(0)
	src := flag.String("src", "", "`directory` with the sources of the programs in modules.txt")
	dir := flag.String("dir", "", "`directory` of one program")
	half := flag.String("half", "", "the set: tuning, held-out, second or third; all if empty")
	deletes := flag.Bool("delete", false, "delete one end at a time, and count the leaks that are found")
	flag.Parse()
	if (*src == "") == (*dir == "") {
		log.Fatal("set either -src or -dir")
	}
	if *dir != "" {
		judge(*dir, *dir, *deletes)
		return
	}
	for list := bufio.NewScanner(strings.NewReader(modules)); list.Scan(); {
		fields := strings.Fields(list.Text())
		name, of := fields[0], halfOf(fields[0])
		if len(fields) > 2 {
			of = fields[2]
		}
		if *half == "" || *half == of {
			if flag.NArg() == 0 || slices.Contains(flag.Args(), name) {
				judge(name, filepath.Join(*src, name), *deletes)
			}
		}
	}
	total.print()
}

func halfOf(name string) string {
	if sum := sha256.Sum256([]byte(name)); sum[3]%2 == 1 {
		return "held-out"
	}
	return "tuning"
}

// judge judges one program.
func judge(name, dir string, deletes bool) {
	fmt.Println("==", name)
	found, err := users(dir)
	if err != nil {
		log.Fatal(err)
	}
	for _, module := range slices.Sorted(maps.Keys(found)) {
		p, err := load(module, found[module])
		if err != nil {
			fmt.Println("   not loaded:", err)
			continue
		}
		d := &driver{program: p, facts: make(map[factKey]analysis.Fact)}
		d.learn()
		for _, u := range p.units {
			if !u.own {
				continue
			}
			if err := u.sound(); err != nil {
				fmt.Printf("   %s is not analyzed: %v\n", u.PkgPath, err)
				continue
			}
			diags, results := d.run(u, analyzers...)
			opened := results[streams.Analyzer].([]*streams.Opened)
			total.count(opened)
			if deletes {
				d.deleteEnds(u, opened, diags)
				continue
			}
			for _, diag := range diags {
				diag.pos = strings.TrimPrefix(diag.pos, dir+"/")
				fmt.Println("  ", diag)
			}
		}
	}
}

// counts are sums over all programs.
type counts struct {
	opened, leaving int
	deleted, found  int
}

var total counts

func (c *counts) count(opened []*streams.Opened) {
	c.opened += len(opened)
	for _, o := range opened {
		if o.Escapes {
			c.leaving++
		}
	}
}

func (c *counts) print() {
	fmt.Printf("%d streams opened or accepted, %d of them handed on\n", c.opened, c.leaving)
	if c.deleted > 0 {
		fmt.Printf("%d ends deleted, %d found\n", c.deleted, c.found)
	}
}
