package main

// read breaks read.go.
var read = []mutation{
	{
		name:   "finalSizeKnown: user callback not forgotten",
		old:    `user, x.userFinalSize = x.userFinalSize, nil`,
		new:    `user = x.userFinalSize`,
		killer: "TestCalledFinalSizeCallbackIsForgotten",
	},
	{
		name: "finalSizeKnown: consumeEOF dropped",
		old: `		user(size)
	}
	st.consumeEOF()`,
		new: `		user(size)
	}`,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name: "setFinalSizeCallback: nil does not remove",
		old: `	if size == sizeUnknown {
		st.extraLocked().userFinalSize`,
		new: `	if size == sizeUnknown && callback != nil {
		st.extraLocked().userFinalSize`,
		killer: "TestFinalSizeCallbackIsCalledOnce",
	},
	{
		name: "consumeEOF: half not checked to be open",
		old: `	if !open {
		return`,
		new: `	if !open && false {
		return`,
		killer: "TestDetachLeavesEOFToCaller",
	},
	{
		name: "consumeEOF: SetReadDeadline dropped",
		old: `	st.receive().SetReadDeadline(time.Time{}) // a deadline in the past would hide the EOF
`,
		new:    ``,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name: "consumeEOF: CancelRead in place of Read",
		old: `	_, err := st.receive().Read(noBytes[:])
	if err == io.EOF {`,
		new: `	st.cancelRead(0)
	err := io.EOF
	if err == io.EOF {`,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name: "didRead: consumeEOF dropped",
		old: `err == nil {
		st.consumeEOF()
	}`,
		new: `err == nil {
		_ = st
	}`,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name: "didRead: readFailed dropped",
		old: `	st.readFailed(n, err)
`,
		new:    ``,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name: "didPeek: error not read",
		old: `	st.readFailed(st.receive().Read(noBytes[:]))
`,
		new:    ``,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name: "willRead: readers not counted up",
		old: `	st.readers.Add(1)
	st.reads`,
		new:    `	st.reads`,
		killer: "TestBlockedPeekCountsAsReading",
	},
}
