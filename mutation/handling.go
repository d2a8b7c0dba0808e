package main

// handling breaks handling.go.
var handling = []mutation{
	{
		name: "awaitHandling: a turn that was given up is kept",
		old: `	g.handling.Leave(turn)
`,
		new: `	_ = turn
`,
		killer: "TestStreamThatWaitsTooLongIsRefused",
	},
	{
		name:   "maxWait: 0 is never",
		old:    "		return time.Second\n",
		new:    "		return 0\n",
		killer: "TestStreamThatWaitsTooLongIsRefused",
	},
}
