// Package streams follows the streams of quic-go and quiclife through the
// functions of a package. It reports nothing; the analyzers ask it.
package streams

import (
	"go/types"
	"strings"

	"golang.org/x/tools/go/ssa"
)

// The import paths of the libraries.
const (
	quicgoPath   = "github.com/quic-go/quic-go"
	quiclifePath = "github.com/quiclife/quiclife"
)

// A Kind says which halves a stream has on this side.
type Kind uint8

const (
	Bidirectional Kind = iota
	SendOnly
	ReceiveOnly
)

// A Library is the library that a stream's type belongs to.
type Library uint8

const (
	QuicGo Library = iota
	Quiclife
	Either // the type is a type parameter
)

// streamType says whether t is a stream of one of the libraries: a pointer to the
// struct, or the interface of older versions of quic-go.
func streamType(t types.Type) (Kind, Library, bool) {
	t = types.Unalias(t)
	p, isPointer := t.(*types.Pointer)
	if isPointer {
		t = types.Unalias(p.Elem())
	}
	named, ok := t.(*types.Named)
	if !ok || !isPointer && !types.IsInterface(named) {
		return 0, 0, false
	}
	lib, ok := libraryOf(named.Obj().Pkg())
	if !ok {
		return 0, 0, false
	}
	switch named.Obj().Name() {
	case "Stream":
		return Bidirectional, lib, true
	case "SendStream":
		return SendOnly, lib, true
	case "ReceiveStream":
		return ReceiveOnly, lib, true
	}
	return 0, 0, false
}

// libraryOf says which of the libraries p is. It may be vendored.
func libraryOf(p *types.Package) (Library, bool) {
	if p == nil {
		return 0, false
	}
	path := p.Path()
	if i := strings.LastIndex(path, "/vendor/"); i >= 0 {
		path = path[i+len("/vendor/"):]
	}
	switch strings.TrimPrefix(path, "vendor/") {
	case quicgoPath:
		return QuicGo, true
	case quiclifePath:
		return Quiclife, true
	}
	return 0, false
}

var openers = map[string]bool{
	"OpenStream": true, "OpenStreamSync": true, "OpenUniStream": true, "OpenUniStreamSync": true,
	"AcceptStream": true, "AcceptUniStream": true,
}

// Opens says whether c opens or accepts a stream. It does if it calls a method of
// one of the libraries, or of an interface, with the name and the results of
// theirs.
func Opens(c *ssa.Call) (Kind, Library, bool) {
	results := c.Call.Signature().Results()
	if results.Len() != 2 || !isError(results.At(1).Type()) {
		return 0, 0, false
	}
	name := MethodName(&c.Call)
	if !openers[name] {
		return 0, 0, false
	}
	kind, lib, ok := streamType(results.At(0).Type())
	if !ok {
		return genericStream(results.At(0).Type(), name)
	}
	if callee := c.Call.StaticCallee(); callee != nil && callee.Object() != nil {
		// A method of another package may keep the stream, too.
		if _, ours := libraryOf(callee.Object().Pkg()); !ours {
			return 0, 0, false
		}
	}
	return kind, lib, true
}

// genericStream is like streamType, for a type parameter that stands for a stream
// of either library. The name of the method that returns it tells the kind.
func genericStream(t types.Type, method string) (Kind, Library, bool) {
	if _, ok := types.Unalias(t).(*types.TypeParam); !ok || !isStreamInterface(t) {
		return 0, 0, false
	}
	switch method {
	case "OpenUniStream", "OpenUniStreamSync":
		return SendOnly, Either, true
	case "AcceptUniStream":
		return ReceiveOnly, Either, true
	}
	return Bidirectional, Either, true
}

// MethodName returns the name of the method that c calls, or "".
func MethodName(c *ssa.CallCommon) string {
	if c.IsInvoke() {
		return c.Method.Name()
	}
	if callee := c.StaticCallee(); callee != nil && callee.Signature.Recv() != nil {
		return callee.Name()
	}
	return ""
}

// receiver returns the value whose method c calls, or nil.
func receiver(c *ssa.CallCommon) ssa.Value {
	if c.IsInvoke() {
		return c.Value
	}
	if callee := c.StaticCallee(); callee != nil && callee.Signature.Recv() != nil && len(c.Args) > 0 {
		return c.Args[0]
	}
	return nil
}

// fullName is the name of the function that c calls, as in "io.ReadFull" or
// "(*bufio.Writer).Flush", or "".
func fullName(c *ssa.CallCommon) string {
	callee := c.StaticCallee()
	if callee == nil {
		return ""
	}
	if o := callee.Origin(); o != nil {
		callee = o
	}
	if f, ok := callee.Object().(*types.Func); ok {
		return f.FullName()
	}
	return ""
}

var errorType = types.Universe.Lookup("error").Type()

func isError(t types.Type) bool { return types.Identical(t, errorType) }

// methods are the methods of a stream, in either library.
var methods = map[string]bool{
	"Read": true, "Write": true, "Close": true, "CancelRead": true, "CancelWrite": true, "Peek": true,
	"SetDeadline": true, "SetReadDeadline": true, "SetWriteDeadline": true, "StreamID": true, "Context": true,
}

// couldHold says whether an argument of type t may be a stream, or a wrapper of
// the standard library around one.
func couldHold(t types.Type) bool {
	if _, _, ok := streamType(t); ok {
		return true
	}
	return isStreamInterface(t) || isWrapper(t)
}

// isStreamInterface says whether t is an interface with methods that a stream
// satisfies, or a type parameter with such a constraint.
func isStreamInterface(t types.Type) bool {
	if !types.IsInterface(t) { // type parameters count as interfaces
		return false
	}
	in := t.Underlying().(*types.Interface)
	if p, ok := types.Unalias(t).(*types.TypeParam); ok {
		in, ok = p.Constraint().Underlying().(*types.Interface)
		if !ok {
			return false
		}
	}
	for i := range in.NumMethods() {
		if !methods[in.Method(i).Name()] {
			return false
		}
	}
	return in.NumMethods() > 0
}

// isWrapper says whether t is the result type of a function that wraps a stream.
func isWrapper(t types.Type) bool {
	p, ok := types.Unalias(t).(*types.Pointer)
	if !ok {
		return false
	}
	named, ok := types.Unalias(p.Elem()).(*types.Named)
	return ok && named.Obj().Pkg() != nil && wrappers[named.Obj().Pkg().Path()+"."+named.Obj().Name()]
}

// holds says whether a stream satisfies the type assertion to t.
func holds(t types.Type) bool {
	_, _, ok := streamType(t)
	return ok || isStreamInterface(t)
}
