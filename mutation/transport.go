package main

// transport breaks transport.go.
var transport = []mutation{
	{
		name: "ownedTransport: closed before connections end",
		old:  "o.noMore && o.conns == 0 && !o.closed",
		new:  "o.noMore && !o.closed",
	},
	{
		name: "update: never closes",
		old: `	case last:
		o.close()
`,
		new: "",
	},
	{
		name: "update: never lingers",
		old: `	case last && recent:
`,
		new: `	case last && recent && false:
`,
	},
	{
		name: "close: socket stays open",
		old: `		o.socket.Close()
`,
		new: `		_ = o
`,
	},
	{
		name: "close: stays a member of the group",
		old: `		o.leave()
`,
		new: `		_ = o
`,
	},
	{
		name: "close: gone is not told",
		old: `	close(o.gone)
`,
		new: "",
	},
	{
		name: "connContext: the end is not timed",
		old: `			o.lastEnd = time.Now()
`,
		new: "",
	},
	{
		name: "linger: shortens",
		old:  "until.After(o.lingerUntil) {",
		new:  "!until.After(o.lingerUntil) || true {",
	},
	{
		name: "closeAfterLinger: does not wait",
		old: `	if wait > 0 {
`,
		new: `	if false {
`,
	},
	{
		name: "own: no limits of the group",
		old:  "ConnContext: g.connContext(o.connContext)}",
		new:  "ConnContext: o.connContext}",
	},
	{
		name: "listen: limits of Config not passed",
		old:  "&listener{raw: rawL, limits: limitsOf(conf)}",
		new:  "&listener{raw: rawL}",
	},
}
