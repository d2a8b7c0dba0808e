package main

// unistream breaks unistream.go.
var unistream = []mutation{
	{
		name: "ReceiveStream: watchFinalSize dropped",
		old: `	s.st.watchFinalSize()
`,
		new:    "",
		alone:  true,
		killer: "TestUniStreamIsFreedByEachEnd",
	},
	{
		name:   "SendStream.SetReliableBoundary: bypasses the accounting",
		old:    "{ s.st.setReliableBoundary() }",
		new:    "{ s.raw.SetReliableBoundary() }",
		killer: "TestUniStreamBoundaryHoldsAgainstReset",
	},
}
