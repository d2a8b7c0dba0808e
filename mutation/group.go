package main

// group breaks group.go.
var group = []mutation{
	{
		name: "Guard.remove: does nothing",
		old: `	delete(g.conns, c)
`,
		new:    "",
		killer: "TestConnsListsWhatHasNotEnded",
	},
	{
		name:   "admit: MaxConns off by one",
		old:    "g.counted >= g.MaxConns",
		new:    "g.counted > g.MaxConns",
		killer: "TestMaxConnsOfDials",
	},
	{
		name: "admit: MaxHeap ignored",
		old: `	case heap > 0:
`,
		new: `	case false:
`,
		killer: "TestMaxHeapRefusesWhatIsNew",
	},
	{
		name: "heapAbove: no collection asked for",
		old: `			cost := collectGarbage()
`,
		new: `			cost := time.Duration(0)
`,
		killer: "TestMaxHeapAsksForCollections",
	},
	{
		name: "refuse: dropped streams are not looked for",
		old: `				c.relieve()
`,
		new: `				_ = c
`,
		killer: "TestDroppedStreamsAtOwnLimitComeBack",
	},
	{
		name:   "refuse: a slow Logger holds up quic-go",
		old:    "		go g.write(",
		new:    "		g.write(",
		killer: "TestSlowLoggerHoldsUpNoHandshake",
	},
}
