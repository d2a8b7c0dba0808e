package main

// open breaks open.go.
var open = []mutation{
	{
		name:   "awaitSlot: loses a slot that is granted as ctx ends",
		old:    "	c.kinds[k].slots.Leave(slot)\n",
		new:    "",
		killer: "TestOpensThatGiveUpLoseNoSlot",
	},
	{
		name:   "awaitSlot: ctx error not wrapped",
		old:    "err = c.limitError(k, LimitOutgoing, ctx.Err())",
		new:    "err = ctx.Err()",
		killer: "TestOpenAtOwnLimitFails",
	},
	{
		name: "awaitPeer: asks for no collection",
		old: `	defer c.block(k)()
	until`,
		new:    `	until`,
		killer: "TestOpenAtTheLimitGetsTheSlotOfADroppedStream",
	},
	{
		name: "awaitPeer: wraps the error although the connection ended",
		old: `	if err != nil && c.lifetime.Err() == nil {
		switch`,
		new: `	if err != nil {
		switch`,
		killer: "TestOpenThatEndsWithConnectionReturnsItsError",
	},
	{
		name: "awaitPeer: Shutdown does not end the wait",
		old: `	defer context.AfterFunc(c.draining, cancel)()
`,
		new:    "",
		killer: "TestShutdownRefusesStreamsOfThisSide",
	},
	{
		name: "awaitPeer: Shutdown looks like a cancelled context",
		old: `		case c.draining.Err() != nil:
			err = ErrShutdown
`,
		new:    "",
		killer: "TestShutdownRefusesStreamsOfThisSide",
	},
	{
		name: "admit: allows opens during Shutdown",
		old: `	if c.draining.Err() != nil && c.lifetime.Err() == nil {
		return ErrShutdown
	}
	return c.guard.admitStream`,
		new:    `	return c.guard.admitStream`,
		killer: "TestShutdownRefusesStreamsOfThisSide",
	},
	{
		name: "awaitPeer: ctx ignored",
		old: `	until, cancel := context.WithCancel(ctx)
`,
		new: `	until, cancel := context.WithCancel(context.WithoutCancel(ctx))
`,
		killer: "TestErrorAtPeersLimitSaysWhoHoldsIt",
	},
}
