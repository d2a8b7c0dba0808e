package streams

import (
	"fmt"
	"go/token"
	"go/types"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/ssa"
)

// Analyzer finds the streams that a package opens and accepts, and what happens
// to them. Its facts say what functions do with their parameters.
var Analyzer = &analysis.Analyzer{
	Name:       "quicstreams",
	Doc:        "follow the streams of quic-go and quiclife\n\nIt reports nothing; other analyzers use what it finds.",
	Run:        run,
	Requires:   []*analysis.Analyzer{Build},
	FactTypes:  []analysis.Fact{new(fact)},
	ResultType: reflect.TypeFor[[]*Opened](),
}

// Opened is a call that opens or accepts a stream.
type Opened struct {
	Call    *ssa.Call
	Kind    Kind
	Library Library
	// Ends are the places where a path drops the stream without having handed it
	// on, in the order of the source.
	Ends []End
	// Escapes says that on some path the stream is handed on.
	Escapes bool
	// Losses are the calls that close the connection right after the stream was
	// written and closed.
	Losses []token.Pos
}

// An End is where a path drops a stream.
type End struct {
	Pos   token.Pos // the return, or the call that opens the next stream
	Loop  bool      // it is the call that opens the next stream
	Fails bool      // it returns an error
	Halves
}

// Where says where the path goes that drops the stream.
func (e End) Where(pass *analysis.Pass) string {
	if e.Loop {
		return "goes on to the next stream"
	}
	return fmt.Sprintf("returns at line %d", pass.Fset.Position(e.Pos).Line)
}

// Leaks says whether the stream is still open there, as far as the walk knows.
func (e End) Leaks(o *Opened) bool {
	switch o.Kind {
	case ReceiveOnly:
		return e.Receive == Unread
	case SendOnly:
		// In many protocols a control stream is written once and then dropped,
		// and stays open as long as its connection.
		return e.Send == SendOpen && (!e.Wrote || o.endsSend())
	}
	return e.Send == SendOpen
}

// endsSend says whether the function ends the send half on some path.
func (o *Opened) endsSend() bool {
	for _, e := range o.Ends {
		if e.Send != SendOpen {
			return true
		}
	}
	return false
}

// An Outcome is one way in which a function may return.
type Outcome struct {
	Halves
	Err      nilness // of the last result, if its type is error
	ConnEnds bool    // the connection is closed
}

// An Effect is what a function does with a stream that it gets. If it has no
// outcomes, the function never gives the stream back to its caller.
type Effect struct {
	Keeps    bool // some path hands the stream on, or does something unknown
	Outcomes []Outcome
}

func (e Effect) String() string {
	if e.Keeps {
		return "keeps"
	}
	for _, o := range e.Outcomes {
		if o.Send == SendOpen || o.Receive < ReceiveEnded {
			return "borrows"
		}
	}
	return "ends"
}

// fact is what packages that import a function's package know of it.
type fact struct {
	Params     []param // those that may be a stream
	ClosesConn bool
}

type param struct {
	Index  int
	Effect Effect
}

func (*fact) AFact() {}

func (f *fact) String() string {
	var parts []string
	for _, p := range f.Params {
		parts = append(parts, fmt.Sprintf("%d %v", p.Index, p.Effect))
	}
	if f.ClosesConn {
		parts = append(parts, "closes the connection")
	}
	return strings.Join(parts, ", ")
}

// pkg is the package being analyzed.
type pkg struct {
	pass      *analysis.Pass
	functions map[*ssa.Function]*function
	effects   map[effectKey]*Effect // nil while it is computed
	closes    map[*ssa.Function]bool
	callers   map[*ssa.Function][]ssa.CallInstruction
}

// effectKey is a parameter of a function, or a free variable of a closure.
type effectKey struct {
	fn    *ssa.Function
	index int
	free  bool
}

func run(pass *analysis.Pass) (any, error) {
	p := &pkg{
		pass:      pass,
		functions: make(map[*ssa.Function]*function),
		effects:   make(map[effectKey]*Effect),
		closes:    make(map[*ssa.Function]bool),
		callers:   make(map[*ssa.Function][]ssa.CallInstruction),
	}
	funcs := pass.ResultOf[Build].([]*ssa.Function)
	for _, fn := range funcs {
		for _, b := range fn.Blocks {
			for _, instr := range b.Instrs {
				if c, ok := instr.(ssa.CallInstruction); ok && c.Common().StaticCallee() != nil {
					callee := c.Common().StaticCallee()
					p.callers[callee] = append(p.callers[callee], c)
				}
			}
		}
	}
	var found []*Opened
	for _, fn := range funcs {
		for _, b := range fn.Blocks {
			for i, instr := range b.Instrs {
				if c, ok := instr.(*ssa.Call); ok {
					if o := p.opened(fn, b, i, c); o != nil {
						found = append(found, o)
					}
				}
			}
		}
		if obj, ok := fn.Object().(*types.Func); ok {
			p.exportFact(fn, obj)
		}
	}
	return found, nil
}

// opened follows the stream that call c opens. It returns nil if c opens none.
func (p *pkg) opened(fn *ssa.Function, b *ssa.BasicBlock, i int, c *ssa.Call) *Opened {
	kind, lib, ok := Opens(c)
	if !ok {
		return nil
	}
	o := &Opened{Call: c, Kind: kind, Library: lib}
	var stream, err ssa.Value
	for _, ref := range *c.Referrers() {
		if e, ok := ref.(*ssa.Extract); ok && e.Index == 0 {
			stream = e
		} else if ok {
			err = e
		}
	}
	if stream == nil || len(*stream.Referrers()) == 0 {
		o.Escapes = true // the function wants only the error, and expects no stream
		return o
	}
	w := p.newWalk(fn, stream)
	w.origin, w.conn = c, receiver(&c.Call)
	s := newState()
	if err != nil {
		s.isNil[err] = true
	}
	w.deferredBefore(b, i, s)
	if !w.run(b, i+1, s) {
		o.Escapes = true
		return o
	}
	o.Escapes = w.escapes
	for e := range w.ends {
		if !e.Fails || !p.failureCloses(fn) {
			o.Ends = append(o.Ends, e)
		}
	}
	slices.SortFunc(o.Ends, func(a, b End) int { return int(a.Pos - b.Pos) })
	for pos := range w.losses {
		o.Losses = append(o.Losses, pos)
	}
	slices.Sort(o.Losses)
	return o
}

func newState() *state {
	return &state{
		val: make(map[ssa.Value]ssa.Value), isNil: make(map[ssa.Value]bool),
		conds: make(map[string]bool), ops: make(map[ssa.Value]op),
	}
}

// deferredBefore notes the calls that were deferred before the stream was
// opened, at instruction i of block b.
func (w *walk) deferredBefore(b *ssa.BasicBlock, i int, s *state) {
	for _, at := range w.fn.DomPreorder() {
		if !at.Dominates(b) {
			continue
		}
		for j, in := range at.Instrs {
			if at == b && j >= i {
				break
			}
			switch in := in.(type) {
			case *ssa.Defer:
				w.noteDefer(in, s)
				if c := in.Call; w.closes(&c) || c.StaticCallee() != nil && w.pkg.closesConn(c.StaticCallee()) {
					s.connEnds = true
				}
			case *ssa.MakeClosure:
				if !calledOnly(in) && w.pkg.closesConn(in.Fn.(*ssa.Function)) {
					s.connEnds = true
				}
			case *ssa.Go:
				if callee := in.Call.StaticCallee(); callee != nil && w.pkg.closesConn(callee) {
					s.connEnds = true
				}
			}
		}
	}
}

// exits says whether the process ends after fn has returned: because fn is main,
// or because only such functions call it, and not in a loop.
func (p *pkg) exits(fn *ssa.Function, depth int) bool {
	if p.pass.Pkg.Name() != "main" || fn.Parent() != nil {
		return false
	}
	if fn.Name() == "main" && fn.Signature.Recv() == nil {
		return true
	}
	for _, c := range p.callers[fn] {
		if _, plain := c.(*ssa.Call); !plain || depth > 5 || !p.exits(c.Parent(), depth+1) {
			return false
		}
		for _, succ := range c.Block().Succs {
			if p.function(c.Parent()).reach[succ.Index][c.Block().Index] {
				return false
			}
		}
	}
	return len(p.callers[fn]) > 0
}

// failureCloses says whether all functions of the package that call fn close
// connections. We assume that they do so when fn fails, as in a handshake.
func (p *pkg) failureCloses(fn *ssa.Function) bool {
	for _, c := range p.callers[fn] {
		if !p.closesConn(c.Parent()) {
			return false
		}
	}
	return len(p.callers[fn]) > 0
}

// exportFact tells packages that import this one what fn does.
func (p *pkg) exportFact(fn *ssa.Function, obj *types.Func) {
	f := fact{ClosesConn: p.closesConn(fn)}
	for i, v := range fn.Params {
		if couldHold(v.Type()) && fn.Blocks != nil {
			f.Params = append(f.Params, param{i, p.paramEffect(fn, i)})
		}
	}
	if len(f.Params) > 0 || f.ClosesConn {
		p.pass.ExportObjectFact(obj, &f)
	}
}

// paramEffect returns what fn does with the parameter of that index.
func (p *pkg) paramEffect(fn *ssa.Function, index int) Effect {
	if o := fn.Origin(); o != nil {
		fn = o
	}
	if fn.Blocks == nil || fn.Synthetic != "" && fn.Syntax() == nil {
		var f fact
		if obj, ok := fn.Object().(*types.Func); ok && p.pass.ImportObjectFact(obj, &f) {
			for _, known := range f.Params {
				if known.Index == index {
					return known.Effect
				}
			}
		}
		return Effect{Keeps: true}
	}
	if index >= len(fn.Params) || !couldHold(fn.Params[index].Type()) {
		return Effect{Keeps: true}
	}
	return p.effect(effectKey{fn: fn, index: index}, fn.Params[index])
}

// freeVarEffect returns what a closure does with the stream in a variable that it
// shares with the function around it.
func (p *pkg) freeVarEffect(fn *ssa.Function, index int) Effect {
	return p.effect(effectKey{fn: fn, index: index, free: true}, fn.FreeVars[index])
}

func (p *pkg) effect(key effectKey, root ssa.Value) Effect {
	if e, ok := p.effects[key]; ok {
		if e == nil {
			return Effect{Keeps: true} // it calls itself
		}
		return *e
	}
	p.effects[key] = nil
	w := p.newWalk(key.fn, root)
	s := newState()
	if key.free {
		if !w.cells[root] {
			p.effects[key] = &Effect{Keeps: true}
			return *p.effects[key]
		}
		s.val[root] = root
	}
	e := Effect{Keeps: true}
	if w.run(key.fn.Blocks[0], 0, s) {
		e = Effect{Keeps: w.escapes}
		for o := range w.outcomes {
			e.Outcomes = append(e.Outcomes, o)
		}
		slices.SortFunc(e.Outcomes, func(a, b Outcome) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	p.effects[key] = &e
	return e
}

// closesConn says whether fn may close a connection.
func (p *pkg) closesConn(fn *ssa.Function) bool {
	if o := fn.Origin(); o != nil {
		fn = o
	}
	if closes, ok := p.closes[fn]; ok {
		return closes
	}
	p.closes[fn] = false // while it is computed
	closes := false
	if fn.Blocks == nil {
		var f fact
		if obj, ok := fn.Object().(*types.Func); ok && p.pass.ImportObjectFact(obj, &f) {
			closes = f.ClosesConn
		}
	}
	for _, b := range fn.Blocks {
		for _, in := range b.Instrs {
			switch in := in.(type) {
			case ssa.CallInstruction:
				callee := in.Common().StaticCallee()
				closes = closes || isConnClose(in.Common()) || callee != nil && p.closesConn(callee)
			case *ssa.MakeClosure:
				closes = closes || p.closesConn(in.Fn.(*ssa.Function))
			}
		}
	}
	p.closes[fn] = closes
	return closes
}
