package main

// shortage breaks shortage.go.
var shortage = []mutation{
	{
		name:   "crowded: only when no slot is left",
		old:    "4*(r.stats.Open+r.owing) >= 3*r.stats.Limit",
		new:    "r.stats.Open+r.owing >= r.stats.Limit",
		killer: "TestCrowdedIncomingUniStreamsAreEnded",
	},
	{
		name:   "crowded: too early",
		old:    "4*(r.stats.Open+r.owing) >= 3*r.stats.Limit",
		new:    "5*(r.stats.Open+r.owing) >= 3*r.stats.Limit",
		killer: "TestNoCollectionBelowThreeQuartersOfTheSlots",
	},
	{
		name:   "crowded: streams that owe their credit hold no slot",
		old:    "4*(r.stats.Open+r.owing)",
		new:    "4*r.stats.Open",
		killer: "TestDroppedUncreditedStreamsComeBack",
	},
	{
		name:   "wanting: an open that fails is no want",
		old:    "return r.blocked > 0 || r.failedAt > 0 && now-r.failedAt < shortFor",
		new:    "return r.blocked > 0",
		killer: "TestDroppedStreamsAtOwnLimitComeBack",
	},
	{
		name: "openFailed: the streams are not looked at",
		old: `	r.failedAt = max(now, 1)
	c.relieveLocked(r, now)
`,
		new: `	r.failedAt = max(now, 1)
`,
		killer: "TestOpenAtTheLimitGetsTheSlotOfADroppedStream",
	},
	{
		name:   "grace: as long in a shortage",
		old:    "s.grace[k] = min(s.grace[k], grace)",
		new:    "_ = grace",
		killer: "TestGraceIsShortInAShortage",
	},
	{
		name:   "grace: none in a shortage",
		old:    "return rttOf(stats).PTO() + stats.MinRTT",
		new:    "return 0 * rttOf(stats).PTO()",
		killer: "TestGraceIsShortInAShortage",
	},
	{
		name:   "shortages: a limit of the group is none",
		old:    "group := c.guard.short()",
		new:    "group := false",
		killer: "TestDroppedStreamsAtOwnLimitComeBack",
	},
	{
		name:   "shortages: an open that waits in vain is not logged",
		old:    "s.stuck = append(s.stuck, kind(k))",
		new:    "_ = k",
		killer: "TestStuckOpenIsLogged",
	},
	{
		name:   "shortages: logged again and again",
		old:    "case r.blocked == 0 || r.stuck:",
		new:    "case r.blocked == 0:",
		killer: "TestStuckOpenIsLogged",
	},
	{
		name:   "shortages: an open that has just begun to wait is logged",
		old:    "		case s.now < due:\n			s.at(due)\n		case s.looked:",
		new:    "		case s.now < due && s.looked:\n			s.at(due)\n		case s.looked:",
		killer: "TestShortWaitIsNotLoggedAsStuck",
	},
	{
		name:   "inTheWay: control streams are no exception",
		old:    "if st.id()>>2 >= controlStreams {",
		new:    "if true {",
		killer: "TestDroppedControlStreamsAreEndedLast",
	},
	{
		name:   "inTheWay: control streams go at once",
		old:    "	return s.now >= due && r.vain >= 2\n",
		new:    "	return true\n",
		killer: "TestDroppedControlStreamsAreEndedLast",
	},
	{
		name:   "inTheWay: control streams never go",
		old:    "	return s.now >= due && r.vain >= 2\n",
		new:    "	return false\n",
		killer: "TestDroppedControlStreamsAreEndedLast",
	},
	{
		name: "inTheWay: no other collection for control streams",
		old: `		s.idle[st.kind] = true // so that we ask for another collection
`,
		new: `		_ = st
`,
		killer: "TestDroppedControlStreamsAreEndedLast",
	},
	{
		name: "ask: none for streams that owe their credit",
		old: `		if !st.isDropped() {
			s.idle`,
		new: `		if false {
			s.idle`,
		killer: "TestDroppedUncreditedStreamsComeBack",
	},
	{
		name:   "ask: none for Shutdown",
		old:    "case !s.short[k] && c.drained == nil || c.asked:",
		new:    "case !s.short[k] || c.asked:",
		killer: "TestShutdownAgainst",
	},
	{
		name:   "ask: though no stream is idle",
		old:    "case !s.idle[k]:",
		new:    "case false:",
		killer: "TestStreamsDroppedAfterLongUseComeBackSoon",
	},
}
