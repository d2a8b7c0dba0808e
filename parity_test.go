package quiclife_test

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// A parity compares the package of quic-go with ours.
type parity struct {
	theirs, ours *types.Package
	found        []string // the differences, one per line
}

func (p *parity) report(name, format string, args ...any) {
	p.found = append(p.found, name+": "+fmt.Sprintf(format, args...))
}

func wrapped(name string) bool {
	return slices.Contains([]string{"Conn", "Stream", "SendStream", "ReceiveStream", "Listener", "EarlyListener", "Transport"}, name)
}

// translate replaces the wrapped types by ours. Types that it does not look
// into stay as they are. That can only report a difference where there is none.
func (p *parity) translate(t types.Type) types.Type {
	tuple := func(t *types.Tuple) *types.Tuple {
		var vars []*types.Var
		for v := range t.Variables() {
			vars = append(vars, types.NewParam(token.NoPos, nil, v.Name(), p.translate(v.Type())))
		}
		return types.NewTuple(vars...)
	}
	switch t := types.Unalias(t).(type) {
	case *types.Named:
		if name := t.Obj().Name(); t.Obj().Pkg() == p.theirs && wrapped(name) {
			return p.ours.Scope().Lookup(name).Type()
		}
	case *types.Pointer:
		return types.NewPointer(p.translate(t.Elem()))
	case *types.Slice:
		return types.NewSlice(p.translate(t.Elem()))
	case *types.Map:
		return types.NewMap(p.translate(t.Key()), p.translate(t.Elem()))
	case *types.Signature:
		return types.NewSignatureType(nil, nil, nil, tuple(t.Params()), tuple(t.Results()), t.Variadic())
	}
	return t
}

// compare compares an object of quic-go with ours of the same name.
func (p *parity) compare(name string, theirs, ours types.Object) {
	if ours == nil {
		p.report(name, "missing")
	} else if kind := fmt.Sprintf("%T", theirs); fmt.Sprintf("%T", ours) != kind {
		p.report(name, "not a %s", kind)
	} else if want := p.translate(theirs.Type()); !types.Identical(want, ours.Type()) {
		p.report(name, "is %v, not %v", ours.Type(), want)
	} else if c, ok := theirs.(*types.Const); ok && !constant.Compare(c.Val(), token.EQL, ours.(*types.Const).Val()) {
		p.report(name, "is %v, not %v", ours.(*types.Const).Val(), c.Val())
	}
}

// members returns the exported methods and fields of a type.
func members(t types.Type) (objs []types.Object) {
	if s, ok := t.Underlying().(*types.Struct); ok {
		for f := range s.Fields() {
			objs = append(objs, f)
		}
	}
	if !types.IsInterface(t) {
		t = types.NewPointer(t)
	}
	for m := range types.NewMethodSet(t).Methods() {
		objs = append(objs, m.Obj())
	}
	return slices.DeleteFunc(objs, func(o types.Object) bool { return !o.Exported() })
}

// differences returns the names that quic-go has and we lack. It also returns
// members of aliased types that use one of the types wrapped here.
func differences(theirs, ours *types.Package) []string {
	p := &parity{theirs: theirs, ours: ours}
	for _, name := range theirs.Scope().Names() {
		their, our := theirs.Scope().Lookup(name), ours.Scope().Lookup(name)
		if !their.Exported() {
			continue
		}
		p.compare(name, their, our)
		if _, ok := their.(*types.TypeName); !ok || our == nil {
			continue
		}
		for _, m := range members(their.Type()) {
			member := name + "." + m.Name()
			if wrapped(name) {
				found, _, _ := types.LookupFieldOrMethod(our.Type(), true, ours, m.Name())
				p.compare(member, m, found)
			} else if !types.Identical(p.translate(m.Type()), m.Type()) {
				p.report(member, "has a wrapped type")
			}
		}
	}
	return p.found
}

// TestNoNameOfQuicGosIsMissing tests the promise of the import swap: if an
// upgrade of quic-go brings a name, a method or a field that we lack, it fails.
func TestNoNameOfQuicGosIsMissing(t *testing.T) {
	const theirPath, ourPath = "github.com/quic-go/quic-go", "github.com/quiclife/quiclife"
	list := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", theirPath, ourPath)
	list.Stderr = os.Stderr
	out, err := list.Output() // in the directory of this package, so that its go.mod counts
	require.NoError(t, err)
	files := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		files[path] = file
	}
	imp := importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) { return os.Open(files[path]) })
	theirs, err := imp.Import(theirPath)
	require.NoError(t, err)
	ours, err := imp.Import(ourPath)
	require.NoError(t, err)

	// The one known exception. docs/CALLS.md describes it.
	require.Equal(t, []string{"Config.AllowConnectionWindowIncrease: has a wrapped type"}, differences(theirs, ours))

	values := map[string][2]any{
		"Err0RTTRejected":       {quiclife.Err0RTTRejected, quic.Err0RTTRejected},
		"ErrPathClosed":         {quiclife.ErrPathClosed, quic.ErrPathClosed},
		"ErrPathNotValidated":   {quiclife.ErrPathNotValidated, quic.ErrPathNotValidated},
		"ErrServerClosed":       {quiclife.ErrServerClosed, quic.ErrServerClosed},
		"ErrStreamClosed":       {quiclife.ErrStreamClosed, quic.ErrStreamClosed},
		"ErrTransportClosed":    {quiclife.ErrTransportClosed, quic.ErrTransportClosed},
		"ErrWouldBlock":         {quiclife.ErrWouldBlock, quic.ErrWouldBlock},
		"ErrWriteLimitReached":  {quiclife.ErrWriteLimitReached, quic.ErrWriteLimitReached},
		"QUICVersionContextKey": {quiclife.QUICVersionContextKey, quic.QUICVersionContextKey},
	}
	for _, name := range theirs.Scope().Names() {
		if v, ok := theirs.Scope().Lookup(name).(*types.Var); ok && v.Exported() {
			require.Contains(t, values, name)
			require.True(t, values[name][0] == values[name][1], "%s is another value", name)
		}
	}
}

type importerFunc func(string) (*types.Package, error)

func (f importerFunc) Import(path string) (*types.Package, error) { return f(path) }

// TestMissingNamesAreFound shows that TestNoNameOfQuicGosIsMissing can fail.
func TestMissingNamesAreFound(t *testing.T) {
	t.Parallel()
	check := func(path, source string, imp importerFunc) *types.Package {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, source, 0)
		require.NoError(t, err)
		pkg, err := (&types.Config{Importer: imp}).Check(path, fset, []*ast.File{file}, nil)
		require.NoError(t, err)
		return pkg
	}
	const common = `
		type Stream struct{}
		type Conn struct{}
		type Transport struct { A int; B func() *Conn }
		func (*Conn) Open(int) (*Stream, error) { return nil, nil }
		func Dial(...func(map[string]*Conn)) {}`
	const aliases = `
		const X = quic.X
		var E = quic.E
		type Mixed = quic.Mixed`
	theirs := check("quic", "package quic; const X = 1; var E error; type Mixed struct { F func(*Conn) }"+common, nil)
	for _, tt := range []struct{ old, new, want string }{
		{"", "", "Mixed.F: has a wrapped type"}, // in all of them
		{"const X = quic.X", "", "X: missing"},
		{"const X = quic.X", "const X = 2", "X: is 2, not 1"},
		{"const X = quic.X", "var X = 1", "X: not a *types.Const"},
		{"var E = quic.E", "var E any", "E: is any, not error"},
		{"Mixed = quic.Mixed", "Mixed struct{}", "Mixed: is quiclife.Mixed, not quic.Mixed"},
		{"(*Conn) Open", "(*Conn) open", "Conn.Open: missing"},
		{"Open(int)", "Open(uint)", "Conn.Open: is func(uint) (*quiclife.Stream, error), not func(int) (*quiclife.Stream, error)"},
		{"(*Stream, error)", "(*quic.Stream, error)", "Conn.Open: is func(int) (*quic.Stream, error), not func(int) (*quiclife.Stream, error)"},
		{"A int; ", "", "Transport.A: missing"},
		{"A int; ", "A uint; ", "Transport.A: is uint, not int"},
		{"*Conn }", "*quic.Conn }", "Transport.B: is func("},
		{"]*Conn)", "]*quic.Conn)", "Dial: is func("},
		{"...func", "[]func", "Dial: is func("},
	} {
		source := strings.Replace(`package quiclife; import "quic"`+aliases+common, tt.old, tt.new, 1)
		found := differences(theirs, check("quiclife", source, func(string) (*types.Package, error) { return theirs, nil }))
		require.Len(t, found, min(len(tt.old)+1, 2), tt.want)
		require.Contains(t, strings.Join(found, "\n"), tt.want)
	}
}
