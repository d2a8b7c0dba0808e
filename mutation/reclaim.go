package main

// reclaim breaks reclaim.go.
var reclaim = []mutation{
	{
		name:   "dropped: ends unidirectional streams although slots are not short",
		old:    "if st.kind.uni() && !s.inTheWayLocked(st, r) {",
		new:    "if false {",
		killer: "TestDroppedControlStreamsLive",
	},
	{
		name:   "unsent: no grace for what was written",
		old:    "unsent := st.sendHalf == HalfOpen && st.written.Load() > 0",
		new:    "unsent := false",
		killer: "TestDroppedStreamIsReportedAndEnded",
	},
	{
		name:   "unended: no grace for the end of the answer",
		old:    "due > s.now && (unsent || unended)",
		new:    "due > s.now && unsent",
		killer: "TestStreamDroppedAfterAnExactReadIsNoLeak",
	},
	{
		name:   "unended: a stream whose end is being consumed is a leak",
		old:    "allRead := size == sizeUnknown || size == st.read.Load()",
		new:    "allRead := size == sizeUnknown",
		killer: "TestDroppedStreamWhoseEndIsBeingConsumedIsNoLeak",
	},
	{
		name:   "unsent: reports the leak only at the end",
		old:    "		if !st.reported {\n",
		new:    "		if false {\n",
		killer: "TestDroppedStreamIsReportedAndEnded",
	},
	{
		name: "reclaim: sends FIN in place of a reset",
		old: `	st.release(code)
`,
		new: `	if st.kind.sends() {
		st.close()
	}
	st.release(code)
`,
		killer: "TestDroppedStreamIsReportedAndEnded",
	},
	{
		name: "reclaim: not counted as reclaimed",
		old: `	st.reclaimed = st.reclaimed || st.sendHalf == HalfOpen || st.receiveHalf == HalfOpen
`,
		new:    "",
		killer: "TestDroppedStreamIsReportedAndEnded",
	},
	{
		name:   "reclaim: sends STOP_SENDING although it is forbidden",
		old:    "drain := st.conn.guard.NoStopSending && st.receiveHalf == HalfOpen",
		new:    "drain := false",
		killer: "TestNoStopSendingDrainsWhatIsForgotten",
	},
	{
		name: "reclaim: a drained stream keeps its credit",
		old: `	st.returnCredit()
	st.startDraining(code)
`,
		new: `	st.startDraining(code)
`,
		killer: "TestNoStopSendingReturnsCredit",
	},
	{
		name:   "drain: a passed deadline hides data",
		old:    "time.Now().Add(time.Millisecond)",
		new:    "time.Now()",
		killer: "TestNoStopSendingDrainsWhatIsForgotten",
	},
	{
		name: "look: asks as often after a collection that found nothing",
		old: `		c.asking.Failed(now)
`,
		new: `		c.asking.Failed(now)
		c.asking.Hope()
`,
		killer: "TestOpenThatWaitsAsksForFewCollections",
	},
	{
		name:   "droppedOwing: finds a leak after the connection's end",
		old:    "st != nil && !c.ended; st = st.next",
		new:    "st != nil; st = st.next",
		killer: "TestUncreditedStreamIsNoLeakOnceTheConnectionHasEnded",
	},
	{
		name:   "leak: reports a stream twice",
		old:    "leaked := !st.reported && (",
		new:    "leaked := (",
		killer: "TestDroppedStreamIsReportedAndEnded",
	},
	{
		name:   "look: young streams stay young",
		old:    "	c.drainedLocked()\n	c.weakenLocked()\n",
		new:    "	c.drainedLocked()\n",
		killer: "TestConnectionsAreLookedAtAfterEachCollection",
	},
	{
		name:   "weaken: only the newest stream of a kind",
		old:    "st != nil && st.young != nil; st = st.prev {",
		new:    "st != nil && st.young != nil; st = nil {",
		killer: "TestDroppedStreamsAreFoundWithoutACallToUs",
	},
	{
		name: "weaken: leaves out streams that owe their credit",
		old: `		if st.young != nil {
			st.weakenLocked()`,
		new: `		if false {
			st.weakenLocked()`,
		killer: "TestDroppedStreamGivesBackItsCredit",
	},
}
