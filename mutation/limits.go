package main

// limits breaks limits.go.
var limits = []mutation{
	{
		name: "limitError: the newest stream in place of the oldest",
		old: `	oldest := r.streams.first
`,
		new: `	oldest := r.streams.last
`,
		killer: "TestErrorAtPeersLimitSaysWhoHoldsIt",
	},
	{
		name: "logStuck: names the wrong scope",
		old: `		scope = LimitOutgoing
`,
		new: `		_ = scope
`,
		killer: "TestStuckOpenIsLogged",
	},
	{
		name: "LimitError: does not say that the peer may hold the others",
		old: `		s += ", the peer may not have ended the others"
`,
		new:    "",
		killer: "TestErrorAtPeersLimitSaysWhoHoldsIt",
	},
}
