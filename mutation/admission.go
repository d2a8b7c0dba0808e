package main

// admission breaks admission.go.
var admission = []mutation{
	{
		name: "gate.admit: admits all",
		old: `	if err := g.guard.admit(a); err != nil {
		return nil, err
	}
`,
		new: `	_ = g.guard.admit(a)
`,
		killer: "TestMaxConnsInStorm",
	},
	{
		name:   "verify: pressure ignored",
		old:    "return verify || g.guard.pressed()",
		new:    "return verify",
		killer: "TestForgedPacketsShutNobodyOut",
	},
	{
		name: "connIDs: failure not noticed",
		old: `			a.enter(forgotten)
`,
		new: `			_ = a
`,
		killer: "TestMaxConnsAfterFailedAdmissions",
	},
}
