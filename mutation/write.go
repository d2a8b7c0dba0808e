package main

// write breaks write.go.
var write = []mutation{
	{
		name:   "beginWrite: does not wait for its turn",
		old:    `if ok && st.writing != notWriting {`,
		new:    `if ok && false {`,
		killer: "TestCloseCutsSecondOfTwoBlockedWrites",
	},
	{
		name: "wake: changed not cleared",
		old: `		x.changed = nil
`,
		new:    "",
		killer: "TestCloseDuringBlockedWriteResetsStream",
	},
	{
		name:   "canWrite: false after Detach",
		old:    `return st.sendHalf == HalfOpen || st.sendHalf == halfDetached`,
		new:    `return st.sendHalf == HalfOpen`,
		killer: "TestDetachedStreamIsTheCallers",
	},
	{
		name: "endWrite: cut not set",
		old: `		st.cut = true
`,
		new: `		_ = st
`,
		killer: "TestNothingCutLooksWhole",
	},
	{
		name: "endWrite: cut not cleared",
		old: `		st.cut = false
`,
		new: `		_ = st
`,
		killer: "TestNothingLost",
	},
	{
		name: "endWrite: sendFailed dropped",
		old: `		st.sendFailed(err)
`,
		new: `		_ = err
`,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name:   "endsSendHalf: a deadline ends the half",
		old:    "return !isDeadline(err) && err",
		new:    "return err",
		killer: "TestNothingCutLooksWhole",
	},
	{
		name:   "endsSendHalf: ErrWriteLimitReached ends the half",
		old:    " && err != quic.ErrWouldBlock && err != quic.ErrWriteLimitReached",
		new:    " && err != quic.ErrWouldBlock",
		killer: "TestNothingLost",
	},
	{
		name: "writeAfterEnd: always returns ErrStreamClosed",
		old: `err != nil && endsSendHalf(err) {
		return st.sendCanceled(err)`,
		new: `err != nil && endsSendHalf(err) {
		return quic.ErrStreamClosed`,
		killer: "TestWriteAfterEndSaysHowItEnded",
	},
	{
		name:   "write: nothing is queued",
		old:    `	if queue && len(p) > 0`,
		new:    `	if false && len(p) > 0`,
		killer: "TestSmallWriteIsQueuedWithoutDeadline",
	},
	{
		name:   "write: queue not bounded",
		old:    `int(st.queued)+len(p) <= maxQueued`,
		new:    `len(p) <= maxQueued`,
		killer: "TestSmallWritesAreBounded",
	},
	{
		name:   "write: queue of the connection not bounded",
		old:    ` && st.conn.mayQueue(len(p)) {`,
		new:    ` {`,
		killer: "TestStalledPeerPinsLittle",
	},
	{
		name:   "write: deadline not honoured before queueing",
		old:    `return !late && !st.boundary, true`,
		new:    `return !(late && false) && !st.boundary, true`,
		killer: "TestNothingCutLooksWhole",
	},
	{
		name: "write: ErrWouldBlock returned",
		old: `		if err != quic.ErrWouldBlock {
			return 0, err`,
		new: `		if err != nil {
			return 0, err`,
		killer: "TestNothingLost",
	},
	{
		name:   "tryWriteAll: ignores a write under way",
		old:    `busy, ok := st.writing != notWriting,`,
		new:    `busy, ok := false,`,
		killer: "TestTryWriteAllBesideBlockedWriteDoesNotHideIt",
	},
	{
		name: "writeWithLimit(nil): calls quic-go's plain Write",
		old: `	if limiter == nil {
		return st.write(p)
	}
`,
		new:        "",
		equivalent: "it is only slower: the bytes are never queued",
	},
	{
		name:   "setWriteDeadline: max(..., 1) dropped",
		old:    `max(t.Sub(c.start), 1)`,
		new:    `t.Sub(c.start)`,
		killer: "TestWriteWhoseDeadlineHasPassedQueuesNothing",
	},
	{
		name:   "beginWrite: > for >=",
		old:    `st.conn.now() >= st.writeDeadline`,
		new:    `st.conn.now() > st.writeDeadline`,
		killer: "TestNothingCutLooksWhole",
	},
	{
		name:   "writeCounted: counts no progress with IdleTimeout",
		old:    `if st.conn.guard.IdleTimeout > 0 {`,
		new:    `if false {`,
		killer: "TestIdleTimeoutSparesWriteWhoseBytesMove",
	},
	{
		name: "write: calls quic-go's plain Write",
		old: `	n, err := st.send().WriteWithLimit(p, limiter)
	st.written`,
		new: `	n, err := st.send().(interface{ Write([]byte) (int, error) }).Write(p)
	st.written`,
		killer: "TestCancelledWriteWithoutLimiterIsLetGo",
	},
	{
		name:   "write: a limiter that passes one packet",
		old:    "func pass(maxBytes int) int { return maxBytes }",
		new:    "func pass(maxBytes int) int { return min(maxBytes, 1200) }",
		killer: "TestNothingLost",
	},
	{
		name: "endWrite: queued not reset at a barrier",
		old: `		st.queued = 0
`,
		new: `		_ = st
`,
		killer: "TestQueueingStartsAnewAfterBarrier",
	},
	{
		name:   "pastBarrier: a deadline after the last byte fails",
		old:    `		if n > 0 && n == len(p) && isDeadline(err) {`,
		new:    `		if false {`,
		killer: "TestWholeWriteAtItsDeadlineSucceeds",
	},
}
