package main

var do = []mutation{
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
		old: `	case !stop(): // the stream is being reset, so what f wrote may not arrive
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
		old: `	if err != ErrWriteCut && !isCanceled(err) && s.Info().Receive == HalfFinished {
		return nil
	}
`,
		new:    "",
		killer: "TestBadHandlersLoseNoSlot",
	},
}
