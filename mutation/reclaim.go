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
	},
	{
		name: "sentinel: watching stays true without connections",
		old:  `	if g.watching = len(g.conns) > 0; g.watching {`,
		new:  `	if len(g.conns) > 0 {`,
	},
	{
		name:   "inBubble check dropped",
		old:    `		if !c.inBubble { // those`,
		new:    `		if true { // those`,
		killer: "TestDropped",
	},
	{
		name: "reclaimDropped: dropped flag ignored (report twice)",
		old:  "if st.dropped || st.handle",
		new:  "if st.handle",
	},
	{
		name: "unsent without anything written",
		old:  "st.sendHalf == HalfOpen && st.written.Load() > 0",
		new:  "st.sendHalf == HalfOpen",
	},
	{
		name: "unsent: no grace for what was written",
		old:  "unsent := st.sendHalf == HalfOpen && st.written.Load() > 0",
		new:  "unsent := false",
	},
	{
		name: "negative grace: reclaims",
		old: `		if grace > 0 {
			st.reclaim`,
		new: `		if true {
			st.reclaim`,
	},
	{
		name: "unsent: reclaimed at once",
		old:  "time.AfterFunc(max(grace, 0), reclaim)",
		new:  "reclaim()",
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
	},
	{
		name: "reclaim: not counted as reclaimed",
		old: `	st.reclaimed = st.sendHalf == HalfOpen || st.receiveHalf == HalfOpen
`,
		new: "",
	},
	{
		name: "Codes.Release for Codes.Abandoned",
		old:  "guard.Codes.Abandoned",
		new:  "guard.Codes.Release",
	},
	{
		name: "collector.take: no back-off",
		old: `	cs.interval = min(2*interval, maxCollectInterval)
`,
		new: "",
	},
	{
		name: "collectAtLimit: no retry",
		old: `		c.retry = time.AfterFunc(minCollectInterval, c.collectAgain)
`,
		new: `		_ = c
`,
	},
	{
		name: "collectAgain: blocked opens ignored",
		old:  "short = short || r.blocked > 0 || kind(k)",
		new:  "short = short || kind(k)",
	},
	{
		name: "reclaimDropped: foundSome not called",
		old: `		collector.foundSome()
`,
		new: `		_ = dropped
`,
	},
	{
		name: "startWatch: mark not set",
		old:  "w.due, w.mark = now+timeout, count }",
		new:  "w.due = now+timeout; _ = count }",
	},
	{
		name: "passed: change of the count ignored",
		old:  `	if count != w.mark {`,
		new:  `	if false {`,
	},
	{
		name: "sweep: ended receive halves watched",
		old:  "st.unread.due > 0 && st.receiveHalf == HalfOpen",
		new:  "st.unread.due > 0",
	},
	{
		name: "collectAgain: goes on for ever",
		old: `	short = (short || c.drained != nil) && !c.ended
`,
		new: `	short = true
`,
	},
	{
		name: "requestCollection: without idle streams too",
		old:  "if len(idle) > 0 && collector.take()",
		new:  "if len(idle) >= 0 && collector.take()",
	},
	{
		name: "reclaimDropped: uncredited not returned",
		old: `			st.returnCredit()
		}
	}
	if len`,
		new: `			_ = st
		}
	}
	if len`,
	},
	{
		name: "reclaimDropped: a leak at once, though all is sent",
		old: `	unended := st.sendHalf != HalfOpen && st.receiveHalf == HalfOpen && ending
`,
		new: `	unended := false && ending
`,
	},
	{
		name: "reclaimDropped: a known final size ignored",
		old: `&& st.receiveHalf == HalfOpen && ending
`,
		new: `&& st.receiveHalf == HalfOpen
	_ = ending
`,
	},
	{
		name: "reclaimDropped: a leak while the EOF is being consumed",
		old:  `	ending := size == sizeUnknown || size == st.read.Load() `,
		new:  `	ending := size == sizeUnknown `,
	},
	{
		name: "leaked: again and again",
		old: `	if reported {
		return
	}
`,
		new: `	_ = reported
`,
	},
	{
		name: "awaitReader: reads before Close prolong",
		old:  "st.startWatch(&st.unread, timeout, st.reads.Load())",
		new:  "st.startWatch(&st.unread, timeout, -1)",
	},
	{
		name: "startWatch: timer not armed",
		old: `		c.sweep = time.AfterFunc(timeout/4, c.sweepStreams)
`,
		new: "",
	},
	{
		name: "sweep: a blocked Read is no reader",
		old:  `			if st.readers.Load() > 0 { // as`,
		new:  `			if false { // as`,
	},
	{
		name: "passed: count not moved on",
		old: `		w.start(now, timeout, count)
`,
		new: `		w.due = now + timeout
`,
	},
	{
		name: "sweep: only bytes read count",
		old:  "moved, reads := st.read.Load()+st.written.Load(),",
		new:  "moved, reads := st.read.Load(),",
	},
	{
		name: "collector: always",
		old: `	if !elapsed(&cs.last, interval) {
		return false
	}
`,
		new: `	elapsed(&cs.last, interval)
`,
	},
	{
		name: "reclaim: aborts nothing",
		old: `	st.release(code)
`,
		new: `	_ = code
`,
	},
}
