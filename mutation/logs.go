package main

// logs breaks logs.go.
var logs = []mutation{
	{
		name: "count: nothing is held back",
		old: `		h.count++
		h.level, h.attrs = level, attrs
		return 0
`,
		new: `		return 1
`,
		killer: "TestManyLeaksWriteFewLines",
	},
	{
		name: "count: what is held back is not counted",
		old: `		h.count++
`,
		new:    "",
		killer: "TestManyLeaksWriteFewLines",
	},
	{
		name:   "count: another clock silences",
		old:    "since >= 0 && since < logInterval",
		new:    "h != nil && since < logInterval",
		killer: "TestLogOfOneBubbleDoesNotSilenceTheNext",
	},
	{
		name: "count: what another clock held back is lost",
		old: `		count += h.count
`,
		new: `		_ = h
`,
		killer: "TestLogOfOneBubbleDoesNotSilenceTheNext",
	},
	{
		name: "flush: of nothing",
		old: `	if count == 0 {
		delete`,
		new: `	if false {
		delete`,
		killer: "TestManyLeaksWriteFewLines",
	},
	{
		name: "flush: only once",
		old: `	h.written, h.count, h.attrs = time.Now(), 0, nil
	t.mu.Unlock()
	time.AfterFunc(logInterval, func() { g.flush(kind, h) })
`,
		new: `	h.written, h.count, h.attrs = time.Now(), 0, nil
	t.mu.Unlock()
`,
		killer: "TestManyLeaksWriteFewLines",
	},
	{
		name:   "write: a Logger that panics ends the process",
		old:    "_ = recover()",
		new:    "_ = g",
		killer: "TestPanicsOfOnLeakAndLoggerAreContained",
	},
	{
		name:   "callOnLeak: an OnLeak that panics ends the process",
		old:    "if v := recover(); v != nil {",
		new:    "if v := any(nil); v != nil {",
		killer: "TestPanicsOfOnLeakAndLoggerAreContained",
	},
	{
		name:   "write: no Logger, no log",
		old:    "		logger = slog.Default()\n",
		new:    "		return\n",
		killer: "TestWithoutLoggerSlogsDefaultIsUsed",
	},
}
