package main

// dial breaks dial.go.
var dial = []mutation{
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
		name: "dial: limits of the group ignored",
		old: `	if err := g.admitConn(); err != nil {
		return nil, err
	}
`,
		new: `	g.countConn()
`,
	},
}
