package main

// collect breaks collect.go.
var collect = []mutation{
	{
		name: "sentinel: not set again",
		old: `	if k.watching = len(k.conns) > 0; k.watching {
		k.awaitCollectionLocked()
`,
		new: `	if k.watching = len(k.conns) > 0; k.watching {
`,
		killer: "TestConnectionsAreLookedAtAfterEachCollection",
	},
	{
		name:   "sentinel: watching stays true without connections",
		old:    "if k.watching = len(k.conns) > 0; k.watching {",
		new:    "if len(k.conns) > 0 {",
		killer: "TestConnectionsAreLookedAtAfterEachCollection",
	},
	{
		name:   "collectorFor: bubbles share the collector of the process",
		old:    "	case !inBubble:\n",
		new:    "	default:\n",
		killer: "TestDroppedStreamIsReportedAndEnded",
	},
	{
		name:   "look: a slow Logger delays others",
		old:    "		go tell(found)\n",
		new:    "		tell(found)\n",
		killer: "TestSlowOnLeakDelaysNoOtherConnection",
	},
	{
		name: "look: looks twice after one collection",
		old: `	if n == k.looked {
		return
	}
`,
		new:    "",
		killer: "TestEachCollectionIsLookedAtOnce",
	},
	{
		name:   "schedule: collections may cost anything",
		old:    "wait := k.budget.Wait(time.Now(), k.wanted)",
		new:    "wait := time.Duration(0)",
		killer: "TestCollectionsKeepWithinTheirShare",
	},
	{
		name:   "ask: the last share counts, not the largest",
		old:    "k.wanted = max(k.wanted, share)",
		new:    "k.wanted = share",
		killer: "TestCollectionsKeepWithinTheirShare",
	},
	{
		name: "run: requests during the run are forgotten",
		old: `	k.budget.Spent(now, cost+now.Sub(start))
	k.scheduleLocked()
`,
		new: `	k.budget.Spent(now, cost+now.Sub(start))
`,
		killer: "TestCollectionsKeepWithinTheirShare",
	},
	{
		name:   "run: young streams are not weakened first",
		old:    "c.weaken()\n",
		new:    "_ = c\n",
		killer: "TestYoungStreamIsFoundByOneCollectionThatIsAskedFor",
	},
}
