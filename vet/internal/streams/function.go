package streams

import (
	"fmt"
	"go/token"
	"go/types"

	"golang.org/x/tools/go/ssa"
)

// function has what all walks through one function share.
type function struct {
	fn *ssa.Function
	// reach[i][j] says that block j runs at block i or later.
	reach [][]bool
	// conds has the conditions that are tested more than once, by their staticKey.
	conds map[string]*condition
	// cells are variables in memory whose every use is known: those shared with
	// closures.
	cells map[ssa.Value]bool
}

// condition is a condition that several branches test.
type condition struct {
	tests []*ssa.BasicBlock
	atoms []ssa.Value
}

func newFunction(fn *ssa.Function) *function {
	f := &function{fn: fn, conds: make(map[string]*condition), cells: make(map[ssa.Value]bool)}
	f.reach = make([][]bool, len(fn.Blocks))
	for i, b := range fn.Blocks {
		seen := make([]bool, len(fn.Blocks))
		seen[i] = true
		for todo := []*ssa.BasicBlock{b}; len(todo) > 0; {
			next := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			for _, succ := range next.Succs {
				if !seen[succ.Index] {
					seen[succ.Index] = true
					todo = append(todo, succ)
				}
			}
		}
		f.reach[i] = seen
		for _, in := range b.Instrs {
			switch in := in.(type) {
			case *ssa.If:
				cond, _ := stripNot(in.Cond)
				var atoms []ssa.Value
				key := staticKey(cond, 0, &atoms)
				if f.conds[key] == nil {
					f.conds[key] = &condition{atoms: atoms}
				}
				f.conds[key].tests = append(f.conds[key].tests, b)
			case *ssa.Alloc:
				f.cells[in] = isCell(in)
			}
		}
	}
	for key, c := range f.conds {
		if len(c.tests) < 2 {
			delete(f.conds, key)
		}
	}
	for _, v := range fn.FreeVars {
		f.cells[v] = isCell(v)
	}
	return f
}

// isCell says whether the variable at v is only loaded, stored and captured.
func isCell(v ssa.Value) bool {
	p, ok := v.Type().Underlying().(*types.Pointer)
	if !ok || !tracked(p.Elem()) {
		return false
	}
	for _, in := range *v.Referrers() {
		switch in := in.(type) {
		case *ssa.Store:
			if in.Addr != v {
				return false
			}
		case *ssa.UnOp, *ssa.MakeClosure, *ssa.DebugRef:
		default:
			return false
		}
	}
	return true
}

// tracked says whether values of type t are followed through phis and cells.
func tracked(t types.Type) bool {
	if b, ok := t.Underlying().(*types.Basic); ok {
		return b.Kind() == types.Bool
	}
	if types.IsInterface(t) || isWrapper(t) {
		return true
	}
	_, _, ok := streamType(t)
	return ok
}

// used says whether v is used in block b or later.
func (f *function) used(v ssa.Value, b *ssa.BasicBlock) bool {
	refs := v.Referrers()
	if refs == nil {
		return true
	}
	for _, in := range *refs {
		if in.Parent() == f.fn && f.reach[b.Index][in.Block().Index] {
			return true
		}
	}
	return false
}

// forget drops from s what no longer matters in block b, and what the
// instructions of b will compute anew.
func (f *function) forget(s *state, b *ssa.BasicBlock) {
	stale := func(v ssa.Value) bool {
		in, ok := v.(ssa.Instruction)
		return ok && in.Block() == b
	}
	for v := range s.val {
		if _, phi := v.(*ssa.Phi); !f.used(v, b) || stale(v) && !phi {
			delete(s.val, v)
		}
	}
	for v := range s.isNil {
		if stale(v) || !f.used(v, b) && !held(s, v) {
			delete(s.isNil, v)
		}
	}
	for v := range s.ops {
		if stale(v) || !f.usedExtracts(v, b) && !held(s, v) {
			delete(s.ops, v)
		}
	}
	for key := range s.conds {
		c := f.conds[key]
		alive := false
		for _, t := range c.tests {
			alive = alive || f.reach[b.Index][t.Index]
		}
		for _, a := range c.atoms {
			alive = alive && !stale(a)
		}
		if !alive {
			delete(s.conds, key)
		}
	}
}

// held says whether a phi or a cell stands for v, or for a part of v.
func held(s *state, v ssa.Value) bool {
	for _, x := range s.val {
		if x == v {
			return true
		}
		if e, ok := x.(*ssa.Extract); ok && e.Tuple == v {
			return true
		}
	}
	return false
}

// usedExtracts is like used, for a value that may be a tuple.
func (f *function) usedExtracts(v ssa.Value, b *ssa.BasicBlock) bool {
	if _, ok := v.Type().(*types.Tuple); !ok {
		return f.used(v, b)
	}
	for _, in := range *v.Referrers() {
		if e, ok := in.(*ssa.Extract); ok && (f.reach[b.Index][e.Block().Index] || f.used(e, b)) {
			return true
		}
	}
	return false
}

func stripNot(v ssa.Value) (_ ssa.Value, negated bool) {
	for {
		u, ok := v.(*ssa.UnOp)
		if !ok || u.Op != token.NOT {
			return v, negated
		}
		v, negated = u.X, !negated
	}
}

// staticKey describes v so that two loads of the same field, or two
// comparisons of the same values, have the same key. It assumes that memory does
// not change. If that is wrong, the walk may take a path for impossible.
func staticKey(v ssa.Value, depth int, atoms *[]ssa.Value) string {
	if depth < 6 {
		switch v := v.(type) {
		case *ssa.Const:
			return v.String()
		case *ssa.Global:
			return v.String()
		case *ssa.UnOp:
			if v.Op != token.ARROW {
				return v.Op.String() + "(" + staticKey(v.X, depth+1, atoms) + ")"
			}
		case *ssa.FieldAddr:
			return fmt.Sprintf("%s.&%d", staticKey(v.X, depth+1, atoms), v.Field)
		case *ssa.Field:
			return fmt.Sprintf("%s.%d", staticKey(v.X, depth+1, atoms), v.Field)
		case *ssa.ChangeType:
			return staticKey(v.X, depth+1, atoms)
		case *ssa.ChangeInterface:
			return staticKey(v.X, depth+1, atoms)
		case *ssa.BinOp:
			op := v.Op
			x, y := staticKey(v.X, depth+1, atoms), staticKey(v.Y, depth+1, atoms)
			return "(" + x + op.String() + y + ")"
		case *ssa.Call:
			if b, ok := v.Call.Value.(*ssa.Builtin); ok && b.Name() == "len" {
				return "len(" + staticKey(v.Call.Args[0], depth+1, atoms) + ")"
			}
		}
	}
	*atoms = append(*atoms, v)
	return fmt.Sprintf("%p", v)
}

// sameValue says whether a and b are the same value, as far as staticKey knows.
func sameValue(a, b ssa.Value) bool {
	var atoms []ssa.Value
	return a != nil && b != nil && staticKey(a, 0, &atoms) == staticKey(b, 0, &atoms)
}
