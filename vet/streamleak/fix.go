package streamleak

import (
	"go/ast"
	"go/token"

	"golang.org/x/tools/go/ast/astutil"
)

// afterErrorCheck finds the statement
//
//	name, err := conn.OpenStream()
//
// whose call's parenthesis is at lparen, and the if statement after it that
// returns. It returns the name, and the end of the if statement. The end is
// token.NoPos if the code looks different, or is in a loop, where a defer runs
// too late.
func afterErrorCheck(file *ast.File, lparen token.Pos) (name string, end token.Pos) {
	path, _ := astutil.PathEnclosingInterval(file, lparen, lparen)
	var assign *ast.AssignStmt
	var check *ast.IfStmt
	for i, n := range path {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if assign == nil {
				assign = n
			}
		case *ast.BlockStmt:
			if assign != nil && check == nil {
				check = next(n.List, path[i-1])
				if check == nil {
					return "", token.NoPos
				}
			}
		case *ast.ForStmt, *ast.RangeStmt, *ast.CaseClause, *ast.CommClause:
			return "", token.NoPos
		case *ast.FuncLit, *ast.FuncDecl:
			return variable(assign, check)
		}
	}
	return "", token.NoPos
}

// next returns the if statement that follows the given statement, or nil.
func next(list []ast.Stmt, after ast.Node) *ast.IfStmt {
	for i, s := range list {
		if s == after && i+1 < len(list) {
			check, _ := list[i+1].(*ast.IfStmt)
			return check
		}
	}
	return nil
}

// variable returns the variable that assign assigns the stream to, and the end
// of check, if both look as afterErrorCheck expects.
func variable(assign *ast.AssignStmt, check *ast.IfStmt) (string, token.Pos) {
	if assign == nil || check == nil || check.Init != nil || check.Else != nil || len(assign.Lhs) != 2 || len(assign.Rhs) != 1 {
		return "", token.NoPos
	}
	stream, isName := assign.Lhs[0].(*ast.Ident)
	err, _ := assign.Lhs[1].(*ast.Ident)
	cond, _ := check.Cond.(*ast.BinaryExpr)
	if !isName || stream.Name == "_" || err == nil || cond == nil || cond.Op != token.NEQ || len(check.Body.List) == 0 {
		return "", token.NoPos
	}
	x, _ := cond.X.(*ast.Ident)
	y, _ := cond.Y.(*ast.Ident)
	if x == nil || x.Name != err.Name || y == nil || y.Name != "nil" {
		return "", token.NoPos
	}
	if _, returns := check.Body.List[len(check.Body.List)-1].(*ast.ReturnStmt); !returns {
		return "", token.NoPos
	}
	return stream.Name, check.End()
}
