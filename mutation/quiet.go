package main

// quiet breaks quiet.go.
var quiet = []mutation{
	{
		name: "awaitQuiet: the handshake is not awaited",
		old: `	select { // before that, a server may be silent only because the client's address is not validated
	case <-c.raw.HandshakeComplete():
	case <-c.lifetime.Done():
		return c.peerClosed()
	case <-ctx.Done():
		return ctx.Err()
	}
`,
		new:    "",
		killer: "TestShutdownReturnsNilForRejected0RTT",
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
		killer: "TestShutdownOfStuckHandshakeIgnoresContext",
	},
	{
		name: "awaitQuiet: rejected 0-RTT is fine",
		old: `	if c.rejected0RTT() {
		return Err0RTTRejected
	}
`,
		new:    "",
		killer: "TestShutdownReturnsNilForRejected0RTT",
	},
	{
		name:   "look: what is written is not noted",
		old:    "		q.detector.Wrote(time.Now())\n",
		new:    "",
		killer: "TestShutdownTakesOutageForQuiet",
	},
}
