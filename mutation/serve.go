package main

// serve breaks serve.go.
var serve = []mutation{
	{
		name: "Serve: runs twice at once",
		old: `	if serving {
		return errors.New("quiclife: Serve is running on this connection already")
	}
`,
		new: `	_ = serving
`,
		killer: "TestServeRunsOnceAtATime",
	},
	{
		name:   "Serve: handlers see Serve's context end",
		old:    "handlers := handlerContext{c.Context(), ctx}",
		new:    "handlers := ctx",
		killer: "TestServeWaitsForItsHandlers",
	},
	{
		name: "Serve: streams of a kind without a func are not refused",
		old: `			refuseAll(until, c, incoming, math.MaxInt64, c.raw.AcceptStream, c.guard.Codes.Refused)
			return
`,
		new: `			return
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
		name:   "wait: refuses without a pace",
		old:    "if early <= 0 {",
		new:    "if early <= 0 || true {",
		killer: "TestRefusingIsPaced",
	},
	{
		name: "runHandler: a panic goes on",
		old: `		if v := recover(); v != nil {
`,
		new: `		if v := any(nil); v != nil {
`,
		killer: "TestStreamEndsAsItsHandlerReturned",
	},
	{
		name: "runHandler: after an error the stream is finished",
		old: `	err := f(ctx, s)
	if err == nil {
`,
		new: `	err := f(ctx, s)
	if err == nil || true {
`,
		killer: "TestStreamEndsAsItsHandlerReturned",
	},
	{
		name: "runHandler: released before finish",
		old: `			err := finish()
			s.Release()
`,
		new: `			s.Release()
			err := finish()
`,
		killer: "TestStreamEndsAsItsHandlerReturned",
	},
	{
		name: "runHandler: after an error nothing is reset",
		old: `			s.Reset(abort)
		}
	}()
	err := f(ctx, s)`,
		new: `			_ = abort
		}
	}()
	err := f(ctx, s)`,
		killer: "TestStreamEndsAsItsHandlerReturned",
	},
	{
		name: "do: ctx does not reset the stream",
		old: `	stop := context.AfterFunc(ctx, func() { s.Reset(c.guard.Codes.HandlerError) })
`,
		new: `	stop := context.AfterFunc(ctx, func() {})
`,
		killer: "TestDoUnblocksItsFuncWhenItsContextEnds",
	},
	{
		name: "do: the error of f without that of ctx",
		old: `		return fmt.Errorf("%w: %w", ctx.Err(), err)
`,
		new: `		return err
`,
		killer: "TestDoUnblocksItsFuncWhenItsContextEnds",
	},
	{
		name: "do: ctx done after f looks like success",
		old: `	case !stop(): // the stream is being reset: what f wrote may not arrive
		return ctx.Err()
`,
		new:    "",
		killer: "TestDoFailsIfItsContextEndedFirst",
	},
	{
		name: "do: released before finish",
		old: `	err = finish(s)
	s.Release()
`,
		new: `	s.Release()
	err = finish(s)
`,
		killer: "TestDoEndsItsStreamAsItsFuncReturned",
	},
	{
		name: "finish: a peer that stops after its answer is an error",
		old: `	if err != ErrWriteCut && s.Info().Receive == HalfFinished {
		return nil
	}
`,
		new:    "",
		killer: "TestBadHandlersLoseNoSlot",
	},
	{
		name: "Listener.Serve: the listener stays open",
		old: `	cancel()
	l.Close()
	for { // those`,
		new: `	cancel()
	for { // those`,
		killer: "TestHandlerContextHasValuesOfConnectionAndOfServe",
	},
	{
		name: "Listener.Serve: connections are not shut down",
		old: `			c.drainFor(c.guard.drainTimeout())
`,
		new: `			_ = c
`,
		killer: "TestListenerServeDrains",
	},
}
