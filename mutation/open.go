package main

// open breaks open.go.
var open = []mutation{
	{
		name:   "reserve: limit off by one",
		old:    "(r.reserved >= r.stats.Limit ||",
		new:    "(r.reserved > r.stats.Limit ||",
		killer: "TestOutgoingLimit",
	},
	{
		name: "unreserve: last come first served",
		old: `	close(r.waiting[0])
	r.waiting = slices.Delete(r.waiting, 0, 1)`,
		new: `	close(r.waiting[len(r.waiting)-1])
	r.waiting = slices.Delete(r.waiting, len(r.waiting)-1, len(r.waiting))`,
		killer: "TestOutgoingLimit",
	},
	{
		name: "awaitReservation: a slot freed since not seen",
		old: `	if r.reserved < r.stats.Limit && len(r.waiting) == 0 { // freed since
`,
		new: `	if false {
`,
		killer: "TestEdgeNobodyWaitsForNothing",
	},
	{
		name: "awaitReservation: slot lost when ctx ends as granted",
		old: `	} else { // given to us just now: pass it on
		c.unreserveLocked(r)
`,
		new: `	} else {
`,
		killer: "TestSlotsAreNotLost",
	},
	{
		name:   "awaitReservation: ctx error not wrapped",
		old:    "err = c.limitError(k, OutgoingLimit, ctx.Err())",
		new:    "err = ctx.Err()",
		killer: "TestOutgoingLimit",
	},
	{
		name: "awaitPeer: asks for no collection",
		old: `	c.block(k, 1)
	defer c.block(k, -1)
	until`,
		new:    `	until`,
		killer: "TestOpenAtTheLimitGetsTheSlotOfADroppedStream",
	},
	{
		name: "awaitPeer: wrapped though the connection ended",
		old: `	if err != nil && c.lifetime.Err() == nil {
		switch`,
		new: `	if err != nil {
		switch`,
		killer: "TestEdgeCtxOfConn",
	},
	{
		name: "awaitPeer: Shutdown does not end the wait",
		old: `	defer context.AfterFunc(c.draining, cancel)()
`,
		new:    "",
		killer: "TestDuringShutdown",
	},
	{
		name: "awaitPeer: Shutdown looks like a cancelled context",
		old: `		case c.draining.Err() != nil:
			err = ErrShutdown
`,
		new:    "",
		killer: "TestDuringShutdown",
	},
	{
		name: "admit: opens during Shutdown",
		old: `	if c.draining.Err() != nil && c.lifetime.Err() == nil {
		return ErrShutdown
	}
	return c.guard.admitStream`,
		new:    `	return c.guard.admitStream`,
		killer: "TestDuringShutdown",
	},
	{
		name: "awaitPeer: ctx ignored",
		old: `	until, cancel := context.WithCancel(ctx)
`,
		new: `	until, cancel := context.WithCancel(context.WithoutCancel(ctx))
`,
		killer: "TestPeerLimit",
	},
}
