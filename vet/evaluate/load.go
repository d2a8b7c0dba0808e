package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/tools/go/packages"
)

// unit is a package of a program, or of its dependencies.
type unit struct {
	*packages.Package
	own   bool // of the program's own module
	files []*ast.File
	types *types.Package
	info  *types.Info
	errs  []error
}

// program has the packages of a module that use quic-go, and their dependencies.
// Each comes after the packages that it imports.
type program struct {
	fset  *token.FileSet
	units []*unit
	by    map[string]*unit
}

// withBodies are the packages whose function bodies are read, because some of
// their functions never return.
var withBodies = map[string]bool{
	"log": true, "os": true, "runtime": true, "testing": true, "github.com/sirupsen/logrus": true,
	"go.uber.org/zap": true, "github.com/rs/zerolog": true, "github.com/rs/zerolog/log": true,
}

// load type-checks packages from source: those of the module in full, the others
// without function bodies.
func load(dir string, patterns []string) (*program, error) {
	p := &program{fset: token.NewFileSet(), by: make(map[string]*unit)}
	listed, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedCompiledGoFiles | packages.NeedImports | packages.NeedDeps | packages.NeedModule,
		Dir:  dir,
		Env:  append(os.Environ(), "GOWORK=off", "GOTOOLCHAIN=local", "GOFLAGS=-mod=mod", "CGO_ENABLED=0"),
	}, patterns...)
	if err != nil {
		return nil, err
	}
	packages.Visit(listed, nil, func(l *packages.Package) {
		u := &unit{Package: l, own: l.Module != nil && l.Module.Main}
		p.units = append(p.units, u)
		p.by[l.ID] = u
	})
	for _, u := range p.units {
		if err := p.parse(u); err != nil {
			return nil, err
		}
		p.check(u)
	}
	return p, nil
}

func (p *program) parse(u *unit) error {
	for _, name := range u.CompiledGoFiles {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		f, err := parser.ParseFile(p.fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		u.files = append(u.files, f)
	}
	return nil
}

// check type-checks the files of u.
func (p *program) check(u *unit) {
	if u.PkgPath == "unsafe" {
		u.types = types.Unsafe
		return
	}
	u.errs = nil
	u.info = &types.Info{
		Types: make(map[ast.Expr]types.TypeAndValue), Instances: make(map[*ast.Ident]types.Instance),
		Defs: make(map[*ast.Ident]types.Object), Uses: make(map[*ast.Ident]types.Object),
		Implicits: make(map[ast.Node]types.Object), Selections: make(map[*ast.SelectorExpr]*types.Selection),
		Scopes: make(map[ast.Node]*types.Scope), FileVersions: make(map[*ast.File]string),
	}
	conf := types.Config{
		IgnoreFuncBodies: !u.own && !withBodies[u.PkgPath],
		FakeImportC:      true,
		Sizes:            types.SizesFor("gc", runtime.GOARCH),
		Error:            func(err error) { u.errs = append(u.errs, err) },
		Importer:         importer(func(path string) (*types.Package, error) { return p.imported(u, path) }),
	}
	u.types, _ = conf.Check(u.PkgPath, p.fset, u.files, u.info)
}

type importer func(path string) (*types.Package, error)

func (f importer) Import(path string) (*types.Package, error) { return f(path) }

func (p *program) imported(u *unit, path string) (*types.Package, error) {
	if path == "unsafe" {
		return types.Unsafe, nil
	}
	l := u.Imports[path]
	if l == nil || p.by[l.ID] == nil || p.by[l.ID].types == nil {
		return nil, errors.New("no package " + path)
	}
	return p.by[l.ID].types, nil
}

// sound returns an error if u cannot be analyzed. Errors in a dependency do not
// count, unless they cause errors here.
func (u *unit) sound() error {
	for _, err := range u.errs {
		if e, ok := err.(types.Error); !ok || !e.Soft {
			return fmt.Errorf("%d errors, the first: %w", len(u.errs), err)
		}
	}
	return nil
}

// users returns the directories below dir in which a file other than a test
// imports quic-go, by the directory of their module.
func users(dir string) (map[string][]string, error) {
	found := make(map[string][]string)
	last := ""
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "vendor" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || filepath.Dir(path) == last {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return nil
		}
		for _, i := range f.Imports {
			if name, _ := strconv.Unquote(i.Path.Value); name == "github.com/quic-go/quic-go" || name == "github.com/quiclife/quiclife" {
				last = filepath.Dir(path)
				module := last
				for module != dir {
					if _, err := os.Stat(filepath.Join(module, "go.mod")); err == nil {
						break
					}
					module = filepath.Dir(module)
				}
				rel, _ := filepath.Rel(module, last)
				found[module] = append(found[module], "./"+rel)
				break
			}
		}
		return nil
	})
	return found, err
}
