package main

// shutdown breaks shutdown.go.
var shutdown = []mutation{
	{
		name: "Shutdown: opens go on",
		old: `	c.drain()
	cut, err`,
		new:    `	cut, err`,
		killer: "TestShutdownAgainst",
	},
	{
		name:   "Shutdown: the streams cut are not named",
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
		name:   "awaitEnd: an open under way is forgotten",
		old:    `		if open == 0 { // else`,
		new:    `		if true || open == 0 { // else`,
		killer: "TestOpenRacesWithShutdown",
	},
	{
		name:   "awaitStreams: no collection is asked for",
		old:    `	c.collectAtLimit() // dropped`,
		new:    `	// dropped`,
		killer: "TestShutdownAgainst",
	},
	{
		name: "awaitStreams: incoming streams are not refused",
		old: `	defer c.refuseWhile(ctx, math.MaxInt64, math.MaxInt64)()
`,
		new: `	_ = math.MaxInt64
`,
		killer: "TestDuringShutdown",
	},
	{
		name:   "awaitStreams: a cut by the end is taken for an end",
		old:    `		if len(c.streamsCut()) > 0 { // ended`,
		new:    `		if false { // ended`,
		killer: "TestShutdownCutNoticedFirst",
	},
	{
		name: "awaitStreams: each call waits for its own",
		old: `	if c.drained == nil {
		c.drained`,
		new: `	if true {
		c.drained`,
		killer: "TestDuringShutdown",
	},
	{
		name:   "cutStreams: streams are named again and again",
		old:    `		if !st.cutNoted {`,
		new:    `		if true {`,
		killer: "TestShutdownCutByPeer",
	},
	{
		name: "awaitQuiet: the handshake is not awaited",
		old: `	select { // before that, the limit on what a server sends to an address that is not validated looks quiet
	case <-c.raw.HandshakeComplete():
	case <-c.lifetime.Done():
		return c.peerClosed()
	case <-ctx.Done():
		return ctx.Err()
	}
`,
		new:    "",
		killer: "TestShutdownOfRejected0RTT",
	},
	{
		name: "awaitQuiet: ctx ignored in the handshake",
		old: `	case <-c.lifetime.Done():
		return c.peerClosed()
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.rejected`,
		new: `	case <-c.lifetime.Done():
		return c.peerClosed()
	}
	if c.rejected`,
		killer: "TestShutdownOfStuckHandshake",
	},
	{
		name: "awaitQuiet: rejected 0-RTT is fine",
		old: `	if c.rejected0RTT() {
		return Err0RTTRejected
	}
`,
		new:    "",
		killer: "TestShutdownOfRejected0RTT",
	},
	{
		name:   "awaitQuiet: refuses without end",
		old:    "c.refuseWhile(ctx, c.kinds[incoming].stats.Limit, c.kinds[incomingUni].stats.Limit)()",
		new:    "c.refuseWhile(ctx, math.MaxInt64, math.MaxInt64)()",
		killer: "TestShutdownAgainst",
	},
	{
		name: "awaitQuiet: half a PTO is quiet",
		old: `		quiet := 2 * pto
`,
		new: `		quiet := pto / 2
`,
		killer: "TestShutdownLosesNothing",
	},
	{
		name: "awaitQuiet: as long without anything received",
		old: `			quiet = 3 * pto
`,
		new: `			_ = quiet
`,
		killer: "TestShutdownInHandshake",
	},
	{
		name:   "awaitQuiet: gap ignored",
		old:    " && time.Since(lastProbe) >= 3*gap {",
		new:    " && (gap >= 0 || lastProbe.IsZero()) {",
		killer: "TestShutdownOfVanishedPeer",
	},
	{
		name:   "awaitQuiet: probes not seen",
		old:    `			if now.Sub(lastReceived) > maxAckDelay+poll {`,
		new:    `			if false {`,
		killer: "TestShutdownOfVanishedPeer",
	},
	{
		name: "awaitQuiet: the end ignored",
		old: `		case <-c.lifetime.Done():
			timer.Stop()
			return c.peerClosed()
`,
		new:    "",
		killer: "TestShutdownOfVanishedPeer",
	},
	{
		name:   "pto: deviation ignored",
		old:    "max(4*stats.MeanDeviation, granularity)",
		new:    "granularity",
		killer: "TestShutdownLosesNothing",
	},
	{
		name: "Guard.Shutdown: ctx ignored while it waits for the sockets",
		old: `			case <-ctx.Done():
				errs = append(errs, fmt.Errorf("quiclife: shutdown: the socket of %v is still open: %w", l.raw.Addr(), ctx.Err()))
`,
		new:    "",
		killer: "TestGuardShutdownOfUnwrapped",
	},
	{
		name: "Guard.Shutdown: a socket that is closed is named",
		old: `				continue
			default:
`,
		new: `			default:
`,
		killer: "TestGuardShutdownLeavesSocket",
	},
}
