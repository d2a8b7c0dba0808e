package main

// reclaim breaks reclaim.go.
var reclaim = []mutation{
	{
		name: "sentinel not re-armed",
		old: `		g.awaitCollection()
	}
	g.mu.Unlock()`,
		new: `		_ = g
	}
	g.mu.Unlock()`,
		killer: "TestEdgeWatching",
	},
	{
		name:   "sentinel: watching stays true without connections",
		old:    `	if g.watching = len(g.conns) > 0; g.watching {`,
		new:    `	if len(g.conns) > 0 {`,
		killer: "TestEdgeWatching",
	},
	{
		name:   "inBubble check dropped",
		old:    `		if !c.inBubble { // those`,
		new:    `		if true { // those`,
		killer: "TestDropped",
	},
	{
		name:   "unsent: no grace for what was written",
		old:    "unsent := st.sendHalf == HalfOpen && st.written.Load() > 0",
		new:    "unsent := false",
		killer: "TestDropped",
	},
	{
		name: "negative grace: reclaims",
		old: `		if grace > 0 {
			st.reclaim`,
		new: `		if true {
			st.reclaim`,
		killer: "TestNeverReclaim",
	},
	{
		name:   "unsent: reclaimed at once",
		old:    "time.AfterFunc(max(grace, 0), reclaim)",
		new:    "reclaim()",
		killer: "TestDropped",
	},
	{
		name: "reclaim: FIN in place of reset",
		old: `	st.release(code)
`,
		new: `	if st.send != nil {
		st.close()
	}
	st.release(code)
`,
		killer: "TestDropped",
	},
	{
		name: "reclaim: not counted as reclaimed",
		old: `	st.reclaimed = st.reclaimed || st.sendHalf == HalfOpen || st.receiveHalf == HalfOpen
`,
		new:    "",
		killer: "TestDropped",
	},
	{
		name:   "Codes.Release for Codes.Abandoned",
		old:    "guard.Codes.Abandoned",
		new:    "guard.Codes.Release",
		killer: "TestDropped",
	},
	{
		name:   "reclaimDropped: a stream whose end is being consumed is a leak",
		old:    "ending := size == sizeUnknown || size == st.read.Load()",
		new:    "ending := size == sizeUnknown",
		killer: "TestDroppedWhileItEnds",
	},
	{
		name:   "collectAgain: an open that waits in vain is not logged",
		old:    "if r.stuck && !was {",
		new:    "if r.stuck && !was && false {",
		killer: "TestStuckOpenIsLogged",
	},
	{
		name:   "collectAgain: logged again and again",
		old:    "if r.stuck && !was {",
		new:    "if _ = was; r.stuck {",
		killer: "TestStuckOpenIsLogged",
	},
	{
		name: "collectAgain: an open that has just begun to wait is logged",
		old: `		waitedAt := int64(0)
		if r.blocked > 0 {
			waitedAt = r.stats.Opened + 1
		}
`,
		new: `		waitedAt := r.stats.Opened + 1
`,
		killer: "TestStuckOpenIsLogged",
	},
	{
		name:   "collectAgain: a busy limit is logged",
		old:    "r.stuck = r.blocked > 0 && r.waitedAt == waitedAt",
		new:    "r.stuck = r.blocked > 0",
		killer: "TestStuckOpenIsLogged",
	},
}
