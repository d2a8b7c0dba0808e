package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/types"
	"log"
	"os"
	"slices"
	"strings"

	"golang.org/x/tools/go/ast/astutil"

	"github.com/quiclife/quiclife/vet/internal/streams"
)

var ends = map[string]bool{"Close": true, "CancelRead": true, "CancelWrite": true, "Release": true, "Reset": true}

// deleteEnds deletes the calls that end a stream, one at a time, and counts the
// leaks that are then found. It takes streams that stay in their function and
// have no finding.
func (d *driver) deleteEnds(u *unit, opened []*streams.Opened, before []finding) {
	for _, o := range opened {
		at := d.fset.Position(o.Call.Pos())
		if o.Escapes || slices.ContainsFunc(before, func(f finding) bool { return f.pos == at.String() }) || strings.HasSuffix(at.Filename, "_test.go") {
			continue
		}
		index := slices.IndexFunc(u.files, func(f *ast.File) bool { return f.FileStart <= o.Call.Pos() && o.Call.Pos() < f.FileEnd })
		file := u.files[index]
		path, _ := astutil.PathEnclosingInterval(file, o.Call.Pos(), o.Call.Pos())
		object := variable(u, path)
		if object == nil {
			fmt.Printf("   %s: not assigned to a variable\n", at)
			continue
		}
		for _, p := range endsOf(u, object, make(map[types.Object]bool)) {
			end, file := p.call, u.files[p.file]
			var err error
			if u.files[p.file], err = d.without(file, end); err != nil {
				log.Fatal(err)
			}
			d.check(u)
			if err := u.sound(); err != nil {
				fmt.Printf("   %s: %v\n", d.fset.Position(end.Pos()), err)
			} else {
				total.deleted++
				after, results := d.run(u, analyzers...)
				name := end.Fun.(*ast.SelectorExpr).Sel.Name
				if slices.ContainsFunc(after, func(f finding) bool { return f.pos == at.String() }) {
					total.found++
					fmt.Printf("   %s: without %s: found\n", d.fset.Position(end.Pos()), name)
				} else {
					fmt.Printf("   %s: without %s: not found: %s\n", d.fset.Position(end.Pos()), name, d.describe(results[streams.Analyzer].([]*streams.Opened), at.Line))
				}
			}
			u.files[p.file] = file
		}
	}
	d.check(u) // as it was
	d.run(u, analyzers...)
}

// describe says what the walk knows about the stream opened at line, in the run
// where an end is missing.
func (d *driver) describe(opened []*streams.Opened, line int) string {
	for _, now := range opened {
		if d.fset.Position(now.Call.Pos()).Line == line {
			if now.Escapes {
				return "handed on"
			}
			if len(now.Ends) == 0 {
				return "the connection or the process ends, or the function does not return"
			}
			var halves []string
			for _, e := range now.Ends {
				halves = append(halves, fmt.Sprintf("%d: send %d receive %d", d.fset.Position(e.Pos).Line, e.Send, e.Receive))
			}
			return strings.Join(halves, ", ")
		}
	}
	return "gone"
}

// variable returns the variable that the result of the call is assigned to.
func variable(u *unit, path []ast.Node) types.Object {
	for _, n := range path {
		if a, ok := n.(*ast.AssignStmt); ok {
			if id, ok := a.Lhs[0].(*ast.Ident); ok {
				return u.info.ObjectOf(id)
			}
			return nil
		}
	}
	return nil
}

// place is a call in a file of the package.
type place struct {
	file int
	call *ast.CallExpr
}

// endsOf returns the calls that end the stream in the variable. It also looks
// into the functions of the package that get the variable as an argument.
func endsOf(u *unit, variable types.Object, seen map[types.Object]bool) (found []place) {
	if seen[variable] {
		return nil
	}
	seen[variable] = true
	is := func(e ast.Expr) bool {
		id, ok := e.(*ast.Ident)
		return ok && u.info.Uses[id] == variable
	}
	for i, file := range u.files {
		ast.Inspect(file, func(n ast.Node) bool {
			c, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if sel, ok := c.Fun.(*ast.SelectorExpr); ok && ends[sel.Sel.Name] && is(sel.X) {
				found = append(found, place{i, c})
			}
			for j, arg := range c.Args {
				if p := parameter(u, c, j); is(arg) && p != nil {
					found = append(found, endsOf(u, p, seen)...)
				}
			}
			return true
		})
	}
	return found
}

// parameter returns the parameter that gets an argument of a call, if the
// function is in the package.
func parameter(u *unit, c *ast.CallExpr, index int) types.Object {
	var sig *types.Signature
	switch f := c.Fun.(type) {
	case *ast.FuncLit:
		sig, _ = u.info.TypeOf(f).(*types.Signature)
	case *ast.Ident, *ast.SelectorExpr:
		if s, ok := f.(*ast.SelectorExpr); ok {
			f = s.Sel
		}
		if fn, ok := u.info.Uses[f.(*ast.Ident)].(*types.Func); ok && fn.Pkg() == u.types {
			sig = fn.Signature()
		}
	}
	if sig == nil || index >= sig.Params().Len() {
		return nil
	}
	return sig.Params().At(index)
}

// without returns the file with a call replaced by something that does nothing.
func (d *driver) without(file *ast.File, call *ast.CallExpr) (*ast.File, error) {
	start, end, text := call.Pos(), call.End(), "error(nil)"
	path, _ := astutil.PathEnclosingInterval(file, call.Pos(), call.End())
	for i, n := range path {
		if n != call {
			continue
		}
		switch parent := path[i+1].(type) {
		case *ast.ExprStmt, *ast.DeferStmt:
			start, end = parent.Pos(), parent.End()
			text = "_ = " + call.Fun.(*ast.SelectorExpr).X.(*ast.Ident).Name
		}
	}
	name := d.fset.Position(file.Pos()).Filename
	source, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	source = slices.Concat(source[:d.fset.Position(start).Offset], []byte(text), source[d.fset.Position(end).Offset:])
	return parser.ParseFile(d.fset, name, source, parser.ParseComments|parser.SkipObjectResolution)
}
