package streams

import (
	"go/ast"
	"go/token"
	"strings"

	"golang.org/x/tools/go/analysis"
)

// Silent says whether to report nothing at pos: because its line has the comment
// //quiclife:ended, or because it is in a test, where streams end with their
// connections.
func Silent(pass *analysis.Pass, pos token.Pos, tests bool) bool {
	at := pass.Fset.Position(pos)
	if !tests && strings.HasSuffix(at.Filename, "_test.go") {
		return true
	}
	file := FileOf(pass, pos)
	if file == nil {
		return true
	}
	for _, group := range file.Comments {
		for _, c := range group.List {
			if pass.Fset.Position(c.Pos()).Line == at.Line && strings.HasPrefix(c.Text, "//quiclife:ended") {
				return true
			}
		}
	}
	return false
}

// FileOf returns the file of the package that pos is in, or nil.
func FileOf(pass *analysis.Pass, pos token.Pos) *ast.File {
	for _, f := range pass.Files {
		if f.FileStart <= pos && pos < f.FileEnd {
			return f
		}
	}
	return nil
}
