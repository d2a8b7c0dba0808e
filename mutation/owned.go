package main

var ownedTransports = []mutation{
	{
		name: "update: never closes the transport",
		old: `	case last:
		o.close()
`,
		new:    "",
		killer: "TestFailedListenLeavesNothing",
	},
	{
		name: "close: socket stays open",
		old: `		o.socket.Close()
`,
		new: `		_ = o
`,
		killer: "TestFailedListenLeavesNothing",
	},
	{
		name: "ownAddr: socket not owned",
		old: `	o.socket = socket
`,
		new:    "",
		killer: "TestGuardShutdownFreesAddress",
	},
}
