package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"slices"
	"strings"
)

// Our own mutations are built into one library, too, if they change the body of
// one function. If such a mutation is chosen, the function runs a mutated copy of
// itself.

// combined returns the files that mutations change, with all mutations that can be
// built together. It says which these are, by id.
func (lib *library) combined(ms []mutation) (files map[string]string, in map[int]bool) {
	files, _ = lib.rewritten(ms)
	in = make(map[int]bool)
	for _, m := range ms {
		in[m.id] = m.edits != nil
	}
	for _, p := range lib.packages {
		for i, file := range p.files {
			of := slices.DeleteFunc(slices.Clone(ms), func(m mutation) bool { return m.file != file || m.edits != nil })
			if source, done := combine(lib.set, p.syntax[i], p.sources[i], of); len(done) > 0 {
				files[file], _ = lib.importing(p.syntax[i], source)
				maps.Copy(in, done)
			}
		}
	}
	return files, in
}

// combine returns source with those mutations that lie within the body of a
// function. It says which these are, by id.
func combine(set *token.FileSet, parsed *ast.File, source string, ms []mutation) (string, map[int]bool) {
	done := make(map[int]bool)
	offset := func(p token.Pos) int { return set.Position(p).Offset }
	var out, copies bytes.Buffer
	at := 0
	for _, d := range parsed.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		start, end := offset(f.Body.Lbrace)+1, offset(f.Body.Rbrace)
		out.WriteString(source[at:start])
		at = start
		for i, m := range ms {
			mutated, err := m.apply(source)
			if err != nil || m.alone {
				continue
			}
			where := strings.Index(source, m.old)
			name := fmt.Sprintf("mutated%d_%s", i, f.Name.Name)
			call, ok := callOf(f, name)
			if !ok || where < start || where+len(m.old) > end {
				continue
			}
			if f.Type.Results == nil {
				call += "\n\t\treturn"
			} else {
				call = "return " + call
			}
			fmt.Fprintf(&out, "\n\tif %s.On(%d) {\n\t\t%s\n\t}", helper, m.id, call)
			fmt.Fprintf(&copies, "\n%s%s%s}\n", source[offset(f.Pos()):offset(f.Name.Pos())], name,
				mutated[offset(f.Name.End()):end+len(m.new)-len(m.old)])
			done[m.id] = true
		}
	}
	out.WriteString(source[at:])
	return out.String() + copies.String(), done
}

// callOf returns a call of a function like f with f's own arguments, if all of
// them have names.
func callOf(f *ast.FuncDecl, name string) (string, bool) {
	var args []string
	for _, p := range f.Type.Params.List {
		if len(p.Names) == 0 {
			return "", false
		}
		for _, n := range p.Names {
			if n.Name == "_" {
				return "", false
			}
			arg := n.Name
			if _, ok := p.Type.(*ast.Ellipsis); ok {
				arg += "..."
			}
			args = append(args, arg)
		}
	}
	if f.Recv != nil {
		if len(f.Recv.List[0].Names) == 0 {
			return "", false
		}
		name = f.Recv.List[0].Names[0].Name + "." + name
	}
	return name + "(" + strings.Join(args, ", ") + ")", true
}
