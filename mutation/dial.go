package main

// dial breaks dial.go.
var dial = []mutation{
	{
		name: "resolve: ServerName not inferred",
		old: `		tlsConf.ServerName, _, _ = net.SplitHostPort(addr)
`,
		new: "",
	},
	{
		name: "resolve: user tls.Config written to",
		old: `		tlsConf = tlsConf.Clone()
`,
		new: "",
	},
	{
		name: "ownAddr: socket not owned",
		old: `	o.socket = socket
`,
		new: "",
	},
	{
		name: "listen: nothing closed when Listen fails",
		old: `	raw, err := o.tr.Listen(tlsConf, conf)
	if err != nil {
		o.listenerClosed()
`,
		new: `	raw, err := o.tr.Listen(tlsConf, conf)
	if err != nil {
`,
	},
	{
		name: "DialAddr: resolve dropped (socket leak on error)",
		old: `	addr, tlsConf, err := resolve(addr, tlsConf)
	if err != nil {
		return nil, err
	}
	return g.dial(conf, func() (*quic.Conn, error) { return quic.DialAddr(`,
		new: `	return g.dial(conf, func() (*quic.Conn, error) { return quic.DialAddr(`,
	},
	{
		name: "dial: limits of Config not passed",
		old:  "return g.wrap(raw, limitsOf(conf), nil), nil",
		new:  "return g.wrap(raw, incomingLimits{}, nil), nil",
	},
	{
		name: "dial: limits of the group ignored",
		old: `	if err := g.admitConn(); err != nil {
		return nil, err
	}
`,
		new: `	g.countConn()
`,
	},
}
