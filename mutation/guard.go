package main

// guard breaks guard.go.
var guard = []mutation{
	{
		name: "abandonGrace: 0 is 1 ms",
		old: `		return time.Second
`,
		new: `		return time.Millisecond
`,
		killer: "TestDroppedStreamIsReportedAndEnded",
	},
}
