package main

var refuse = []mutation{
	{
		name: "refuse: CancelWrite skipped",
		old: `		s.CancelWrite(code)
`,
		new: `		_ = s
`,
		killer: "TestServeHandlesOneKindAndRefusesTheOther",
	},
	{
		name:   "wait: refuses without a pace",
		old:    "if early <= 0 {",
		new:    "if early <= 0 || true {",
		killer: "TestRefusingIsPaced",
	},
	{
		name:   "refusalCode: returns the wrong code during Shutdown",
		old:    `	if c.draining.Err() != nil {`,
		new:    `	if false {`,
		killer: "TestEndOfOneConnDoesNotEndNetListener",
	},
}
