package main

var registry = []mutation{
	{
		name: "effectiveLimit: 0 is none",
		old: `		return 100
`,
		new: `		return 0
`,
		killer: "TestStatsTellTheLimitsInForce",
	},
	{
		name: "register: connectionEnded dropped for a late stream",
		old: `		st.connectionEnded()
`,
		new: `		_ = st
`,
		killer: "TestStreamThatComesAsConnectionEndsStaysOpen",
	},
	{
		name: "unregister: slot not given back",
		old: `	if !st.kind.incoming() {
		r.slots.Release()
	}`,
		new:    "",
		killer: "TestOpenAtOwnLimitFails",
	},
	{
		name: "list: last not moved",
		old: `		l.last = st.prev
`,
		new: `		_ = st
`,
		killer: "TestStreamsStayListedInOrderWhenOneGoes",
	},
	{
		name:   "unregister: owing not noted",
		old:    `	if owes && (!dropped || c.guard.ReportOnly) {`,
		new:    `	if false {`,
		killer: "TestDroppedStreamGivesBackItsCredit",
	},
	{
		name:   "unregister: credit of a dropped one not returned",
		old:    `	if owes && dropped && !c.guard.ReportOnly {`,
		new:    `	if false {`,
		killer: "TestDroppedStreamGivesBackItsCredit",
	},
	{
		name:   "unregister: owes without RequireStreamCreditRelease",
		old:    "c.creditRequired && st.kind.incoming()",
		new:    "st.kind.incoming()",
		killer: "TestStreamsThatComeAndGoLeaveNothing",
	},
	{
		name: "openLocked: only the first kind",
		old: `		open += r.stats.Open
`,
		new: `		open += r.stats.Open * int64(1-min(k, 1))
`,
		killer: "TestListenerServeWaitsNoLongerThanDrainTimeout",
	},
	{
		name: "openLocked: dropped unidirectional streams are waited for",
		old: `			open -= r.dropped
`,
		new: `			_ = r
`,
		killer: "TestShutdownDoesNotWaitForDroppedControlStreams",
	},
	{
		name: "register: a limit at which streams come and go is logged",
		old: `	r.beginWait(st.opened)
`,
		new:    "",
		killer: "TestBusyLimitIsNotLogged",
	},
	{
		name:   "register: crowded slots do nothing",
		old:    "if st.kind.incoming() && r.crowded() {",
		new:    "if false {",
		killer: "TestCrowdedSlotsComeBackAtOnce",
	},
	{
		name: "unregister: a dropped one is counted for ever",
		old: `		r.dropped--
`,
		new: `		_ = r
`,
		killer: "TestDroppedControlStreamsAreEndedLast",
	},
}
