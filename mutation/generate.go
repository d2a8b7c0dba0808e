package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
)

// These mutations are made from the syntax tree, so nobody chooses them. The list
// that we wrote breaks what we thought of, and we test what we thought of.

// A generator makes the mutations of one file.
type generator struct {
	file   string // below the root of the library
	source string
	set    *token.FileSet
	info   *types.Info
	own    *types.Package
	names  map[string]string // of imported packages, by path

	zeros map[types.Object]bool // named results that are never assigned

	scope string // the function, with its receiver
	seen  map[ast.Expr]bool
	keys  map[string]int
	made  []mutation
}

// generate returns all mutations that the syntax allows.
func generate(lib *library) (ms []mutation) {
	for _, p := range lib.packages {
		for i, f := range p.syntax {
			g := &generator{file: p.files[i], source: p.sources[i], set: lib.set, info: p.info, own: p.types,
				zeros: zeros(f, p.info), names: make(map[string]string), seen: make(map[ast.Expr]bool), keys: make(map[string]int)}
			for _, spec := range f.Imports {
				name := p.info.PkgNameOf(spec)
				g.names[name.Imported().Path()] = name.Name()
			}
			for _, d := range f.Decls {
				g.declaration(d)
			}
			for i, m := range g.made {
				if path.Dir(m.file) != "." {
					g.made[i].name = p.types.Name() + "." + m.name
				}
			}
			ms = append(ms, g.made...)
		}
	}
	for i := range ms {
		ms[i].equivalent = equivalents[ms[i].name]
	}
	return ms
}

func (g *generator) declaration(d ast.Decl) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		g.scope = d.Name.Name
		if d.Recv != nil {
			t := d.Recv.List[0].Type
			if star, ok := t.(*ast.StarExpr); ok {
				t = star.X
			}
			g.scope = g.text(t) + "." + g.scope
		}
		if d.Body != nil {
			g.walk(d.Body, d.Type.Results)
		}
	case *ast.GenDecl:
		if d.Tok != token.VAR {
			return
		}
		for _, spec := range d.Specs {
			spec := spec.(*ast.ValueSpec)
			g.scope = spec.Names[0].Name
			for _, v := range spec.Values {
				g.walk(v, nil)
			}
		}
	}
}

// walk makes the mutations of a tree, within a function that has these results.
func (g *generator) walk(root ast.Node, results *ast.FieldList) {
	ast.Inspect(root, func(n ast.Node) bool {
		if e, ok := n.(ast.Expr); ok {
			if tv := g.info.Types[e]; tv.IsType() {
				return false
			} else if tv.Value != nil {
				g.constant(e, tv)
				return false
			}
		}
		switch n := n.(type) {
		case *ast.FuncLit:
			g.walk(n.Body, n.Type.Results)
			return false
		case *ast.BlockStmt:
			g.statements(n.List)
		case *ast.CaseClause:
			g.statements(n.Body)
		case *ast.CommClause:
			g.statements(n.Body)
		case *ast.IfStmt:
			g.negate(n.Cond)
		case *ast.ForStmt:
			if n.Cond != nil {
				g.negate(n.Cond)
			}
		case *ast.SwitchStmt:
			if n.Tag == nil {
				for _, c := range n.Body.List {
					for _, e := range c.(*ast.CaseClause).List {
						g.negate(e)
					}
				}
			}
		case *ast.ReturnStmt:
			g.returned(n, results)
		case *ast.UnaryExpr:
			if n.Op == token.NOT {
				g.negate(n)
			}
		case *ast.BinaryExpr:
			g.operator(n)
		case *ast.CompositeLit:
			if _, ok := g.info.TypeOf(n).Underlying().(*types.Map); !ok { // the keys are field names, or must be constant
				for _, e := range n.Elts {
					if kv, ok := e.(*ast.KeyValueExpr); ok {
						e = kv.Value
					}
					g.walk(e, results)
				}
				return false
			}
		}
		return true
	})
}

// on is an expression that says whether a mutation was chosen.
const on = helper + ".On(" + idMark + ")"

var helpers = map[token.Token]struct{ name, becomes string }{
	token.LSS: {"Less", "<="},
	token.LEQ: {"LessEqual", "<"},
	token.GTR: {"Greater", ">="},
	token.GEQ: {"GreaterEqual", ">"},
	token.ADD: {"Add", "-"},
	token.SUB: {"Sub", "+"},
	token.MUL: {"Mul", "/"},
	token.QUO: {"Quo", "*"},
}

func (g *generator) operator(e *ast.BinaryExpr) {
	becomes := func(op string) string { return fmt.Sprintf("%s: %v becomes %s", g.text(e), e.Op, op) }
	switch e.Op {
	case token.EQL:
		g.add(e.OpPos, becomes("!="), g.wrap(e, "((", ") != "+on+")")...)
	case token.NEQ:
		g.add(e.OpPos, becomes("=="), g.wrap(e, "((", ") != "+on+")")...)
	case token.LAND, token.LOR: // De Morgan's law, so that neither operand is written twice
		op := "||"
		if e.Op == token.LOR {
			op = "&&"
		}
		g.add(e.OpPos, becomes(op), slices.Concat(g.wrap(e.X, "(((", ") != "+on), g.wrap(e.Y, "(", ") != "+on+") != "+on+")"))...)
	default:
		h, ok := helpers[e.Op]
		if basic, isBasic := g.info.TypeOf(e).Underlying().(*types.Basic); ok && isBasic && basic.Info()&types.IsString == 0 {
			comma := edit{at: g.offset(e.OpPos), remove: len(e.Op.String()), text: ","}
			g.add(e.OpPos, becomes(h.becomes), append(g.wrap(e, helper+"."+h.name+"("+idMark+", ", ")"), comma)...)
		}
	}
}

// negate negates a condition. A comparison of two values has other mutations.
func (g *generator) negate(e ast.Expr) {
	inner := ast.Unparen(e)
	if b, ok := inner.(*ast.BinaryExpr); g.seen[inner] || g.info.Types[e].Value != nil ||
		ok && (b.Op == token.EQL || b.Op == token.NEQ) {
		return
	}
	g.seen[inner] = true
	g.add(e.Pos(), g.text(e)+": negated", g.wrap(e, "((", ") != "+on+")")...)
}

// constant mutates the literals of a constant expression.
func (g *generator) constant(e ast.Expr, tv types.TypeAndValue) {
	if id, ok := e.(*ast.Ident); ok && (id.Name == "true" || id.Name == "false") {
		g.add(e.Pos(), id.Name+": negated", g.wrap(e, "(", " != "+on+")")...)
		return
	}
	if b, ok := tv.Type.Underlying().(*types.Basic); !ok || b.Info()&types.IsNumeric == 0 {
		return
	}
	typ, ok := g.typeName(types.Default(tv.Type))
	if !ok {
		return
	}
	ast.Inspect(e, func(n ast.Node) bool {
		lit, ok := n.(*ast.BasicLit)
		if !ok || lit.Kind != token.INT && lit.Kind != token.FLOAT {
			return true
		}
		mutated := map[string]string{"0": "1", "1": "0"}[lit.Value]
		if mutated == "" {
			mutated = "(" + lit.Value + "+1)"
		}
		whole, at := g.text(e), int(lit.Pos()-e.Pos())
		g.add(lit.Pos(), lit.Value+" becomes "+strings.Trim(mutated, "()"),
			g.wrap(e, helper+".Pick["+typ+"]("+idMark+", ", ", "+whole[:at]+mutated+whole[at+len(lit.Value):]+")")...)
		return true
	})
}

// typeName returns the name of t in the file, if it has one there.
func (g *generator) typeName(t types.Type) (name string, ok bool) {
	ok = true
	name = types.TypeString(t, func(p *types.Package) string {
		if p == g.own {
			return ""
		}
		name := g.names[p.Path()]
		ok = ok && name != ""
		return name
	})
	return name, ok
}

// returned mutates a returned value: to nil if it is an error, to the opposite if
// it is a bool, else to the zero value.
func (g *generator) returned(s *ast.ReturnStmt, results *ast.FieldList) {
	var resultTypes []ast.Expr
	if results != nil {
		for _, f := range results.List {
			resultTypes = append(resultTypes, slices.Repeat([]ast.Expr{f.Type}, max(1, len(f.Names)))...)
		}
	}
	if len(s.Results) != len(resultTypes) {
		return // a naked return, or all results of one call
	}
	for i, e := range s.Results {
		tv := g.info.Types[e]
		if lit, ok := e.(*ast.CompositeLit); tv.Value != nil || tv.IsNil() || ok && len(lit.Elts) == 0 {
			continue // already zero, or has its own mutations
		}
		if id, ok := e.(*ast.Ident); ok && g.zeros[g.info.ObjectOf(id)] {
			continue
		}
		if b, ok := tv.Type.Underlying().(*types.Basic); ok && b.Info()&types.IsBoolean != 0 {
			g.negate(e)
			continue
		}
		g.add(e.Pos(), g.text(e)+": zero is returned", g.wrap(e, helper+".Zero["+g.text(resultTypes[i])+"]("+idMark+", ", ")")...)
	}
}

// zeros returns the named results in a file that are used only to be returned.
func zeros(f *ast.File, info *types.Info) map[types.Object]bool {
	found, returned := make(map[types.Object]bool), make(map[*ast.Ident]bool)
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncType:
			if n.Results != nil {
				for _, field := range n.Results.List {
					for _, name := range field.Names {
						found[info.ObjectOf(name)] = true
					}
				}
			}
		case *ast.ReturnStmt:
			for _, e := range n.Results {
				if id, ok := e.(*ast.Ident); ok {
					returned[id] = true
				}
			}
		case *ast.Ident:
			if info.Uses[n] != nil && !returned[n] {
				delete(found, info.Uses[n])
			}
		}
		return true
	})
	return found
}

var swapped = map[token.Token]token.Token{
	token.ADD_ASSIGN: token.SUB_ASSIGN, token.SUB_ASSIGN: token.ADD_ASSIGN,
	token.MUL_ASSIGN: token.QUO_ASSIGN, token.QUO_ASSIGN: token.MUL_ASSIGN,
	token.INC: token.DEC, token.DEC: token.INC,
}

func (g *generator) statements(list []ast.Stmt) {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.ExprStmt:
			if !g.locks(s.X) {
				g.drop(s)
			}
		case *ast.DeferStmt:
			if !g.locks(s.Call) {
				g.drop(s)
			}
		case *ast.GoStmt, *ast.SendStmt:
			g.drop(s)
		case *ast.IncDecStmt:
			g.drop(s)
			g.swap(s, s.TokPos, s.Tok)
		case *ast.AssignStmt:
			blank := !slices.ContainsFunc(s.Lhs, func(e ast.Expr) bool { id, ok := e.(*ast.Ident); return !ok || id.Name != "_" })
			if s.Tok != token.DEFINE && !blank {
				g.drop(s)
			}
			g.swap(s, s.TokPos, s.Tok)
		}
	}
}

// locks reports whether e locks or unlocks. Without it everything hangs or crashes
// at once, which says nothing about the tests.
func (g *generator) locks(e ast.Expr) bool {
	if c, ok := e.(*ast.CallExpr); ok {
		if sel, ok := c.Fun.(*ast.SelectorExpr); ok {
			f := g.info.ObjectOf(sel.Sel)
			return f != nil && f.Pkg() != nil && f.Pkg().Path() == "sync" && strings.HasSuffix(strings.ToLower(f.Name()), "lock")
		}
	}
	return false
}

func (g *generator) drop(s ast.Stmt) {
	g.add(s.Pos(), g.text(s)+": dropped", g.wrap(s, "if !"+on+" { ", " }")...)
	if strings.HasPrefix(g.text(s), "runtime.KeepAlive(") { // it keeps its argument alive even in a branch that is not taken
		m := &g.made[len(g.made)-1]
		m.alone, m.at, m.old, m.new = true, g.offset(s.Pos()), g.text(s), "_ = runtime.KeepAlive"
	}
}

func (g *generator) swap(s ast.Stmt, pos token.Pos, op token.Token) {
	if other, ok := swapped[op]; ok { // if these are strings, it does not compile
		at := int(pos - s.Pos())
		whole := g.text(s)
		mutated := whole[:at] + other.String() + whole[at+len(op.String()):]
		g.add(pos, fmt.Sprintf("%s: %v becomes %v", whole, op, other), g.wrap(s, "if "+on+" { "+mutated+" } else { ", " }")...)
	}
}

// wrap returns the edits that put text before and after n.
func (g *generator) wrap(n ast.Node, before, after string) []edit {
	return []edit{{at: g.offset(n.Pos()), text: before}, {at: g.offset(n.End()), text: after, closes: true}}
}

func (g *generator) offset(p token.Pos) int { return g.set.Position(p).Offset }

func (g *generator) text(n ast.Node) string {
	return g.source[g.offset(n.Pos()):g.offset(n.End())]
}

// add makes a mutation.
func (g *generator) add(at token.Pos, change string, edits ...edit) {
	pos := g.set.Position(at)
	lines := strings.SplitN(g.source[pos.Offset-pos.Column+1:], "\n", 2)
	line, _, _ := strings.Cut(lines[0], "//")
	line = strings.TrimSpace(strings.TrimRight(line, " {:\t"))
	change = strings.Join(strings.Fields(change), " ")
	if _, what, _ := strings.Cut(change, ": "); strings.HasPrefix(change, line+": ") { // the whole line
		change = what
	}
	if what := []rune(change); len(what) > 150 {
		change = string(what[:70]) + " ... " + string(what[len(what)-70:])
	}
	key := g.scope + ": " + line + ": " + change
	g.keys[key]++
	if n := g.keys[key]; n > 1 {
		key += fmt.Sprint(" #", n)
	}
	g.made = append(g.made, mutation{file: g.file, line: pos.Line, column: pos.Column, name: key, edits: edits})
}

// sample chooses n mutations, the same for the same seed. It takes from each file
// in proportion to the number of its mutations.
func sample(ms []mutation, n int, seed uint64) (chosen []mutation) {
	if n >= len(ms) {
		return ms
	}
	byFile := make(map[string][]mutation)
	for _, m := range ms {
		byFile[m.file] = append(byFile[m.file], m)
	}
	random := rand.New(rand.NewPCG(seed, 0))
	var shuffled []mutation
	for _, file := range slices.Sorted(maps.Keys(byFile)) {
		of := byFile[file]
		random.Shuffle(len(of), func(i, j int) { of[i], of[j] = of[j], of[i] })
		shuffled = append(shuffled, of...)
	}
	for i, start := 0, random.IntN(len(shuffled)); i < n; i++ {
		chosen = append(chosen, shuffled[(start+i*len(shuffled)/n)%len(shuffled)])
	}
	slices.SortFunc(chosen, func(a, b mutation) int { return cmp.Compare(a.id, b.id) })
	return chosen
}
