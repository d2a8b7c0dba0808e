package main

// groupstats breaks groupstats.go.
var groupstats = []mutation{
	{
		name:   "foldIfEnded: folds a connection twice",
		old:    " && !c.folded",
		new:    "",
		killer: "TestGuardStatsNeverFall",
	},
	{
		name:   "foldIfEnded: folds before the last stream has ended",
		old:    "c.ended && open == 0",
		new:    "c.ended && open >= 0",
		killer: "TestGuardStatsNeverFall",
	},
	{
		name: "foldIfEnded: the connection stays in the group",
		old: `		c.guard.remove(c)
`,
		new: `		_ = c
`,
		killer: "TestGuardStatsNeverFall",
	},
}
