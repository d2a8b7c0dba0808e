package main

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Building takes longer than most tests. So all mutations are built into one
// library, and an environment variable chooses one. A generated mutation is a few
// insertions that keep the old code: a < b becomes Less(17, a, b), and x = y
// becomes if !On(17) { x = y }. They nest. They add no line, and no stack frame to
// the code inside them.

//go:embed mutant/mutant.go
var helperSource string

const (
	helper   = "mutant_" // the import name of package mutant
	idMark   = "\x00"    // stands for the id in the text of an edit
	chosenID = "QUICLIFE_MUTANT"
	reachLog = "QUICLIFE_REACHED"
)

// An edit removes some bytes, and inserts text. If several are at one place, the
// closing ones come first, the inner before the outer, then the opening ones.
type edit struct {
	at, remove int // bytes
	text       string
	closes     bool
}

// A library is a copy of the module. The root package is mutated, and the packages
// of the module that it imports.
type library struct {
	dir, path string
	set       *token.FileSet
	packages  []*goPackage // the root package last
	exports   map[string]string
	importer  types.Importer
}

type goPackage struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	Module                  *struct{ Main bool }

	files   []string // below the root of the library
	sources []string
	syntax  []*ast.File
	types   *types.Package
	info    *types.Info
}

// load reads and checks the library in dir.
func load(ctx context.Context, dir string) (*library, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	args := []string{"list", "-deps", "-export", "-json=ImportPath,Dir,Export,GoFiles,Module", "."}
	cmd := goCommand(ctx, dir, append(args, "cmp", "os", "strconv", "sync/atomic")...) // the helper imports these
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("the library does not compile: %w", err)
	}
	lib := &library{dir: dir, set: token.NewFileSet(), exports: make(map[string]string)}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(goPackage)
		if err := dec.Decode(p); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		lib.exports[p.ImportPath] = p.Export
		if p.Module != nil && p.Module.Main {
			lib.packages = append(lib.packages, p)
		}
	}
	lib.path = lib.packages[len(lib.packages)-1].ImportPath
	lib.importer = lib.newImporter()
	for _, p := range lib.packages {
		for _, name := range p.GoFiles {
			path := filepath.Join(p.Dir, name)
			source, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			f, err := parser.ParseFile(lib.set, path, source, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				return nil, err
			}
			p.files = append(p.files, filepath.ToSlash(rel))
			p.sources, p.syntax = append(p.sources, string(source)), append(p.syntax, f)
		}
		p.info = &types.Info{
			Types: make(map[ast.Expr]types.TypeAndValue), Uses: make(map[*ast.Ident]types.Object),
			Defs: make(map[*ast.Ident]types.Object), Implicits: make(map[ast.Node]types.Object),
		}
		if p.types, err = (&types.Config{Importer: lib.importer}).Check(p.ImportPath, lib.set, p.syntax, p.info); err != nil {
			return nil, err
		}
	}
	return lib, nil
}

// goCommand returns a go command that runs in a module and ignores workspaces.
func goCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off")
	return cmd
}

func (lib *library) helperPath() string { return lib.path + "/internal/mutant" }

type importerFunc func(path string) (*types.Package, error)

func (f importerFunc) Import(path string) (*types.Package, error) { return f(path) }

// newImporter imports the packages that the library imports, from the compiler's
// export data, and the helper, which does not exist yet.
func (lib *library) newImporter() types.Importer {
	compiled := importer.ForCompiler(lib.set, "gc", func(path string) (io.ReadCloser, error) {
		if lib.exports[path] == "" {
			return nil, fmt.Errorf("%s is not imported", path)
		}
		return os.Open(lib.exports[path])
	})
	var helperPackage *types.Package
	return importerFunc(func(path string) (*types.Package, error) {
		if path != lib.helperPath() {
			return compiled.Import(path)
		}
		if helperPackage == nil {
			f, err := parser.ParseFile(lib.set, "mutant.go", helperSource, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			if helperPackage, err = (&types.Config{Importer: compiled}).Check(path, lib.set, []*ast.File{f}, nil); err != nil {
				return nil, err
			}
		}
		return helperPackage, nil
	})
}

// A span is where a mutation lies in a rewritten file.
type span struct{ from, to, id int }

// rewrite returns a source with the edits of ms.
func rewrite(source string, ms []mutation) (string, []span) {
	type numbered struct {
		edit
		id, order int
	}
	var edits []numbered
	for i, m := range ms {
		for _, e := range m.edits {
			n := numbered{e, m.id, 2 * (i + 1)} // an outer mutation is made before an inner one
			switch {
			case e.closes:
				n.order = -n.order
			case e.remove > 0:
				n.order = 0
			}
			edits = append(edits, n)
		}
	}
	slices.SortStableFunc(edits, func(a, b numbered) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.order, b.order)) })
	spans := make(map[int]span)
	var out strings.Builder
	at := 0
	for _, e := range edits {
		out.WriteString(source[at:e.at])
		s, ok := spans[e.id]
		if !ok {
			s = span{from: out.Len(), id: e.id}
		}
		out.WriteString(strings.ReplaceAll(e.text, idMark, strconv.Itoa(e.id)))
		s.to = out.Len()
		spans[e.id] = s
		at = e.at + e.remove
	}
	out.WriteString(source[at:])
	return out.String(), slices.Collect(maps.Values(spans))
}

// importing adds the import of the helper to a file, on the line of the package
// clause. It returns how many bytes it added.
func (lib *library) importing(f *ast.File, source string) (string, int) {
	at := lib.set.Position(f.Name.End()).Offset
	text := "; import " + helper + " " + strconv.Quote(lib.helperPath())
	return source[:at] + text + source[at:], len(text)
}

// rewritten returns the files that generated mutations change, with all of these
// mutations, and where each mutation is.
func (lib *library) rewritten(ms []mutation) (files map[string]string, spans map[string][]span) {
	files, spans = make(map[string]string), make(map[string][]span)
	for _, p := range lib.packages {
		for i, file := range p.files {
			of := slices.DeleteFunc(slices.Clone(ms), func(m mutation) bool { return m.file != file || m.edits == nil })
			if len(of) == 0 {
				continue
			}
			source, in := rewrite(p.sources[i], of)
			source, shift := lib.importing(p.syntax[i], source)
			for i := range in {
				in[i].from, in[i].to = in[i].from+shift, in[i].to+shift
			}
			files[file], spans[file] = source, in
		}
	}
	return files, spans
}

// check reports the compiler's errors for the library with some files replaced.
func (lib *library) check(files map[string]string, report func(where token.Position, err error)) error {
	for _, p := range lib.packages {
		set := token.NewFileSet()
		var syntax []*ast.File
		for i, file := range p.files {
			source, ok := files[file]
			if !ok {
				source = p.sources[i]
			}
			f, err := parser.ParseFile(set, file, source, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			syntax = append(syntax, f)
		}
		conf := types.Config{Importer: lib.importer, Error: func(err error) {
			report(set.Position(err.(types.Error).Pos), err)
		}}
		conf.Check(p.ImportPath, set, syntax, nil) // conf.Error got all errors
	}
	return nil
}

// compiling returns those of the generated mutations that compile, numbered.
func (lib *library) compiling(ms []mutation) ([]mutation, error) {
	for {
		number(ms)
		files, spans := lib.rewritten(ms)
		faulty := make(map[int]bool)
		var fatal error
		err := lib.check(files, func(where token.Position, err error) {
			var inner, before span // a missing return is reported after the dropped statement
			for _, s := range spans[where.Filename] {
				switch {
				case s.to <= where.Offset && s.to > before.to:
					before = s
				case s.from <= where.Offset && where.Offset < s.to && (inner.id == 0 || s.to-s.from < inner.to-inner.from):
					inner = s
				}
			}
			id := cmp.Or(inner.id, before.id)
			if id == 0 {
				fatal = err
			}
			faulty[id] = true
		})
		if err := cmp.Or(err, fatal); err != nil || len(faulty) == 0 {
			return ms, err
		}
		ms = slices.DeleteFunc(slices.Clone(ms), func(m mutation) bool { return faulty[m.id] })
	}
}
