package main

// handling breaks handling.go.
var handling = []mutation{
	{
		name: "awaitHandling: keeps a turn that was given up",
		old: `	g.handling.Leave(turn)
`,
		new: `	_ = turn
`,
		killer: "TestStreamThatWaitsTooLongIsRefused",
	},
	{
		name:   "maxWait: 0 means for ever",
		old:    "		return time.Second\n",
		new:    "		return 0\n",
		killer: "TestStreamThatWaitsTooLongIsRefused",
	},
}
