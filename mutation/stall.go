package main

// stall breaks stall.go.
var stall = []mutation{
	{
		name: "mayStall: nobody looks",
		old: `	c.wakeLocked(at)
`,
		new: `	_ = at
`,
		killer: "TestStallIsSeenWhoeverWaits",
	},
	{
		name:   "look: no collection is asked for",
		old:    "s.ask = forStalls",
		new:    "_ = forStalls",
		killer: "TestStallIsSeenWhoeverWaits",
	},
	{
		name:   "look: a collection each second",
		old:    "c.stallAsking.Failed(s.now)",
		new:    "c.stallAsking.Failed(s.now)\n			c.stallAsking.Hope()",
		killer: "TestIdleConnectionsAskForFewCollections",
	},
	{
		name: "look: what moves does not begin it anew",
		old: `		c.stallAsking.Reset(s.now)
`,
		new:    "",
		killer: "TestStallIsSeenWhoeverWaits",
	},
	{
		name:   "traffic: who accepts does not wait",
		old:    "blocked = c.accepting.Load() > 0",
		new:    "blocked = false",
		killer: "TestStallIsSeenWhoeverWaits",
	},
	{
		name:   "traffic: who reads does not wait",
		old:    "blocked = blocked || reading || ",
		new:    "blocked = blocked || ",
		killer: "TestStallIsSeenWhoeverWaits",
	},
	{
		name:   "traffic: who writes does not wait",
		old:    " || st.writing == blocking",
		new:    "",
		killer: "TestStallIsSeenWhoeverWaits",
	},
}
