package main

// guard breaks guard.go.
var guard = []mutation{
	{
		name: "abandonGrace: 0 means 1 ms",
		old: `		return time.Second
`,
		new: `		return time.Millisecond
`,
		killer: "TestDroppedStreamIsReportedAndEnded",
	},
}
