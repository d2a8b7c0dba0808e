package main

// conn breaks conn.go.
var conn = []mutation{
	{
		name: "wrap: end not called at the end of the connection",
		old: `	context.AfterFunc(raw.Context(), c.end)
`,
		new: `	_ = context.AfterFunc
`,
	},
	{
		name: "wrap: inBubble never",
		old: `	c.inBubble = c.start == c.start.Round(0)
`,
		new: "",
	},
	{
		name: "wrap: negative outgoing limit kept",
		old:  "stats.Limit = max(g.MaxOutgoingStreams, 0)",
		new:  "stats.Limit = g.MaxOutgoingStreams",
	},
	{
		name: "end: ended not set",
		old: `	c.ended = true
`,
		new: "",
	},
	{
		name: "end: timers not stopped",
		old: `			timer.Stop()
`,
		new: `			_ = timer
`,
	},
	{
		name: "endIfClosed: does nothing",
		old: `	if c.raw.Context().Err() != nil {
		c.end()
	}`,
		new: "",
	},
	{
		name: "CloseWithError: end not called",
		old: `	err := c.raw.CloseWithError(code, desc)
	c.end()
`,
		new: `	err := c.raw.CloseWithError(code, desc)
`,
	},
	{
		name: "accept: streams not refused during Shutdown",
		old: `		refuse(raw, c.guard.Codes.Shutdown)
		return none, ErrShutdown
`,
		new: `		_ = c
`,
		killer: "TestAcceptDuringShutdown",
	},
	{
		name: "refuse: CancelWrite skipped",
		old: `		s.CancelWrite(code)
`,
		new: `		_ = s
`,
	},
	{
		name: "end: streams not ended",
		old: `	for _, st := range open {
		st.connectionEnded()
	}
`,
		new: "",
	},
	{
		name: "end: streams that are owed credit stay listed",
		old: `	for st := c.owing.first; st != nil; st = c.owing.first {
		st.owing = false
		c.owing.remove(st)
	}
`,
		new:        "",
		equivalent: "droppedOwing looks at no list of an ended connection",
	},
	{
		name: "end: what is cut by it during Shutdown is not noted",
		old: `	if c.draining.Err() != nil {
		c.cutStreams(open)
	}
`,
		new: "",
	},
	{
		name: "end: the transport does not linger",
		old: `		c.owned.linger(3 * c.pto())
`,
		new: "",
	},
	{
		name: "closedLocally: the peer's close too",
		old: `		return !e.Remote
`,
		new: `		return e != nil
`,
	},
	{
		name: "end: a second call does not wait for the first",
		old:  "{ c.endOnce.Do(c.endAll) }",
		new: `{
	c.mu.Lock()
	ended := c.ended
	c.mu.Unlock()
	if !ended {
		c.endOnce.Do(c.endAll)
	}
}`,
	},
	{
		name: "NextConnection: streams of the rejected phase live on",
		old: `		for _, st := range c.all() {
			st.connectionEnded()
		}
`,
		new: "",
	},
	{
		name: "NextConnection: live streams ended without a rejection",
		old: `	if c.rejected0RTT() {
`,
		new: `	if c.rejected0RTT() || true {
`,
	},
	{
		name: "NextConnection: phase not counted",
		old: `		c.phase.Add(1)
`,
		new: "",
	},
	{
		name: "NextConnection: ctx ignored while it waits",
		old: `	case <-ctx.Done():
		return nil, context.Cause(ctx)
`,
		new: "",
	},
	{
		name: "NextConnection: two at once",
		old: `	c.next.Lock()
	defer c.next.Unlock()
`,
		new: "",
	},
	{
		name: "accept: accepts during Shutdown",
		old: `	if c.draining.Err() != nil && c.raw.Context().Err() == nil {
		return none, ErrShutdown
	}
`,
		new: "",
	},
}
