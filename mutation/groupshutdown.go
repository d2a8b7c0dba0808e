package main

var groupshutdown = []mutation{
	{
		name:   "Guard.Shutdown: a call from a hook waits for itself",
		old:    "		return ErrShutdown\n",
		new:    "		_ = 0\n",
		killer: "TestShutdownInBeforeShutdownDoesNotDeadlock",
	},
	{
		name: "callHooks: hooks run one after the other",
		old: `		all.Go(func() { errs[i] = callHook(ctx, f) })
`,
		new: `		errs[i] = callHook(ctx, f)
`,
		killer: "TestBeforeShutdownComesBeforeConnections",
	},
	{
		name: "Guard.Shutdown: ctx ignored while it waits for the sockets",
		old: `			case <-ctx.Done():
				failed.sockets++
				failed.errs = append(failed.errs, fmt.Errorf("quiclife: shutdown: the socket of %v is still open: %w", l.raw.Addr(), ctx.Err()))
`,
		new:    "",
		killer: "TestGuardShutdownWaitsForUnwrappedConnection",
	},
	{
		name: "Guard.Shutdown: names a closed socket as open",
		old: `				continue
			default:
`,
		new: `			default:
`,
		killer: "TestGuardShutdownWithDoneContextNamesClosedSocket",
	},
}
