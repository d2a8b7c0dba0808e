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
		name:   "accept: counted twice at the end",
		old:    "return l.guard.wrap(raw, l.terms, l), nil",
		new:    "return l.guard.wrap(raw, l.terms, nil), nil",
		killer: "TestMaxConns",
	},
	{
		name:   "admitConn: MaxConns off by one",
		old:    "g.counted >= g.MaxConns",
		new:    "g.counted > g.MaxConns",
		killer: "TestMaxConns",
	},
	{
		name: "admitConn: MaxHeap ignored",
		old: `	case heap > 0:
`,
		new: `	case false:
`,
		killer: "TestMaxHeap",
	},
	{
		name: "connContext: admits all",
		old: `		if err := g.admitConn(); err != nil {
			return nil, err
		}
`,
		new: `		g.countConn()
`,
		killer: "TestMaxStreams",
	},
	{
		name: "heapAbove: no collection asked for",
		old: `			runtime.GC()
`,
		new:    "",
		killer: "TestMaxHeap",
	},
	{
		name: "heapAbove: a collection that helped makes the next rarer",
		old: `				heapCollector.foundSome()
`,
		new:    "",
		killer: "TestMaxHeap",
	},
}
