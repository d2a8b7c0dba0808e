package main

// serve breaks serve.go.
var serve = []mutation{
	{
		name: "Serve: runs twice at once",
		old: `	if serving {
		return errors.New("quiclife: Serve is already running on this connection")
	}
`,
		new: `	_ = serving
`,
		killer: "TestServeRunsOnceAtATime",
	},
	{
		name:   "Serve: handlers see Serve's context end",
		old:    "handlerContext{c.Context(), values}}",
		new:    "values}",
		killer: "TestServeWaitsForItsHandlers",
	},
	{
		name: "Serve: streams of a kind without a func are not refused",
		old: `		return refuseAll(s.until, c, k, math.MaxInt64, next, c.guard.Codes.Refused)
`,
		new: `		<-s.until.Done()
		return s.until.Err()
`,
		killer: "TestServeHandlesOneKindAndRefusesTheOther",
	},
	{
		name: "handlerContext: values of Serve's context first",
		old: `	if v := h.Context.Value(key); v != nil {
		return v
	}
	return h.serve.Value(key)`,
		new: `	if v := h.serve.Value(key); v != nil {
		return v
	}
	return h.Context.Value(key)`,
		killer: "TestHandlerContextHasValuesOfConnectionAndOfServe",
	},
	{
		name: "serveAll: does not wait for the handlers",
		old: `	defer handlers.Wait()
`,
		new:    "",
		killer: "TestServeWaitsForItsHandlers",
	},
	{
		name: "serveAll: handlers without a limit",
		old: `	slots := make(chan struct{}, limit)
`,
		new: `	slots := make(chan struct{}, 100_000+0*limit)
`,
		killer: "TestServeAcceptsNothingAfterItsContextAtLimit",
	},
	{
		name: "serveAll: a limit of none serves nothing",
		old: `		limit = math.MaxInt32
`,
		new: `		_ = limit
`,
		killer: "TestServeHandlesMoreStreamsThanItWasTold",
	},
	{
		name:   "acceptUntil: accepts what is queued when ctx is done",
		old:    "if err := ctx.Err(); err != nil {\n\t\treturn none, err",
		new:    "if err := ctx.Err(); err != nil && false {\n\t\treturn none, err",
		killer: "TestServeHandlesQueuedStreamsAfterItsContext",
	},
	{
		name: "runHandler: a panic goes on",
		old: `		if v := recover(); v != nil || !returned {
`,
		new: `		if v := any(nil); v != nil || returned && !returned {
`,
		killer: "TestStreamEndsAsItsHandlerReturned",
	},
	{
		name: "runHandler: after an error the stream is finished",
		old: `		if returned && failure == nil {
`,
		new: `		if returned {
`,
		killer: "TestStreamEndsAsItsHandlerReturned",
	},
	{
		name: "runHandler: released before finish",
		old: `			err := finish(str)
			str.Release()
`,
		new: `			str.Release()
			err := finish(str)
`,
		killer: "TestStreamEndsAsItsHandlerReturned",
	},
	{
		name: "runHandler: after an error nothing is reset",
		old: `			str.Reset(abort)
`,
		new: `			_ = abort
`,
		killer: "TestStreamEndsAsItsHandlerReturned",
	},
	{
		name:   "serveAll: streams behind one that has waited too long wait on",
		old:    "			refuseWaiting(c, str, k, next)\n",
		new:    "			str.Reset(c.guard.Codes.Refused)\n",
		killer: "TestStreamThatWaitsTooLongIsRefused",
	},
	{
		name:   "runHandler: a slot of MaxStreams is not given back",
		old:    "				c.handled()\n",
		new:    "",
		killer: "TestHandlersThatOpenStreamsDoNotDeadlock",
	},
	{
		name: "begin: a refused connection stays open",
		old: `		c.CloseWithError(code, reason)
`,
		new: `		_, _ = code, reason
`,
		killer: "TestHandlersConnRefuses",
	},
	{
		name: "Listener.Serve: the listener stays open",
		old: `	cancel()
	l.Close()
	for { // take`,
		new: `	cancel()
	for { // take`,
		killer: "TestHandlerContextHasValuesOfConnectionAndOfServe",
	},
	{
		name: "Listener.Serve: connections are not shut down",
		old: `			err := c.drainFor(c.guard.drainTimeout())
`,
		new: `			var err error
`,
		killer: "TestListenerServeDrains",
	},
}
