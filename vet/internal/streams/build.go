package streams

import (
	"go/ast"
	"go/types"
	"reflect"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/ctrlflow"
	"golang.org/x/tools/go/ssa"
)

// Build builds the SSA form of the packages that matter. x/tools' buildssa would
// build it for all dependencies of a program. The result is nil for a package
// that does not matter.
var Build = &analysis.Analyzer{
	Name:       "quicssa",
	Doc:        "build the SSA form of packages that use quic-go or quiclife",
	Run:        build,
	Requires:   []*analysis.Analyzer{ctrlflow.Analyzer},
	ResultType: reflect.TypeFor[[]*ssa.Function](),
}

func build(pass *analysis.Pass) (any, error) {
	if !matters(pass) {
		return []*ssa.Function(nil), nil
	}
	prog := ssa.NewProgram(pass.Fset, 0)
	prog.SetNoReturn(pass.ResultOf[ctrlflow.Analyzer].(*ctrlflow.CFGs).NoReturn)
	for _, p := range pass.Pkg.Imports() {
		prog.CreatePackage(p, nil, nil, true)
	}
	prog.CreatePackage(pass.Pkg, pass.Files, pass.TypesInfo, false).Build()
	var funcs []*ssa.Function
	var add func(fn *ssa.Function)
	add = func(fn *ssa.Function) {
		funcs = append(funcs, fn)
		for _, inner := range fn.AnonFuncs {
			add(inner)
		}
	}
	for _, file := range pass.Files {
		for _, d := range file.Decls {
			if d, ok := d.(*ast.FuncDecl); ok {
				add(prog.FuncValue(pass.TypesInfo.Defs[d.Name].(*types.Func)))
			}
		}
	}
	return funcs, nil
}

// matters says whether the package may handle streams. It may if it imports one
// of the libraries, perhaps through others. It also may if it is in the program's
// own module, since it may have helpers that read and write.
func matters(pass *analysis.Pass) bool {
	if m := pass.Module; m != nil && m.Path != "" && m.Path != "std" && m.Version == "" {
		return true
	}
	seen := make(map[*types.Package]bool)
	var imports func(p *types.Package) bool
	imports = func(p *types.Package) bool {
		if seen[p] {
			return false
		}
		seen[p] = true
		for _, i := range p.Imports() {
			if _, ok := libraryOf(i); ok || imports(i) {
				return true
			}
		}
		return false
	}
	return imports(pass.Pkg)
}
