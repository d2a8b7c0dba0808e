package main

import (
	"fmt"
	"go/types"
	"reflect"
	"sort"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/ctrlflow"
)

// factKey is the object of a fact, and the fact's type.
type factKey struct {
	object any // a types.Object or a *types.Package
	of     reflect.Type
}

// driver runs analyzers on the packages of one program, and keeps their facts.
type driver struct {
	*program
	facts map[factKey]analysis.Fact
}

// finding is a diagnostic.
type finding struct {
	analyzer, pos, message string
}

func (f finding) String() string { return f.pos + ": " + f.analyzer + ": " + f.message }

// learn finds the functions that never return, in packages that are not the
// program's own.
func (d *driver) learn() {
	for _, u := range d.units {
		if withBodies[u.PkgPath] && u.types != nil {
			d.run(u, ctrlflow.Analyzer)
		}
	}
}

// run runs analyzers on u, and the analyzers that they require.
func (d *driver) run(u *unit, analyzers ...*analysis.Analyzer) (found []finding, results map[*analysis.Analyzer]any) {
	results = make(map[*analysis.Analyzer]any)
	var one func(a *analysis.Analyzer)
	one = func(a *analysis.Analyzer) {
		if _, done := results[a]; done {
			return
		}
		for _, r := range a.Requires {
			one(r)
		}
		var err error
		results[a], err = a.Run(d.pass(u, a, results, &found))
		if err != nil {
			panic(fmt.Sprintf("%s on %s: %v", a.Name, u.PkgPath, err))
		}
	}
	for _, a := range analyzers {
		one(a)
	}
	sort.Slice(found, func(i, j int) bool { return found[i].pos < found[j].pos })
	return found, results
}

func (d *driver) pass(u *unit, a *analysis.Analyzer, results map[*analysis.Analyzer]any, found *[]finding) *analysis.Pass {
	module := &analysis.Module{}
	if u.Module != nil {
		module.Path, module.Version = u.Module.Path, u.Module.Version
	}
	return &analysis.Pass{
		Analyzer: a, Fset: d.fset, Files: u.files, Pkg: u.types, TypesInfo: u.info,
		TypesSizes: types.SizesFor("gc", "amd64"), Module: module, ResultOf: results,
		Report: func(diag analysis.Diagnostic) {
			*found = append(*found, finding{a.Name, d.fset.Position(diag.Pos).String(), diag.Message})
		},
		ImportObjectFact:  func(o types.Object, f analysis.Fact) bool { return d.get(o, f) },
		ImportPackageFact: func(p *types.Package, f analysis.Fact) bool { return d.get(p, f) },
		ExportObjectFact:  func(o types.Object, f analysis.Fact) { d.facts[factKey{o, reflect.TypeOf(f)}] = f },
		ExportPackageFact: func(f analysis.Fact) { d.facts[factKey{u.types, reflect.TypeOf(f)}] = f },
		AllObjectFacts:    func() []analysis.ObjectFact { return nil },
		AllPackageFacts:   func() []analysis.PackageFact { return nil },
	}
}

func (d *driver) get(about any, f analysis.Fact) bool {
	known, ok := d.facts[factKey{about, reflect.TypeOf(f)}]
	if ok {
		reflect.ValueOf(f).Elem().Set(reflect.ValueOf(known).Elem())
	}
	return ok
}
