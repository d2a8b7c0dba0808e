package main

// netListeners breaks netlistener.go.
var netListeners = []mutation{
	{
		name:   "Accept: returns a stream after Close",
		old:    `	if n.open.Err() != nil {`,
		new:    `	if false {`,
		killer: "TestAcceptAfterCloseReturnsNoStream",
	},
	{
		name:   "Close: closes a listener that somebody else uses",
		old:    `	case n.busy:`,
		new:    `	case false:`,
		killer: "TestListenerHasOneUserAtATime",
	},
	{
		name:   "NetListener: connections that nobody accepted stay when the listener is closed",
		old:    "		l.l.whenClosed(n.start)\n",
		new:    "		_ = 0\n",
		killer: "TestUnusedNetListenerClosesConnsWithItsListener",
	},
	{
		name: "run: the listener stays in use",
		old: `	defer n.l.finish()
`,
		new:    ``,
		killer: "TestTransportsEndEndsNetListener",
	},
	{
		name: "run: Accept stays blocked",
		old: `			n.end(err)
`,
		new:    ``,
		killer: "TestNetListenerEndsWithListener",
	},
	{
		name:   "serve: unidirectional streams are not refused",
		old:    `if c.kinds[incomingUni].stats.Limit > 0 {`,
		new:    `if false {`,
		killer: "TestNetListenerRefusesUniStreams",
	},
	{
		name: "serve: loses what was written",
		old: `		c.drainFor(c.guard.drainTimeout())
`,
		new: `		c.CloseWithError(0, "")
`,
		killer: "TestNetListenerCloseLosesNoAnswer",
	},
	{
		name:   "serve: shuts down while another Shutdown is under way",
		old:    `	if c.draining.Err() == nil { //`,
		new:    `	if true { //`,
		killer: "TestNetListenerLeavesShutdownItsTime",
	},
	{
		name: "handOut: goes on after Close",
		old: `	defer context.AfterFunc(n.open, cancel)()
`,
		new:    ``,
		killer: "TestNetListenerCloseLetsStreamsLiveOn",
	},
	{
		name: "give: waits on a connection that has ended",
		old: `	case <-c.lifetime.Done():
	}
	s.Reset`,
		new: `	}
	s.Reset`,
		killer: "TestEndOfOneConnDoesNotEndNetListener",
	},
	{
		name: "give: a stream in hand is kept",
		old: `	s.Reset(c.refusalCode())
	return false`,
		new:    `	return false`,
		killer: "TestNetListenerCloseRefusesWhatNobodyAccepted",
	},
}
