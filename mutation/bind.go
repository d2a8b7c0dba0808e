package main

// bind breaks bind.go.
var bind = []mutation{
	{
		name: "bind: a context that is done resets later",
		old: `	if ctx.Err() != nil {
		b.done()`,
		new: `	if false {
		b.done()`,
		killer: "TestContextThatIsDoneResetsAtOnce",
	},
	{
		name: "BindContext: the context holds the handle",
		old: `	stop = s.st.bind(ctx)
	runtime.KeepAlive(s)
	return stop
}

// BindContext is [Stream.BindContext]. Close`,
		new: `	stop = s.st.bind(ctx)
	context.AfterFunc(ctx, s.Release)
	return stop
}

// BindContext is [Stream.BindContext]. Close`,
		killer: "TestBoundStreamIsFoundDropped",
	},
	{
		name:   "add: binds a stream that has ended",
		old:    `	if st.sendHalf != HalfOpen && st.receiveHalf != HalfOpen {`,
		new:    `	if false {`,
		killer: "TestContextDoesNothingToEndedStream",
	},
	{
		name: "forgetWith: a stream that has ended meanwhile stays with the context",
		old: `	if !bound {
		forget()`,
		new: `	if !bound && false {
		forget()`,
		killer: "TestContextForgetsEndedStreams",
	},
	{
		name: "remove: the context is not told",
		old: `	letGo([]*binding{b})
`,
		new:    ``,
		killer: "TestContextForgetsEndedStreams",
	},
	{
		name:   "done: resets although it was stopped",
		old:    `	if !slices.Contains(st.extra.bindings, b) { //`,
		new:    `	if false { //`,
		killer: "TestStopBeforeResetHasBegun",
	},
	{
		name:   "done: resets what another is just ending",
		old:    `	reset := send || receive //`,
		new:    `	reset := true //`,
		killer: "TestContextDuringCloseTakesNothingBack",
	},
	{
		name:   "done: does not say that it takes back what was closed",
		old:    `why.send, why.receive = send || closed, receive`,
		new:    `why.send, why.receive = send || closed && false, receive`,
		killer: "TestContextTakesBackWhatIsNotDelivered",
	},
	{
		name:   "done: says that it takes back what it must deliver",
		old:    ` && !st.boundary // the reset`,
		new:    ` // the reset`,
		killer: "TestContextDeliversUpToReliableBoundary",
	},
	{
		name:   "receiveCanceled: says so of a half that had ended",
		old:    ` || !x.canceled.receive {`,
		new:    ` {`,
		killer: "TestContextLeavesEndedHalfItsError",
	},
	{
		name:   "sendCanceled: says so of a half that had ended",
		old:    ` || !x.canceled.send {`,
		new:    ` {`,
		killer: "TestContextLeavesEndedHalfItsError",
	},
	{
		name:   "sendCanceled: only once quic-go knows",
		old:    `	if err == quic.ErrStreamClosed {`,
		new:    `	if false {`,
		killer: "TestWriteDuringResetByContextSaysWhy",
	},
}
