package main

// conn breaks conn.go.
var conn = []mutation{
	{
		name: "wrap: end not called at the end of the connection",
		old: `	context.AfterFunc(c.lifetime, c.end)
`,
		new: `	_ = context.AfterFunc
`,
		killer: "TestEndedConnIsForgotten",
	},
	{
		name: "wrap: inBubble is never set",
		old: `	c.inBubble = c.start == c.start.Round(0)
`,
		new:    "",
		killer: "TestReleaseFreesStreamWhateverBothEndsDid",
	},
	{
		name: "end: ended not set",
		old: `	c.ended = true
`,
		new:    "",
		killer: "TestStreamThatComesAsConnectionEndsStaysOpen",
	},
	{
		name: "end: timers not stopped",
		old: `		c.timer.Stop()
`,
		new: `		_ = c
`,
		killer: "TestEndedConnIsForgottenByItsTimer",
	},
	{
		name: "CloseWithError: end not called",
		old: `	err := c.closeRaw(code, desc)
	c.end()
`,
		new: `	err := c.closeRaw(code, desc)
`,
		killer: "TestCloseWithErrorReturnsWhenTheCountsAreDown",
	},
	{
		name: "accept: streams not refused during Shutdown",
		old: `		refuse(raw, c.guard.Codes.Shutdown)
		return none, ErrShutdown
`,
		new: `		_ = c
`,
		killer: "TestBlockedAcceptReturnsWithNextStreamDuringShutdown",
	},
	{
		name: "end: streams not ended",
		old: `	for _, st := range open {
		st.connectionEnded()
	}
`,
		new:    "",
		killer: "TestCloseWithErrorEndsStreamsAndCalls",
	},
}
