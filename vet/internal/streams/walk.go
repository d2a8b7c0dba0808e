package streams

import (
	"go/token"
	"go/types"
	"strings"

	"golang.org/x/tools/go/ssa"
)

// A walk follows all paths of a function from where it gets a stream, as long as
// only this function has to end the stream. A path ends without a finding where
// the stream is handed on, where its connection is closed, or where the walk does
// not understand what happens to it.
type walk struct {
	*function
	pkg *pkg
	// root is the stream: a result of origin, a parameter, or the free variable of
	// a closure. In the last case it stands for the variable's value.
	root   ssa.Value
	origin ssa.Instruction
	conn   ssa.Value // the connection that opened the stream, if known

	seen     map[visit]bool
	steps    int
	todo     []point
	ends     map[End]bool
	outcomes map[Outcome]bool
	escapes  bool
	losses   map[token.Pos]bool
}

// visit is a block, and what was known when the walk entered it.
type visit struct {
	block *ssa.BasicBlock
	key   string
}

// point is where a path continues.
type point struct {
	block *ssa.BasicBlock
	at    int
	s     *state
}

// maxSteps bounds the blocks that one walk enters. A walk that reaches it finds
// nothing.
const maxSteps = 20000

func (p *pkg) function(fn *ssa.Function) *function {
	f := p.functions[fn]
	if f == nil {
		f = newFunction(fn)
		p.functions[fn] = f
	}
	return f
}

func (p *pkg) newWalk(fn *ssa.Function, root ssa.Value) *walk {
	return &walk{
		function: p.function(fn), pkg: p, root: root,
		seen: make(map[visit]bool), ends: make(map[End]bool), outcomes: make(map[Outcome]bool), losses: make(map[token.Pos]bool),
	}
}

// run walks from the instruction of block b with index at. It returns false if it
// gave up.
func (w *walk) run(b *ssa.BasicBlock, at int, s *state) bool {
	w.todo = []point{{b, at, s}}
	for len(w.todo) > 0 {
		p := w.todo[len(w.todo)-1]
		w.todo = w.todo[:len(w.todo)-1]
		if w.steps++; w.steps > maxSteps {
			w.escapes = true
			return false
		}
		w.block(p)
	}
	return true
}

// block runs one block from p on, and queues the blocks after it.
func (w *walk) block(p point) {
	s := p.s
	for i := p.at; i < len(p.block.Instrs); i++ {
		switch in := p.block.Instrs[i].(type) {
		case *ssa.If:
			w.branch(p.block, in, s)
			return
		case *ssa.Jump:
			w.enter(p.block, p.block.Succs[0], s)
			return
		case *ssa.Return:
			w.returns(in, s)
			return
		case *ssa.Panic:
			return
		default:
			if in == w.origin {
				w.reopened(p.block, s)
				return
			}
			next := w.instr(in, s)
			for _, fork := range next[min(1, len(next)):] {
				w.todo = append(w.todo, point{p.block, i + 1, fork})
			}
			if len(next) == 0 {
				return
			}
			s = next[0]
		}
	}
}

// enter continues a path in the block to.
func (w *walk) enter(from, to *ssa.BasicBlock, s *state) {
	edge := 0
	for i, p := range to.Preds {
		if p == from {
			edge = i
		}
	}
	phis := make(map[ssa.Value]ssa.Value)
	for _, in := range to.Instrs {
		phi, ok := in.(*ssa.Phi)
		if !ok {
			break
		}
		if tracked(phi.Type()) {
			phis[phi] = w.resolve(phi.Edges[edge], s)
		}
	}
	for phi, v := range phis {
		s.val[phi] = v
	}
	w.forget(s, to)
	v := visit{to, s.key()}
	if w.seen[v] {
		return
	}
	w.seen[v] = true
	w.todo = append(w.todo, point{to, 0, s})
}

// resolve follows v through phis, shared variables and changes of interface.
func (w *walk) resolve(v ssa.Value, s *state) ssa.Value {
	for range 50 {
		if known, ok := s.val[v]; ok && known != v {
			v = known
			continue
		}
		c, ok := v.(*ssa.ChangeInterface)
		if !ok {
			break
		}
		v = c.X
	}
	return v
}

// isStream says whether v is the stream, perhaps in an interface or wrapped.
func (w *walk) isStream(v ssa.Value, s *state) bool {
	for range 50 {
		v = w.resolve(v, s)
		if v == w.root {
			return true
		}
		switch x := v.(type) {
		case *ssa.ChangeType:
			v = x.X
		case *ssa.MakeInterface:
			v = x.X
		case *ssa.TypeAssert:
			v = x.X
		case *ssa.Extract:
			a, ok := x.Tuple.(*ssa.TypeAssert)
			if !ok || x.Index != 0 {
				return false
			}
			v = a.X
		case *ssa.Call:
			wrapped := w.wraps(x, s)
			if wrapped == nil {
				return false
			}
			v = wrapped
		default:
			return false
		}
	}
	return false
}

// wraps returns the argument of c that is the stream, if c returns something that
// reads from the stream or writes to it.
func (w *walk) wraps(c *ssa.Call, s *state) ssa.Value {
	for i, o := range known[fullName(&c.Call)] {
		if (o == opWrapR || o == opWrapW) && i < len(c.Call.Args) && w.isStream(c.Call.Args[i], s) {
			return c.Call.Args[i]
		}
	}
	return nil
}

// A nilness is what is known about an error, or another value that may be nil.
type nilness uint8

const (
	maybeNil nilness = iota
	isNil
	notNil
)

func (w *walk) nilness(v ssa.Value, s *state) nilness {
	v = w.resolve(v, s)
	if v == w.root {
		return notNil
	}
	if known, ok := s.isNil[v]; ok {
		if known {
			return isNil
		}
		return notNil
	}
	switch v := v.(type) {
	case *ssa.Const:
		if v.IsNil() {
			return isNil
		}
		return notNil
	case *ssa.MakeInterface, *ssa.Alloc, *ssa.MakeClosure, *ssa.Function, *ssa.MakeMap, *ssa.MakeChan, *ssa.MakeSlice:
		return notNil
	case *ssa.UnOp:
		if g, ok := v.X.(*ssa.Global); ok && v.Op == token.MUL && isError(g.Type().Underlying().(*types.Pointer).Elem()) {
			return notNil // io.EOF and its like
		}
	case *ssa.Call:
		return resultOf(&v.Call)
	case *ssa.Extract:
		if c, ok := v.Tuple.(*ssa.Call); ok && isError(v.Type()) {
			return resultOf(&c.Call)
		}
	}
	return maybeNil
}

// resultOf returns what is known about the error that c returns.
func resultOf(c *ssa.CallCommon) nilness {
	name := fullName(c)
	switch {
	case name == "errors.New", name == "fmt.Errorf":
		return notNil
	case strings.HasPrefix(name, "(*bytes.Buffer).Write"), strings.HasPrefix(name, "(*strings.Builder).Write"), name == "crypto/rand.Read":
		return isNil // as documented
	case name == "encoding/binary.Write" || name == "io.WriteString" || strings.HasPrefix(name, "fmt.Fprint"):
		if m, ok := c.Args[0].(*ssa.MakeInterface); ok {
			switch m.X.Type().String() {
			case "*bytes.Buffer", "*strings.Builder":
				return isNil
			}
		}
	}
	return maybeNil
}

// branch continues at the successors of an if that are possible.
func (w *walk) branch(b *ssa.BasicBlock, in *ssa.If, s *state) {
	for i, taken := range []bool{true, false} {
		next := s
		if i == 0 {
			next = s.clone()
		}
		if w.assume(in.Cond, taken, next) {
			w.enter(b, b.Succs[i], next)
		}
	}
}

// assume notes in s whether cond is taken, and says whether that is possible.
func (w *walk) assume(cond ssa.Value, taken bool, s *state) bool {
	for range 10 {
		stripped, negated := stripNot(w.resolve(cond, s))
		taken = taken != negated
		if stripped == cond {
			break
		}
		cond = stripped
	}
	var atoms []ssa.Value
	key := staticKey(cond, 0, &atoms)
	if was, ok := s.conds[key]; ok {
		if was != taken {
			return false
		}
	} else if w.conds[key] != nil {
		s.conds[key] = taken
	}
	switch c := cond.(type) {
	case *ssa.Const:
		return c.Value == nil || (c.Value.String() == "true") == taken
	case *ssa.BinOp:
		if c.Op == token.EQL || c.Op == token.NEQ {
			return w.assumeEqual(c.X, c.Y, taken == (c.Op == token.EQL), s)
		}
	case *ssa.Extract:
		if a, ok := c.Tuple.(*ssa.TypeAssert); ok && c.Index == 1 {
			return w.assumeType(a, taken, s)
		}
		if as, ok := c.Tuple.(*ssa.Call); ok && c.Index == 1 && fullName(&as.Call) == "errors.AsType" {
			return w.assumeCall(as, taken, s)
		}
	case *ssa.Call:
		return w.assumeCall(c, taken, s)
	}
	return true
}

func (w *walk) assumeEqual(x, y ssa.Value, equal bool, s *state) bool {
	nx, ny := w.nilness(x, s), w.nilness(y, s)
	switch {
	case nx == isNil && ny == isNil:
		return equal
	case nx == isNil && ny == notNil, nx == notNil && ny == isNil:
		return !equal
	case ny == isNil:
		return w.learnNil(x, equal, s)
	case nx == isNil:
		return w.learnNil(y, equal, s)
	case ny == notNil && equal:
		w.learn(x, false, s)
	case nx == notNil && equal:
		w.learn(y, false, s)
	}
	return true
}

// learnNil is like learn, and says whether that is possible. Functions check
// their parameters out of caution, but nobody calls them with a stream and a nil
// connection.
func (w *walk) learnNil(v ssa.Value, null bool, s *state) bool {
	if _, given := w.resolve(v, s).(*ssa.Parameter); given && null && !isError(v.Type()) {
		return false
	}
	w.learn(v, null, s)
	return true
}

func (w *walk) assumeType(a *ssa.TypeAssert, ok bool, s *state) bool {
	if w.isStream(a.X, s) {
		return holds(a.AssertedType) == ok
	}
	switch w.nilness(a.X, s) {
	case isNil:
		return !ok
	case maybeNil:
		if ok {
			w.learn(a.X, false, s)
		}
	}
	return true
}

// assumeCall is for conditions that are calls: a Scan, or a function that checks
// an error.
func (w *walk) assumeCall(c *ssa.Call, taken bool, s *state) bool {
	if s.ops[c] == opScan && !taken {
		s.Receive = ReceiveEnded
	}
	if len(c.Call.Args) == 0 || !isError(c.Call.Args[0].Type()) {
		return true
	}
	switch w.nilness(c.Call.Args[0], s) {
	case isNil:
		switch fullName(&c.Call) {
		case "errors.Is", "errors.As", "errors.AsType":
			return !taken
		}
		s.unsure = true
	case maybeNil:
		switch fullName(&c.Call) {
		case "errors.Is", "errors.As", "errors.AsType":
			if taken {
				w.learn(c.Call.Args[0], false, s)
			}
		default:
			// It may tell nil from the errors that end a half.
			s.unsure = s.unsure || s.ops[tuple(w.resolve(c.Call.Args[0], s))] != opNone
		}
	}
	return true
}

// tuple returns the call that returns v as one of its results, or else v.
func tuple(v ssa.Value) ssa.Value {
	if e, ok := v.(*ssa.Extract); ok {
		return e.Tuple
	}
	return v
}

// learn notes whether v is nil. An error of a Read ends the receive half, and an
// error of a Write the send half.
func (w *walk) learn(v ssa.Value, null bool, s *state) {
	v = w.resolve(v, s)
	s.isNil[v] = null
	switch s.ops[tuple(v)] {
	case opRead:
		if !null {
			s.Receive = ReceiveEnded
		}
	case opDrain:
		s.Receive = ReceiveEnded
	case opWrite:
		if !null {
			s.Send, s.Last = SendEnded, opNone
		}
	case opClose:
		if !null {
			s.Last = opNone
		}
	}
}

// instr runs one instruction. It returns the states after it: none if the path
// ends, several if the walk does not know which of them it will be.
func (w *walk) instr(in ssa.Instruction, s *state) []*state {
	switch in := in.(type) {
	case *ssa.Call:
		return w.call(in, s)
	case *ssa.Go:
		return w.goes(in, s)
	case *ssa.Defer:
		return w.deferred(in, s)
	case *ssa.RunDefers:
		w.runDefers(s)
	case *ssa.Store:
		return w.store(in, s)
	case *ssa.MakeClosure:
		return w.closure(in, s)
	case *ssa.UnOp:
		if in.Op == token.MUL && w.cells[in.X] {
			if v, ok := s.val[in.X]; ok {
				s.val[in] = v
			} else {
				delete(s.val, in)
			}
			break
		}
		if in.Op == token.ARROW {
			s.justClosed = false
		}
	case *ssa.Select:
		s.justClosed = false
		return w.unless(w.uses(in, s), s)
	case *ssa.Phi, *ssa.ChangeType, *ssa.ChangeInterface, *ssa.MakeInterface, *ssa.TypeAssert, *ssa.Extract, *ssa.BinOp, *ssa.DebugRef:
	default:
		return w.unless(w.uses(in, s), s)
	}
	return []*state{s}
}

// unless ends the path if the stream has escaped.
func (w *walk) unless(escaped bool, s *state) []*state {
	if escaped {
		w.escapes = true
		return nil
	}
	return []*state{s}
}

// uses says whether the stream is an operand of in.
func (w *walk) uses(in ssa.Instruction, s *state) bool {
	for _, o := range in.Operands(nil) {
		if *o != nil && w.isStream(*o, s) {
			return true
		}
	}
	return false
}

func (w *walk) store(in *ssa.Store, s *state) []*state {
	if !w.cells[in.Addr] {
		return w.unless(w.isStream(in.Val, s), s)
	}
	if _, free := in.Addr.(*ssa.FreeVar); free && w.isStream(in.Val, s) && in.Addr != w.root {
		return w.unless(true, s) // a variable of the function around this one
	}
	s.val[in.Addr] = w.resolve(in.Val, s)
	if !w.isStream(in.Val, s) {
		return []*state{s}
	}
	// Look at the closures that share the variable and were made before.
	for _, ref := range *in.Addr.Referrers() {
		c, ok := ref.(*ssa.MakeClosure)
		if !ok || !c.Block().Dominates(in.Block()) {
			continue
		}
		if !calledOnly(c) {
			return w.unless(true, s)
		}
		for _, use := range *c.Referrers() {
			if d, ok := use.(*ssa.Defer); ok {
				if !w.apply(w.closureEffect(c, s), s) {
					return w.unless(true, s)
				}
				w.noteDefer(d, s)
			}
		}
	}
	return []*state{s}
}

// calledOnly says whether the function only calls, defers or starts a closure.
func calledOnly(c *ssa.MakeClosure) bool {
	for _, use := range *c.Referrers() {
		call, ok := use.(ssa.CallInstruction)
		if ok && started(call.Common()) == c {
			continue
		}
		if !ok || call.Common().Value != c {
			return false
		}
		for _, arg := range call.Common().Args {
			if arg == c {
				return false
			}
		}
	}
	return true
}

// closure ends the path if a closure takes the stream away.
func (w *walk) closure(in *ssa.MakeClosure, s *state) []*state {
	only := calledOnly(in)
	for _, b := range in.Bindings {
		if !only && w.capturesStream(b, s) {
			return w.unless(true, s)
		}
	}
	if !only && w.pkg.closesConn(in.Fn.(*ssa.Function)) {
		s.connEnds = true
	}
	return []*state{s}
}

// capturesStream says whether b, which a closure captures, is the stream or holds
// it.
func (w *walk) capturesStream(b ssa.Value, s *state) bool {
	if w.isStream(b, s) {
		return true
	}
	v, ok := s.val[b]
	return ok && w.isStream(v, s)
}

// reopened is reached when a loop opens the next stream.
func (w *walk) reopened(b *ssa.BasicBlock, s *state) {
	for v := range s.val {
		if _, phi := v.(*ssa.Phi); phi && w.used(v, b) && w.isStream(v, s) {
			return // the function still holds it
		}
	}
	if !s.unsure {
		w.ends[End{Pos: w.origin.Pos(), Loop: true, Halves: s.Halves}] = true
	}
}

// returns is reached where the function returns.
func (w *walk) returns(in *ssa.Return, s *state) {
	if w.uses(in, s) {
		w.escapes = true
		return
	}
	if s.unsure {
		return
	}
	pos := in.Pos()
	if !pos.IsValid() && w.fn.Syntax() != nil {
		pos = w.fn.Syntax().End()
	}
	err, failed := maybeNil, opNone
	if n := len(in.Results); n > 0 && isError(in.Results[n-1].Type()) {
		err = w.nilness(in.Results[n-1], s)
		if err == maybeNil {
			failed = s.ops[tuple(w.resolve(in.Results[n-1], s))]
		}
	}
	if !s.connEnds && !w.pkg.exits(w.fn, 0) {
		w.ends[End{Pos: pos, Fails: err == notNil, Halves: s.Halves}] = true
	}
	out := Outcome{Halves: s.Halves, Err: err, ConnEnds: s.connEnds}
	if failed == opNone || failed == opScan {
		w.outcomes[out] = true
		return
	}
	// The caller learns which, if it looks at the error.
	good, bad := out, out
	good.Err, bad.Err = isNil, notNil
	switch failed {
	case opRead:
		bad.Receive = ReceiveEnded
	case opDrain:
		good.Receive, bad.Receive = ReceiveEnded, ReceiveEnded
	case opWrite:
		bad.Send = SendEnded
	}
	w.outcomes[good], w.outcomes[bad] = true, true
}
