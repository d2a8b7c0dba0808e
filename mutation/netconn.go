package main

// netconn breaks netconn.go.
var netconn = []mutation{
	{
		name: "err: own ends give the StreamError",
		old:  "ok && !local.Remote || err",
		new:  "ok && !local.Remote && false || err",
	},
	{
		name: "err: the peer's reset gives ErrClosed",
		old:  "ok && !local.Remote || err",
		new:  "ok && local != nil || err",
	},
	{
		name: "err: after Close other errors as they are",
		old:  " || err != nil && c.closed.Load() {",
		new:  " {",
	},
	{
		name: "Write: works after Close",
		old: `	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.s.Write(p)`,
		new: `	n, err := c.s.Write(p)`,
	},
	{
		name: "Close: not released",
		old: `	err := c.s.Close()
	c.s.Release()
`,
		new: `	err := c.s.Close()
`,
	},
	{
		name: "Close: released before Close",
		old: `	err := c.s.Close()
	c.s.Release()
`,
		new: `	c.s.Release()
	err := c.s.Close()
`,
	},
	{
		name: "Close: a cut is no error",
		old: `	if err != ErrWriteCut {
		return nil`,
		new: `	if err != ErrWriteCut || true {
		return nil`,
	},
	{
		name: "SetDeadline: works after Close",
		old: `	if c.closed.Load() {
		return net.ErrClosed
	}
	return set(t)`,
		new: `	return set(t)`,
	},
	{
		name: "Listener: Shutdown does not end Accept",
		old:  "context.WithCancel(c.draining)",
		new:  "context.WithCancel(context.Background())",
	},
	{
		name: "Listener: ErrClosed for ErrShutdown",
		old: `		if l.conn.draining.Err() != nil {
			return nil, ErrShutdown
		}
`,
		new: "",
	},
}
