package main

// group breaks group.go.
var group = []mutation{
	{
		name: "Guard.add: sentinel each time",
		old:  `	if !g.watching {`,
		new:  `	if true {`,
	},
	{
		name: "elapsed: other clocks not recognised",
		old:  "since >= 0 && since < period",
		new:  "since < period",
	},
	{
		name: "Guard.remove: does nothing",
		old: `	delete(g.conns, c)
`,
		new: "",
	},
	{
		name: "listener.leave: stays a member",
		old: `	delete(l.guard.listeners, l)
`,
		new: "",
	},
	{
		name: "connContext: connection never uncounted",
		old:  `		context.AfterFunc(ctx, g.connGone) // done`,
		new:  `		_ = context.AfterFunc // done`,
	},
	{
		name: "accept: counted twice at the end",
		old:  "return l.guard.wrap(raw, l.limits, l), nil",
		new:  "return l.guard.wrap(raw, l.limits, nil), nil",
	},
	{
		name: "admitConn: MaxConns off by one",
		old:  "g.counted >= g.MaxConns",
		new:  "g.counted > g.MaxConns",
	},
	{
		name: "admitConn: MaxHeap ignored",
		old: `	case heap > 0:
`,
		new: `	case false:
`,
	},
	{
		name: "countConn: not counted",
		old: `func (g *Guard) countConn() {
	g.mu.Lock()
	g.counted++
`,
		new: `func (g *Guard) countConn() {
	g.mu.Lock()
`,
	},
	{
		name: "connContext: admits all",
		old: `		if err := g.admitConn(); err != nil {
			return nil, err
		}
`,
		new: `		g.countConn()
`,
	},
	{
		name: "admitStream: MaxHeap ignored",
		old:  `	} else if heap := g.heapAbove(); heap > 0 {`,
		new:  `	} else if heap := g.heapAbove(); heap > 0 && false {`,
	},
	{
		name: "admitStream: refused ones stay counted",
		old: `		g.streams.Add(-1)
		return g.refuse`,
		new: `		return g.refuse`,
	},
	{
		name: "refuse: waits for the Logger",
		old:  `		go g.logger().Warn("quiclife: limit`,
		new:  `		g.logger().Warn("quiclife: limit`,
	},
	{
		name: "elapsed: last not set",
		old: `	*last = now
`,
		new: `	_ = now
`,
	},
	{
		name: "listening: leave not told",
		old: `		l.owned.leave = l.leave
`,
		new: `		_ = l
`,
	},
}
