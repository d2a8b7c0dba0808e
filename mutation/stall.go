package main

// stall breaks stall.go.
var stall = []mutation{
	{
		name: "mayStall: does not look for a stall",
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
		name:   "look: asks for a collection each second",
		old:    "c.stallAsking.Failed(s.now)",
		new:    "c.stallAsking.Failed(s.now)\n			c.stallAsking.Hope()",
		killer: "TestIdleConnectionsAskForFewCollections",
	},
	{
		name: "look: does not start again when a byte moves",
		old: `		c.stallAsking.Reset(s.now)
`,
		new:    "",
		killer: "TestStallIsSeenWhoeverWaits",
	},
	{
		name:   "traffic: a blocked Accept does not count",
		old:    "blocked = c.accepting.Load() > 0",
		new:    "blocked = false",
		killer: "TestStallIsSeenWhoeverWaits",
	},
	{
		name:   "traffic: a blocked Read does not count",
		old:    "blocked = blocked || reading || ",
		new:    "blocked = blocked || ",
		killer: "TestStallIsSeenWhoeverWaits",
	},
	{
		name:   "traffic: a blocked Write does not count",
		old:    " || st.writing == blocking",
		new:    "",
		killer: "TestStallIsSeenWhoeverWaits",
	},
}
