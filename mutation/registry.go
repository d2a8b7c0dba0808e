package main

var registry = []mutation{
	{
		name: "effectiveLimit: 0 means none",
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
		name:   "unregister: does not note that credit is owed",
		old:    `	if owes && (!dropped || c.guard.ReportOnly) {`,
		new:    `	if false {`,
		killer: "TestDroppedStreamGivesBackItsCredit",
	},
	{
		name:   "unregister: does not return the credit of a dropped stream",
		old:    `	if owes && dropped && !c.guard.ReportOnly {`,
		new:    `	if false {`,
		killer: "TestDroppedStreamGivesBackItsCredit",
	},
	{
		name:   "unregister: credit is owed without RequireStreamCreditRelease",
		old:    "c.creditRequired && st.kind.incoming()",
		new:    "st.kind.incoming()",
		killer: "TestStreamsThatComeAndGoLeaveNothing",
	},
	{
		name: "openLocked: counts only the first kind",
		old: `		open += r.stats.Open
`,
		new: `		open += r.stats.Open * int64(1-min(k, 1))
`,
		killer: "TestListenerServeWaitsNoLongerThanDrainTimeout",
	},
	{
		name: "openLocked: counts dropped unidirectional streams",
		old: `			open -= r.dropped
`,
		new: `			_ = r
`,
		killer: "TestShutdownDoesNotWaitForDroppedControlStreams",
	},
	{
		name: "register: logs a limit at which streams come and go",
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
		name: "unregister: counts a dropped stream for ever",
		old: `		r.dropped--
`,
		new: `		_ = r
`,
		killer: "TestDroppedControlStreamsAreEndedLast",
	},
}
