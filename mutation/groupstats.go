package main

// groupstats breaks groupstats.go.
var groupstats = []mutation{
	{
		name:   "foldIfEnded: twice",
		old:    " && !c.folded",
		new:    "",
		killer: "TestGuardStatsNeverFall",
	},
	{
		name:   "foldIfEnded: before the last stream has ended",
		old:    "c.ended && open == 0",
		new:    "c.ended && open >= 0",
		killer: "TestGuardStatsNeverFall",
	},
	{
		name: "foldIfEnded: still a member",
		old: `		c.guard.remove(c)
`,
		new: `		_ = c
`,
		killer: "TestGuardStatsNeverFall",
	},
}
