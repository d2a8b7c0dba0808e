package main

// netconn breaks netconn.go.
var netconn = []mutation{
	{
		name:   "err: an end by this side gives a StreamError",
		old:    "ok && !local.Remote || err",
		new:    "ok && !local.Remote && false || err",
		killer: "TestNetConnCloseUnblocksReadAndWrite",
	},
	{
		name:   "err: a reset by the peer gives ErrClosed",
		old:    "ok && !local.Remote || err",
		new:    "ok && local != nil || err",
		killer: "TestNetConnCloseUnblocksReadAndWrite",
	},
	{
		name: "Close: not released",
		old: `	err := c.s.Close()
	c.s.Release()
`,
		new: `	err := c.s.Close()
`,
		killer: "TestNetConnCloseEndsBothHalves",
	},
	{
		name: "Close: released before Close",
		old: `	err := c.s.Close()
	c.s.Release()
`,
		new: `	c.s.Release()
	err := c.s.Close()
`,
		killer: "TestNetConnCloseEndsBothHalves",
	},
	{
		name: "Close: a cut is no error",
		old: `	if err != ErrWriteCut && !isCanceled(err) {
		return nil`,
		new: `	if err != ErrWriteCut || true {
		return nil`,
		killer: "TestNetConnCloseUnblocksReadAndWrite",
	},
	{
		name: "SetDeadline: works after Close",
		old: `	if c.closed.Load() {
		return net.ErrClosed
	}
	return set(t)`,
		new:    `	return set(t)`,
		killer: "TestNetConnCloseEndsBothHalves",
	},
}
