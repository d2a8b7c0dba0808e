package main

// peek breaks peek.go.
var peek = []mutation{
	{
		name:   "claimUnended: remembers nothing",
		old:    "		w.unended = append(w.unended, x.unended)\n",
		new:    "",
		killer: "TestEndOfConnectionHidesNoLeak",
	},
	{
		name:   "claimUnended: what the peer's FIN would end is left by the program",
		old:    "if !gotSend && (!gotReceive || st.mayEndByItself()) {",
		new:    "if !gotSend && !gotReceive {",
		killer: "TestEndOfConnectionHidesNoLeak",
	},
	{
		name:   "claimUnended: contexts do not end it",
		old:    "			x.unended.bound = append(x.unended.bound, b.ctx)\n",
		new:    "			_ = b\n",
		killer: "TestEndOfConnectionHidesNoLeak",
	},
	{
		name:   "mayEndByItself: also if nothing was read",
		old:    "return read > 0 && (",
		new:    "return (",
		killer: "TestEndOfConnectionHidesNoLeak",
	},
	{
		name:   "mayEndByItself: also if the rest is not read",
		old:    "size == sizeUnknown || size == read",
		new:    "size == sizeUnknown || size >= read",
		killer: "TestEndOfConnectionHidesNoLeak",
	},
	{
		name:   "ended: not seen",
		old:    "	if x != nil && x.unended != nil {",
		new:    "	if false {",
		killer: "TestEndOfConnectionHidesNoLeak",
	},
	{
		name:   "leak: though a call has told the program",
		old:    "if u.told || st.given",
		new:    "if st.given",
		killer: "TestEndOfConnectionHidesNoLeak",
	},
	{
		name:   "leak: though the program has it",
		old:    "|| st.given || canceled",
		new:    "|| canceled",
		killer: "TestEndOfConnectionHidesNoLeak",
	},
	{
		name:   "leaks: a connection that has just ended has none",
		old:    "		c.endIfClosed()\n",
		new:    "		_ = c\n",
		killer: "TestLeaksOfConnectionThatHasJustEnded",
	},
	{
		name:   "takeUnaccepted: though somebody accepts",
		old:    "		for !c.accepted[k].Load() {",
		new:    "		for {",
		killer: "TestStreamsNobodyAcceptsCanBeTaken",
	},
	{
		name:   "takeUnaccepted: though the program has quic-go's connection",
		old:    "if c.unwrapped.Load() || ",
		new:    "if ",
		killer: "TestStreamsNobodyAcceptsCanBeTaken",
	},
	{
		name:   "takeUnaccepted: does not end them",
		old:    "			refuse(raw, c.guard.Codes.Refused)\n",
		new:    "",
		killer: "TestStreamsNobodyAcceptsCanBeTaken",
	},
}
