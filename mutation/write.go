package main

// write breaks write.go.
var write = []mutation{
	{
		name: "beginWrite: no waiting for the turn",
		old: `	for st.writing {
`,
		new: `	for st.writing && false {
`,
		killer: "TestEdgeSecondWrite",
	},
	{
		name: "endWrite: writeTurn not cleared",
		old: `	st.writeTurn = nil
`,
		new:    "",
		killer: "TestConcurrentWrites",
	},
	{
		name:   "takeTurn: not after Detach",
		old:    "ok := st.sendHalf == HalfOpen || st.sendHalf == halfDetached",
		new:    "ok := st.sendHalf == HalfOpen",
		killer: "TestDetach",
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
		killer: "TestHalves",
	},
	{
		name:   "endsSendHalf: a deadline ends it",
		old:    "return !isDeadline(err) && err",
		new:    "return err",
		killer: "TestNothingCutLooksWhole",
	},
	{
		name:   "endsSendHalf: ErrWriteLimitReached ends it",
		old:    " && err != quic.ErrWouldBlock && err != quic.ErrWriteLimitReached",
		new:    " && err != quic.ErrWouldBlock",
		killer: "TestNothingLost",
	},
	{
		name: "writeAfterEnd: always ErrStreamClosed",
		old: `err != nil && endsSendHalf(err) {
		return err`,
		new: `err != nil && endsSendHalf(err) {
		return quic.ErrStreamClosed`,
		killer: "TestWriteAfterEnd",
	},
	{
		name:   "write: nothing is queued",
		old:    `	if len(p) > 0 && st.queued`,
		new:    `	if false && st.queued`,
		killer: "TestEdgeQueueing",
	},
	{
		name:   "write: queue not bounded",
		old:    "st.queued+len(p) <= maxQueued",
		new:    "len(p) <= maxQueued",
		killer: "TestSmallWritesAreBounded",
	},
	{
		name:   "write: deadline not honoured before queueing",
		old:    "&& !st.writeDeadlinePassed() {",
		new:    "{",
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
		name: "tryWriteAll: a write under way ignored",
		old: `	if st.writing {
		st.mu.Unlock()
		return quic.ErrWouldBlock
	}
`,
		new:    "",
		killer: "TestEdgeTryDuringWrite",
	},
	{
		name: "tryWriteAll: waits for its turn",
		old: `	st.mu.Lock()
	if st.writing {
		st.mu.Unlock()
		return quic.ErrWouldBlock
	}
	if !st.takeTurnLocked() {`,
		new:    `	if !st.beginWrite() {`,
		killer: "TestConcurrentWrites",
	},
	{
		name: "writeWithLimit(nil): plain Write",
		old: `	if limiter == nil {
		return st.write(p)
	}
`,
		new:    "",
		killer: "TestEdgeNilLimiter",
	},
	{
		name:   "setWriteDeadline: max(..., 1) dropped",
		old:    "max(t.Sub(st.conn.start), 1)",
		new:    "t.Sub(st.conn.start)",
		killer: "TestEdgeDeadlineAtStart",
	},
	{
		name:   "writeDeadlinePassed: > for >=",
		old:    "st.conn.now() >= deadline",
		new:    "st.conn.now() > deadline",
		killer: "TestNothingCutLooksWhole",
	},
	{
		name:   "write: no pieces with IdleTimeout",
		old:    "if st.conn.guard.IdleTimeout > 0 { // which",
		new:    "if false { // which",
		killer: "TestIdleTimeout",
	},
	{
		name: "write: the plain Write",
		old: `		m, err = st.pastBarrier(piece, pass)
`,
		new: `		m, err = st.send.(interface{ Write([]byte) (int, error) }).Write(piece)
		st.written.Add(int64(m))
`,
		killer: "TestEdgeNilLimiter",
	},
	{
		name:   "write: a limiter that passes one packet",
		old:    "func pass(maxBytes int) int { return maxBytes }",
		new:    "func pass(maxBytes int) int { return min(maxBytes, 1200) }",
		killer: "TestNothingLost",
	},
	{
		name: "write: queued not reset at a barrier",
		old: `	if n > 0 && err == nil {
		st.queued = 0
	}
`,
		new:    "",
		killer: "TestEdgeQueueing",
	},
	{
		name: "pastBarrier: a deadline after the last byte is a failure",
		old: `	if n > 0 && n == len(p) && isDeadline(err) {
		err = nil
	}
`,
		new:    "",
		killer: "TestWholeWriteAtItsDeadline",
	},
	{
		name: "pastBarrier: a deadline after the last byte is an error",
		old: `		err = nil
	}
	if n > 0 && err == nil {`,
		new: `	}
	if n > 0 && err == nil {`,
		killer: "TestWholeWriteAtItsDeadline",
	},
}
