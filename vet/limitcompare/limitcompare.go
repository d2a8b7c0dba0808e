// Package limitcompare finds comparisons that do not see through a LimitError.
package limitcompare

import (
	"fmt"
	"go/ast"
	"go/format"
	"go/token"
	"go/types"
	"strconv"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/ssa"

	"github.com/quiclife/quiclife/vet/internal/streams"
)

const doc = `report == and switch on the errors of quiclife's opens

OpenStream, OpenStreamSync and the other opens of quiclife return a *LimitError
where quic-go returns the context's error or a *StreamLimitReachedError. The
*LimitError wraps these. errors.Is and errors.As find them. ==, a switch and a
type assertion do not.`

// Analyzer reports comparisons of the errors of quiclife's opens.
var Analyzer = &analysis.Analyzer{
	Name:     "limitcompare",
	Doc:      doc,
	Run:      run,
	Requires: []*analysis.Analyzer{streams.Build},
}

// bare are the errors that opens return as they are.
var bare = map[string]bool{"ErrShutdown": true, "Err0RTTRejected": true}

func run(pass *analysis.Pass) (any, error) {
	seen := make(map[token.Pos]bool)
	for _, fn := range pass.ResultOf[streams.Build].([]*ssa.Function) {
		for _, b := range fn.Blocks {
			for _, in := range b.Instrs {
				if c, ok := in.(*ssa.Call); ok {
					if _, lib, ok := streams.Opens(c); ok && lib == streams.Quiclife && strings.HasPrefix(streams.MethodName(&c.Call), "Open") {
						check(pass, c, seen)
					}
				}
			}
		}
	}
	return nil, nil
}

// check checks every use of the error of one open.
func check(pass *analysis.Pass, open *ssa.Call, seen map[token.Pos]bool) {
	for v := range mayBe(open) {
		for _, use := range *v.Referrers() {
			pos := use.Pos()
			if seen[pos] || streams.Silent(pass, pos, true) {
				continue
			}
			switch use := use.(type) {
			case *ssa.BinOp:
				if (use.Op == token.EQL || use.Op == token.NEQ) && wrapped(use, v) {
					seen[pos] = true
					report(pass, pos)
				}
			case *ssa.TypeAssert:
				if name := types.TypeString(use.AssertedType, shortName); loses(use.AssertedType) {
					seen[pos] = true
					pass.Reportf(pos, "the error of an open may be a *LimitError that wraps it: use errors.As to find a %s", name)
				}
			}
		}
	}
}

func shortName(p *types.Package) string { return p.Name() }

// mayBe returns the values that may be the error of an open.
func mayBe(open *ssa.Call) map[ssa.Value]bool {
	found := make(map[ssa.Value]bool)
	var add func(v ssa.Value)
	add = func(v ssa.Value) {
		if found[v] {
			return
		}
		found[v] = true
		for _, use := range *v.Referrers() {
			switch use := use.(type) {
			case *ssa.Phi:
				add(use)
			case *ssa.ChangeInterface:
				add(use)
			}
		}
	}
	for _, use := range *open.Referrers() {
		if e, ok := use.(*ssa.Extract); ok && e.Index == 1 {
			add(e)
		}
	}
	return found
}

// wrapped says whether a LimitError may wrap what v is compared with.
func wrapped(cmp *ssa.BinOp, v ssa.Value) bool {
	other := cmp.Y
	if other == v {
		other = cmp.X
	}
	switch other := other.(type) {
	case *ssa.Const:
		return !other.IsNil()
	case *ssa.UnOp:
		if g, ok := other.X.(*ssa.Global); ok {
			return !bare[g.Name()]
		}
	}
	return true
}

// loses says whether an assertion to t fails on a LimitError that wraps a t.
func loses(t types.Type) bool {
	if p, ok := types.Unalias(t).(*types.Pointer); ok {
		t = p.Elem()
	}
	named, ok := types.Unalias(t).(*types.Named)
	if !ok || named.Obj().Pkg() == nil {
		return false
	}
	return named.Obj().Name() == "StreamLimitReachedError" || named.Obj().Pkg().Path() == "net" && named.Obj().Name() == "Error"
}

// report reports the comparison at pos. That is its position in SSA: the operator
// of a binary expression, or the expression of a case.
func report(pass *analysis.Pass, pos token.Pos) {
	d := analysis.Diagnostic{Pos: pos, Message: "the error of an open may be a *LimitError that wraps what it is compared with: use errors.Is"}
	file := streams.FileOf(pass, pos)
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryExpr:
			if n.OpPos == pos {
				d.Pos = n.Pos()
				d.SuggestedFixes = fix(pass, file, n.Pos(), edit(pass, n))
			}
		case *ast.SwitchStmt:
			for _, c := range n.Body.List {
				for _, e := range c.(*ast.CaseClause).List {
					if e.Pos() == pos && n.Tag != nil {
						d.Pos = e.Pos()
						d.SuggestedFixes = fix(pass, file, n.Pos(), edits(pass, n)...)
					}
				}
			}
		}
		return true
	})
	pass.Report(d)
}

// edit replaces a comparison with errors.Is.
func edit(pass *analysis.Pass, n *ast.BinaryExpr) analysis.TextEdit {
	not := ""
	if n.Op == token.NEQ {
		not = "!"
	}
	x, y := n.X, n.Y
	if !isErrorVariable(pass, x) { // as in io.EOF == err
		x, y = y, x
	}
	return analysis.TextEdit{Pos: n.Pos(), End: n.End(), NewText: []byte(not + is(pass, x, y))}
}

// isErrorVariable says whether e is a local variable.
func isErrorVariable(pass *analysis.Pass, e ast.Expr) bool {
	id, ok := ast.Unparen(e).(*ast.Ident)
	if !ok {
		return false
	}
	v, ok := pass.TypesInfo.Uses[id].(*types.Var)
	return ok && v.Parent() != pass.Pkg.Scope()
}

// edits turns a switch on an error into a switch without a tag.
func edits(pass *analysis.Pass, n *ast.SwitchStmt) []analysis.TextEdit {
	if !isErrorVariable(pass, n.Tag) {
		return nil
	}
	edits := []analysis.TextEdit{{Pos: n.Tag.Pos(), End: n.Body.Lbrace}}
	for _, c := range n.Body.List {
		for _, e := range c.(*ast.CaseClause).List {
			text := is(pass, n.Tag, e)
			if id, ok := e.(*ast.Ident); ok && id.Name == "nil" {
				text = source(pass, n.Tag) + " == nil"
			}
			edits = append(edits, analysis.TextEdit{Pos: e.Pos(), End: e.End(), NewText: []byte(text)})
		}
	}
	return edits
}

func is(pass *analysis.Pass, err, target ast.Expr) string {
	return fmt.Sprintf("errors.Is(%s, %s)", source(pass, err), source(pass, target))
}

func source(pass *analysis.Pass, e ast.Expr) string {
	var b strings.Builder
	if err := format.Node(&b, pass.Fset, e); err != nil {
		return ""
	}
	return b.String()
}

// fix returns a fix of these edits, and imports errors if necessary. It returns
// none where the name errors means something else.
func fix(pass *analysis.Pass, file *ast.File, pos token.Pos, edits ...analysis.TextEdit) []analysis.SuggestedFix {
	if len(edits) == 0 {
		return nil
	}
	imported := false
	for _, i := range file.Imports {
		if path, _ := strconv.Unquote(i.Path.Value); path == "errors" && i.Name == nil {
			imported = true
		}
	}
	scope := pass.TypesInfo.Scopes[file].Innermost(pos)
	if scope == nil {
		return nil
	}
	_, what := scope.LookupParent("errors", pos)
	if p, ok := what.(*types.PkgName); what != nil && (!ok || p.Imported().Path() != "errors") || what == nil && imported {
		return nil
	}
	if !imported {
		edits = append(edits, importErrors(file))
	}
	return []analysis.SuggestedFix{{Message: "Use errors.Is", TextEdits: edits}}
}

// importErrors adds the import, in the first group of imports if there is one.
func importErrors(file *ast.File) analysis.TextEdit {
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.IMPORT {
			continue
		}
		if g.Lparen.IsValid() && len(g.Specs) > 0 {
			// In the order that gofmt wants.
			at := g.Specs[0].Pos()
			for i, s := range g.Specs {
				if s.(*ast.ImportSpec).Path.Value > `"errors"` {
					break
				}
				if i+1 == len(g.Specs) {
					return analysis.TextEdit{Pos: s.End(), End: s.End(), NewText: []byte("\n\t\"errors\"")}
				}
				at = g.Specs[i+1].Pos()
			}
			return analysis.TextEdit{Pos: at, End: at, NewText: []byte("\"errors\"\n\t")}
		}
		return analysis.TextEdit{Pos: g.Pos(), End: g.Pos(), NewText: []byte("import \"errors\"\n")}
	}
	return analysis.TextEdit{Pos: file.Name.End(), End: file.Name.End(), NewText: []byte("\n\nimport \"errors\"")}
}
