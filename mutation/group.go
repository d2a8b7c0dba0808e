package main

// group breaks group.go.
var group = []mutation{
	{
		name: "Guard.remove: does nothing",
		old: `	delete(g.conns, c)
`,
		new:    "",
		killer: "TestConns",
	},
	{
		name:   "admit: MaxConns off by one",
		old:    "g.counted >= g.MaxConns",
		new:    "g.counted > g.MaxConns",
		killer: "TestMaxConns",
	},
	{
		name: "admit: MaxHeap ignored",
		old: `	case heap > 0:
`,
		new: `	case false:
`,
		killer: "TestMaxHeap",
	},
	{
		name: "heapAbove: no collection asked for",
		old: `			cost := collectGarbage()
`,
		new: `			cost := time.Duration(0)
`,
		killer: "TestMaxHeapWithoutConnections",
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
		killer: "TestSlowLogger",
	},
}
