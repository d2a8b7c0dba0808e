package main

// limits breaks limits.go.
var limits = []mutation{
	{
		name: "limitError: newest for oldest",
		old: `	oldest := r.streams.first
`,
		new: `	oldest := r.streams.last
`,
		killer: "TestErrorAtPeersLimitSaysWhoHoldsIt",
	},
	{
		name: "logStuck: the wrong scope",
		old: `		scope = LimitOutgoing
`,
		new: `		_ = scope
`,
		killer: "TestStuckOpenIsLogged",
	},
	{
		name: "LimitError: a stream that is rightly open is blamed alone",
		old: `		s += ", the peer may not have ended the others"
`,
		new:    "",
		killer: "TestErrorAtPeersLimitSaysWhoHoldsIt",
	},
}
