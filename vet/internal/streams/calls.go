package streams

import (
	"go/types"
	"strings"

	"golang.org/x/tools/go/ssa"
)

// call runs a plain call.
func (w *walk) call(in *ssa.Call, s *state) []*state {
	c := &in.Call
	if w.closes(c) {
		if s.justClosed && s.Last == opWrite && sameValue(w.conn, receiver(c)) {
			w.losses[in.Pos()] = true
		}
		return nil
	}
	if m := MethodName(c); m != "" && w.isStream(receiver(c), s) {
		return w.method(in, in, m, s)
	}
	if !passive(c) {
		s.justClosed = false
	}
	if o, ok := w.builtin(c, s); ok {
		return w.unless(o, s)
	}
	if ops := w.knownOps(c, s); ops != nil {
		for _, o := range ops {
			w.do(in, o, s)
		}
		return []*state{s}
	}
	if closure := started(c); closure != nil {
		return w.starts(closure, s)
	}
	if closure, ok := c.Value.(*ssa.MakeClosure); ok && !w.passes(c, s) {
		// The closure shares variables with this function, so what it does may
		// depend on what has happened here. Assume that it ends what it may end.
		return w.unless(!w.apply(w.closureEffect(closure, s), s), s)
	}
	if !w.passes(c, s) {
		if callee := c.StaticCallee(); callee != nil && w.pkg.closesConn(callee) {
			return nil
		}
		return []*state{s}
	}
	effect, ok := w.argEffect(c, s)
	if !ok {
		return w.unless(true, s)
	}
	return w.fork(in, effect, s)
}

// goes runs a go statement. The results of the function are lost.
func (w *walk) goes(in *ssa.Go, s *state) []*state {
	c := &in.Call
	if w.closes(c) {
		return nil
	}
	if m := MethodName(c); m != "" && w.isStream(receiver(c), s) {
		return w.method(in, nil, m, s)
	}
	s.justClosed = false
	if _, ok := w.builtin(c, s); ok {
		return []*state{s}
	}
	if ops := w.knownOps(c, s); ops != nil {
		for _, o := range ops {
			w.do(nil, o, s)
		}
		return []*state{s}
	}
	if closure, ok := c.Value.(*ssa.MakeClosure); ok && !w.passes(c, s) {
		return w.starts(closure, s)
	}
	if !w.passes(c, s) {
		if callee := c.StaticCallee(); callee != nil && w.pkg.closesConn(callee) {
			s.connEnds = true
		}
		return []*state{s}
	}
	effect, ok := w.argEffect(c, s)
	if !ok {
		return w.unless(true, s)
	}
	return w.fork(nil, effect, s)
}

// started returns the closure that c starts in a goroutine, or nil.
func started(c *ssa.CallCommon) *ssa.MakeClosure {
	if fullName(c) != "(*sync.WaitGroup).Go" || len(c.Args) != 2 {
		return nil
	}
	closure, _ := c.Args[1].(*ssa.MakeClosure)
	return closure
}

// starts runs a closure in a goroutine.
func (w *walk) starts(c *ssa.MakeClosure, s *state) []*state {
	effect := w.closureEffect(c, s)
	if w.pkg.closesConn(c.Fn.(*ssa.Function)) {
		s.connEnds = true
	}
	return w.fork(nil, effect, s)
}

// deferred runs a defer statement. The effects of the deferred call count from
// here on.
func (w *walk) deferred(in *ssa.Defer, s *state) []*state {
	c := &in.Call
	w.noteDefer(in, s)
	if w.closes(c) {
		s.connEnds = true
		return []*state{s}
	}
	if m := MethodName(c); m != "" && w.isStream(receiver(c), s) {
		return w.method(in, nil, m, s)
	}
	if _, ok := w.builtin(c, s); ok {
		return []*state{s}
	}
	if ops := w.knownOps(c, s); ops != nil {
		return []*state{s} // as in defer w.Flush()
	}
	var effect Effect
	if closure, ok := c.Value.(*ssa.MakeClosure); ok && !w.passes(c, s) {
		effect = w.closureEffect(closure, s)
		if w.pkg.closesConn(closure.Fn.(*ssa.Function)) {
			s.connEnds = true
		}
	} else if !w.passes(c, s) {
		if callee := c.StaticCallee(); callee != nil && w.pkg.closesConn(callee) {
			s.connEnds = true
		}
		return []*state{s}
	} else if effect, ok = w.argEffect(c, s); !ok {
		return w.unless(true, s)
	}
	return w.unless(!w.apply(effect, s), s)
}

// passes says whether the stream is an argument of c, or the value that c calls.
func (w *walk) passes(c *ssa.CallCommon, s *state) bool {
	for _, arg := range c.Args {
		if w.isStream(arg, s) {
			return true
		}
	}
	_, closure := c.Value.(*ssa.MakeClosure)
	return !closure && w.isStream(c.Value, s)
}

// builtin says whether c is a builtin, and whether it takes the stream away.
func (w *walk) builtin(c *ssa.CallCommon, s *state) (escapes, ok bool) {
	b, ok := c.Value.(*ssa.Builtin)
	if !ok {
		return false, false
	}
	return w.passes(c, s) && (b.Name() == "append" || b.Name() == "copy"), true
}

// method runs a method of the stream, or of a wrapper around it. result is the
// call, or nil if nobody can look at its results.
func (w *walk) method(in ssa.CallInstruction, result *ssa.Call, name string, s *state) []*state {
	c := in.Common()
	for i, arg := range c.Args {
		if (i > 0 || c.IsInvoke()) && w.isStream(arg, s) {
			return w.unless(true, s) // the stream is an argument of its own method, or of a wrapper's
		}
	}
	if isWrapper(receiver(c).Type()) {
		if o, ok := wrapperMethods[name]; ok {
			w.do(result, o, s)
			return []*state{s}
		}
		return []*state{s}
	}
	switch name {
	case "Close":
		s.Send = max(s.Send, SendClosed)
		s.justClosed = true
		if result != nil {
			s.ops[result] = opClose
		}
	case "CancelWrite":
		s.Send = max(s.Send, SendCancelled)
	case "CancelRead":
		s.Receive = ReceiveEnded
	case "Release", "Reset", "BindContext":
		s.Send, s.Receive = SendEnded, ReceiveEnded
	case "Detach", "NetConn":
		return w.unless(true, s)
	case "Read":
		w.do(result, opRead, s)
	case "Write", "WriteWithLimit", "TryWriteAll":
		w.do(result, opWrite, s)
	case "SetDeadline", "SetReadDeadline", "SetWriteDeadline":
		if result != nil {
			s.isNil[result] = true // they never fail, whatever their signature says
		}
	case "Peek", "StreamID", "Context", "Conn", "Info", "SetPriority",
		"SetReliableBoundary", "SetReceiveFinalSizeCallback", "ReleaseStreamCredit":
	default:
		return w.unless(true, s)
	}
	return []*state{s}
}

// do notes that c reads or writes the stream. c is nil if nobody can look at its
// results.
func (w *walk) do(c *ssa.Call, o op, s *state) {
	switch o {
	case opRead, opScan:
		s.Receive = max(s.Receive, ReadPart)
		s.Last = opRead
	case opDrain:
		s.Receive = max(s.Receive, ReadMaybe)
		s.Last = opRead
	case opWrite:
		s.Wrote, s.Last = true, opWrite
	default:
		return
	}
	if c != nil && (s.ops[c] == opNone || o != opWrite) {
		s.ops[c] = o
	}
	s.justClosed = false
}

// knownOps returns what a function of the standard library does with the
// stream, or nil.
func (w *walk) knownOps(c *ssa.CallCommon, s *state) (ops []op) {
	args := known[fullName(c)]
	if args == nil {
		return nil
	}
	for i, arg := range c.Args {
		if !w.isStream(arg, s) {
			continue
		}
		o, ok := args[i]
		if !ok {
			return nil
		}
		ops = append(ops, o)
	}
	return ops
}

// argEffect returns what the function that c calls does with the stream, and
// false if that is not known.
func (w *walk) argEffect(c *ssa.CallCommon, s *state) (Effect, bool) {
	callee := c.StaticCallee()
	if callee == nil {
		return Effect{}, false
	}
	var effect Effect
	found := false
	for i, arg := range c.Args {
		if !w.isStream(arg, s) {
			continue
		}
		if found {
			return Effect{}, false // it gets the stream twice
		}
		found = true
		effect = w.pkg.paramEffect(callee, i)
	}
	for _, b := range bindings(c.Value) {
		if w.capturesStream(b, s) {
			return Effect{}, false
		}
	}
	return effect, found
}

func bindings(v ssa.Value) []ssa.Value {
	if c, ok := v.(*ssa.MakeClosure); ok {
		return c.Bindings
	}
	return nil
}

// closureEffect returns what a closure does with the stream, if it shares it.
func (w *walk) closureEffect(c *ssa.MakeClosure, s *state) Effect {
	effect := Effect{Outcomes: []Outcome{{}}}
	fn := c.Fn.(*ssa.Function)
	for i, b := range c.Bindings {
		if w.capturesStream(b, s) || b == w.root || w.storesRoot(b) {
			effect = w.pkg.freeVarEffect(fn, i)
		}
	}
	return effect
}

// storesRoot says whether this function stores the stream in the variable b
// somewhere.
func (w *walk) storesRoot(b ssa.Value) bool {
	if !w.cells[b] {
		return false
	}
	for _, in := range *b.Referrers() {
		if st, ok := in.(*ssa.Store); ok && st.Val == w.root {
			return true
		}
	}
	return false
}

// fork continues with each of the outcomes that a call may have.
func (w *walk) fork(in *ssa.Call, e Effect, s *state) (next []*state) {
	if e.Keeps {
		w.escapes = true
	}
	for _, o := range w.distinct(in, e.Outcomes) {
		if o.ConnEnds && in != nil {
			continue
		}
		n := s.clone()
		n.Halves = n.join(o.Halves)
		if result := errorOf(in); result != nil && o.Err != maybeNil {
			n.isNil[result] = o.Err == isNil
		}
		next = append(next, n)
	}
	return next
}

// distinct joins the outcomes that a caller could only tell apart by results that
// the walk does not follow.
func (w *walk) distinct(in *ssa.Call, outcomes []Outcome) []Outcome {
	if in == nil {
		return outcomes
	}
	n := in.Call.Signature().Results().Len()
	if n == 0 || n == 1 && errorOf(in) != nil || n == 1 && isError(in.Type()) {
		return outcomes
	}
	byErr := make(map[nilness]Outcome)
	for _, o := range outcomes {
		if was, ok := byErr[o.Err]; ok {
			o.Halves = was.join(o.Halves)
			o.ConnEnds = o.ConnEnds || was.ConnEnds
		}
		byErr[o.Err] = o
	}
	var joined []Outcome
	for _, e := range []nilness{maybeNil, isNil, notNil} {
		if o, ok := byErr[e]; ok {
			joined = append(joined, o)
		}
	}
	return joined
}

// errorOf returns the error of a call, or nil if nothing uses it.
func errorOf(in *ssa.Call) ssa.Value {
	if in == nil {
		return nil
	}
	if isError(in.Type()) {
		return in
	}
	t, ok := in.Type().(*types.Tuple)
	if !ok || t.Len() == 0 || !isError(t.At(t.Len()-1).Type()) {
		return nil
	}
	for _, ref := range *in.Referrers() {
		if e, ok := ref.(*ssa.Extract); ok && e.Index == t.Len()-1 {
			return e
		}
	}
	return nil
}

// apply joins all outcomes of a call, and returns false if the call keeps the
// stream. It is for calls whose outcome this function cannot tell.
func (w *walk) apply(e Effect, s *state) bool {
	if e.Keeps {
		return false
	}
	for _, o := range e.Outcomes {
		s.Halves = s.join(o.Halves)
		s.connEnds = s.connEnds || o.ConnEnds
	}
	return true
}

// noteDefer remembers a deferred call for runDefers.
func (w *walk) noteDefer(in *ssa.Defer, s *state) {
	for _, d := range s.defers {
		if d.call == in {
			return
		}
	}
	d := deferred{call: in}
	switch c := &in.Call; {
	case w.closes(c):
		d.conn = sameValue(w.conn, receiver(c))
	case MethodName(c) == "Close" && w.isStream(receiver(c), s):
		d.stream = true
	case passive(c):
		return
	}
	s.defers = append(s.defers, d)
}

// runDefers looks for a connection that is closed right after the stream.
func (w *walk) runDefers(s *state) {
	for i := len(s.defers) - 1; i >= 0; i-- {
		switch d := s.defers[i]; {
		case d.stream:
			s.justClosed = true
		case d.conn:
			if s.justClosed && s.Last == opWrite {
				w.losses[d.call.Pos()] = true
			}
		default:
			s.justClosed = false
		}
	}
}

// closes says whether c closes a connection: any connection of the libraries, or
// the stream's own, by a method whose name begins with close or shutdown.
func (w *walk) closes(c *ssa.CallCommon) bool {
	if isConnClose(c) {
		return true
	}
	name := strings.ToLower(MethodName(c))
	return (strings.HasPrefix(name, "close") || strings.HasPrefix(name, "shutdown")) && sameValue(w.conn, receiver(c))
}

// isConnClose says whether c closes a connection of one of the libraries, or of a
// type that has the same method.
func isConnClose(c *ssa.CallCommon) bool {
	switch MethodName(c) {
	case "CloseWithError":
		return c.Signature().Params().Len() == 2
	case "Shutdown":
		lib, ok := libraryOf(receiverPackage(c))
		return ok && lib == Quiclife
	}
	return false
}

// receiverPackage returns the package of the receiver's type, or nil.
func receiverPackage(c *ssa.CallCommon) *types.Package {
	r := receiver(c)
	if r == nil {
		return nil
	}
	t := types.Unalias(r.Type())
	if p, ok := t.(*types.Pointer); ok {
		t = types.Unalias(p.Elem())
	}
	if n, ok := t.(*types.Named); ok {
		return n.Obj().Pkg()
	}
	return nil
}

// passive says whether c certainly does not wait for a peer: it logs, formats,
// works on errors, unlocks or cancels.
func passive(c *ssa.CallCommon) bool {
	if _, ok := c.Value.(*ssa.Builtin); ok {
		return true
	}
	if MethodName(c) == "Error" {
		return true
	}
	name := fullName(c)
	if name == "" {
		named, ok := types.Unalias(c.Value.Type()).(*types.Named)
		return ok && named.Obj().Name() == "CancelFunc"
	}
	name = strings.TrimLeft(name, "(*")
	for _, p := range []string{"fmt.", "log.", "log/slog.", "errors.", "time.Now", "time.Since", "os.", "strings.", "strconv.", "sync.Mutex", "sync.RWMutex"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}
