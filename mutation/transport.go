package main

// transport breaks transport.go.
var transport = []mutation{
	{
		name: "update: never closes",
		old: `	case last:
		o.close()
`,
		new:    "",
		killer: "TestListenFails",
	},
	{
		name: "close: socket stays open",
		old: `		o.socket.Close()
`,
		new: `		_ = o
`,
		killer: "TestListenFails",
	},
}
