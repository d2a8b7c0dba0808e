package main

// write breaks write.go.
var write = []mutation{
	{
		name: "beginWrite: no waiting for the turn",
		old: `	for st.writing {
`,
		new: `	for st.writing && false {
`,
	},
	{
		name: "endWrite: writeTurn not cleared",
		old: `	st.writeTurn = nil
`,
		new: "",
	},
	{
		name: "endWrite: cut not cleared",
		old: `		st.cut = false
`,
		new: `		_ = st
`,
	},
	{
		name: "endWrite: sendFailed dropped",
		old: `		st.sendFailed(err)
`,
		new: `		_ = err
`,
	},
	{
		name: "endsSendHalf: a deadline ends it",
		old:  "return !isDeadline(err) && err",
		new:  "return err",
	},
	{
		name: "writeAfterEnd: always ErrStreamClosed",
		old: `err != nil && endsSendHalf(err) {
		return err`,
		new: `err != nil && endsSendHalf(err) {
		return quic.ErrStreamClosed`,
	},
	{
		name: "write: queue not bounded",
		old:  "st.queued+len(p) <= maxQueued",
		new:  "len(p) <= maxQueued",
	},
	{
		name: "write: deadline not honoured before queueing",
		old:  "&& !st.writeDeadlinePassed() {",
		new:  "{",
	},
	{
		name: "tryWriteAll: a write under way ignored",
		old: `	if st.writing {
		st.mu.Unlock()
		return quic.ErrWouldBlock
	}
`,
		new: "",
	},
	{
		name: "writeWithLimit(nil): plain Write",
		old: `	if limiter == nil {
		return st.write(p)
	}
`,
		new: "",
	},
	{
		name: "setWriteDeadline: max(..., 1) dropped",
		old:  "max(t.Sub(st.conn.start), 1)",
		new:  "t.Sub(st.conn.start)",
	},
	{
		name: "writeDeadlinePassed: > for >=",
		old:  "st.conn.now() >= deadline",
		new:  "st.conn.now() > deadline",
	},
	{
		name: "write: queued not reset at a barrier",
		old: `		if m > 0 && err == nil {
			st.queued = 0
		}
		more`,
		new: `		more`,
	},
	{
		name: "write: no pieces with IdleTimeout",
		old:  "if st.conn.guard.IdleTimeout > 0 { // which",
		new:  "if false { // which",
	},
	{
		name: "write: the plain Write",
		old: `		m, err = st.send.WriteWithLimit(piece, pass)
`,
		new: `		m, err = st.send.(interface{ Write([]byte) (int, error) }).Write(piece)
`,
	},
	{
		name: "write: a limiter that passes one packet",
		old:  "func pass(maxBytes int) int { return maxBytes }",
		new:  "func pass(maxBytes int) int { return min(maxBytes, 1200) }",
	},
}
