package main

// timeouts breaks timeouts.go.
var timeouts = []mutation{
	{
		name:   "wake: a later time replaces an earlier one",
		old:    "if c.ended || c.sweepAt > 0 && c.sweepAt <= at {",
		new:    "if c.ended {",
		killer: "TestLongTimeoutHoldsUpNoShortOne",
	},
	{
		name:   "wake: sets a timer after the connection's end",
		old:    "if c.ended || c.sweepAt > 0 && c.sweepAt <= at {",
		new:    "if c.sweepAt > 0 && c.sweepAt <= at {",
		killer: "TestEndedConnSetsNoTimer",
	},
	{
		name: "sweep: ReportOnly ends leaks",
		old: `		if !c.guard.ReportOnly {
			e.st.reclaim`,
		new: `		if true {
			e.st.reclaim`,
		killer: "TestReportOnlyEndsNothing",
	},
	{
		name:   "Codes.Release for Codes.Abandoned",
		old:    "return c.Abandoned",
		new:    "return c.Release",
		killer: "TestDroppedStreamIsReportedAndEnded",
	},
	{
		name:   "Codes.Abandoned for Codes.HalfClosed",
		old:    "return c.HalfClosed",
		new:    "return c.Abandoned",
		killer: "TestHalfCloseTimeout",
	},
	{
		name:   "plan: a stall drains nothing",
		old:    "all := c.stalled || c.draining.Err() != nil",
		new:    "all := c.draining.Err() != nil",
		killer: "TestStallIsSeenWhoeverWaits",
	},
	{
		name:   "plan: Shutdown drains nothing",
		old:    "all := c.stalled || c.draining.Err() != nil",
		new:    "all := c.stalled",
		killer: "TestShutdownDrainsDroppedStreams",
	},
	{
		name:   "plan: ReportOnly drains",
		old:    " && !c.guard.ReportOnly && !st.draining",
		new:    " && !st.draining",
		killer: "TestStallIsSeenWhoeverWaits",
	},
	{
		name:   "timeouts: a blocked Read does not count as reading",
		old:    "if st.readers.Load() > 0 && w.due != hasPassed {",
		new:    "if false {",
		killer: "TestHalfCloseTimeout",
	},
	{
		name:   "passed: does not see that bytes moved",
		old:    "case w.due == 0 || count != w.mark:",
		new:    "case w.due == 0:",
		killer: "TestIdleTimeout",
	},
	{
		name:   "passed: looks too late",
		old:    "s.at(min(w.due, s.now+max(timeout/4, 1)))",
		new:    "s.at(w.due)",
		killer: "TestIdleTimeout",
	},
	{
		name:   "timeouts: a negative HalfCloseTimeout is not never",
		old:    "if t := g.halfCloseTimeout(); t > 0 && ",
		new:    "if t := g.halfCloseTimeout(); ",
		killer: "TestNegativeHalfCloseTimeoutIsNever",
	},
}
