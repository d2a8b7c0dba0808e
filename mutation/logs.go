package main

// logs breaks logs.go.
var logs = []mutation{
	{
		name: "flushAll: a server that stops loses what was held back",
		old: `		if h.count > 0 {
`,
		new: `		if false {
`,
		killer: "TestStoppedServerWritesWhatWasHeldBack",
	},
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
		name: "count: does not count what it holds back",
		old: `		h.count++
`,
		new:    "",
		killer: "TestManyLeaksWriteFewLines",
	},
	{
		name:   "count: a time of another clock holds records back",
		old:    "since >= 0 && since < logInterval",
		new:    "h != nil && since < logInterval",
		killer: "TestLogOfOneBubbleDoesNotSilenceTheNext",
	},
	{
		name: "count: loses what was held back on another clock",
		old: `		count += h.count
`,
		new: `		_ = h
`,
		killer: "TestLogOfOneBubbleDoesNotSilenceTheNext",
	},
	{
		name: "flush: writes a record although none was held back",
		old: `	if count == 0 {
		delete`,
		new: `	if false {
		delete`,
		killer: "TestManyLeaksWriteFewLines",
	},
	{
		name: "flush: does not set its timer again",
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
		name:   "write: a nil Logger logs nothing",
		old:    "		logger = slog.Default()\n",
		new:    "		return\n",
		killer: "TestWithoutLoggerSlogsDefaultIsUsed",
	},
}
