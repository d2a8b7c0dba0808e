package main

// shutdown breaks shutdown.go.
var shutdown = []mutation{
	{
		name: "Shutdown: opens still succeed",
		old: `	c.drain()
	cut, err`,
		new:    `	cut, err`,
		killer: "TestShutdownAgainst",
	},
	{
		name:   "Shutdown: does not name the streams that it cut",
		old:    "&ShutdownError{Streams: cut, Err: err}",
		new:    "&ShutdownError{Streams: cut[:0], Err: err}",
		killer: "TestShutdownAgainst",
	},
	{
		name:   "Shutdown: does not wait for streams",
		old:    `		if err := c.awaitStreams(ctx); err != nil {`,
		new:    `		if err := ctx.Err(); err != nil {`,
		killer: "TestShutdownAgainst",
	},
	{
		name: "Shutdown: does not wait until quiet",
		old: `		if err := c.awaitQuiet(ctx); err != nil {
			return c.streamsCut(), err
		}
`,
		new:    "",
		killer: "TestShutdownLosesNothing",
	},
	{
		name:   "awaitEnd: forgets an open under way",
		old:    `		if open == 0 { // else`,
		new:    `		if true || open == 0 { // else`,
		killer: "TestShutdownMissesStreamBeingOpened",
	},
	{
		name: "awaitStreams: no collection is asked for",
		old: `	c.wakeLocked(now)
	c.mu.Unlock()

	defer c.refuse`,
		new: `	c.mu.Unlock()

	defer c.refuse`,
		killer: "TestShutdownAgainst",
	},
	{
		name: "awaitStreams: incoming streams are not refused",
		old: `	defer c.refuseWhile(ctx, math.MaxInt64, math.MaxInt64)()
`,
		new: `	_ = math.MaxInt64
`,
		killer: "TestShutdownRefusesPeersStreamsAndLeavesOpenOnes",
	},
	{
		name:   "awaitStreams: takes streams that the connection's end cut for ended",
		old:    `		if len(c.streamsCut()) == 0 {`,
		new:    `		if true {`,
		killer: "TestShutdownNamesStreamWhoseEndProgramNoticedFirst",
	},
	{
		name: "awaitStreams: each call waits on a channel of its own",
		old: `	if c.drained == nil {
		c.drained`,
		new: `	if true {
		c.drained`,
		killer: "TestConcurrentShutdownsBothNameWhatPeerCloseCuts",
	},
	{
		name:   "cutStreams: names a stream more than once",
		old:    `		if !st.cutNoted {`,
		new:    `		if true {`,
		killer: "TestShutdownNamesStreamThatPeerCloseCuts",
	},
	{
		name:   "peerClosed: takes what this side cut for arrived",
		old:    "(e.Remote || c.arrived.Load())",
		new:    "(e.Remote || c != nil)",
		killer: "TestShutdownReturnsNilThoughThisSideCut",
	},
}
