package main

// admission breaks admission.go.
var admission = []mutation{
	{
		name: "gate.admit: admits every connection",
		old: `	if err := g.guard.admit(a); err != nil {
		return nil, err
	}
`,
		new: `	_ = g.guard.admit(a)
`,
		killer: "TestMaxConnsInStorm",
	},
	{
		name:   "verify: ignores the pressure of handshakes",
		old:    "return verify || g.guard.pressed()",
		new:    "return verify",
		killer: "TestForgedPacketsShutNobodyOut",
	},
	{
		name:   "pressed: stops as soon as there is a place",
		old:    "return time.Since(g.pressedAt) < pressedFor",
		new:    "return false",
		killer: "TestLatePacketsAfterARetryTakeNoPlace",
	},
	{
		name: "connIDs: does not notice a failure",
		old: `			a.enter(forgotten)
`,
		new: `			_ = a
`,
		killer: "TestMaxConnsAfterFailedAdmissions",
	},
}
