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
		name:   "claimUnended: a half that the peer's FIN would end is a leak",
		old:    "if !gotSend && (!gotReceive || st.mayEndByItself()) {",
		new:    "if !gotSend && !gotReceive {",
		killer: "TestEndOfConnectionHidesNoLeak",
	},
	{
		name:   "claimUnended: forgets the stream's contexts",
		old:    "			x.unended.bound = append(x.unended.bound, b.ctx)\n",
		new:    "			_ = b\n",
		killer: "TestEndOfConnectionHidesNoLeak",
	},
	{
		name:   "mayEndByItself: even if nothing was read",
		old:    "return read > 0 && (",
		new:    "return (",
		killer: "TestEndOfConnectionHidesNoLeak",
	},
	{
		name:   "mayEndByItself: even if the rest was not read",
		old:    "size == sizeUnknown || size == read",
		new:    "size == sizeUnknown || size >= read",
		killer: "TestEndOfConnectionHidesNoLeak",
	},
	{
		name:   "ended: does not see an end after the connection's",
		old:    "	if x != nil && x.unended != nil {",
		new:    "	if false {",
		killer: "TestEndOfConnectionHidesNoLeak",
	},
	{
		name:   "leak: even if a call has told the program",
		old:    "if u.told || st.given",
		new:    "if st.given",
		killer: "TestEndOfConnectionHidesNoLeak",
	},
	{
		name:   "leak: even if the stream was detached",
		old:    "|| st.given || canceled",
		new:    "|| canceled",
		killer: "TestEndOfConnectionHidesNoLeak",
	},
	{
		name:   "leaks: finds none on a connection that has just ended",
		old:    "		c.endIfClosed()\n",
		new:    "		_ = c\n",
		killer: "TestLeaksOfConnectionThatHasJustEnded",
	},
	{
		name:   "takeUnaccepted: even if somebody accepts",
		old:    "		for !c.accepted[k].Load() {",
		new:    "		for {",
		killer: "TestStreamsNobodyAcceptsCanBeTaken",
	},
	{
		name:   "takeUnaccepted: even if the program has quic-go's connection",
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
