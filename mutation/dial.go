package main

// dial breaks dial.go.
var dial = []mutation{
	{
		name: "resolve: ServerName not inferred",
		old: `		tlsConf.ServerName, _, _ = net.SplitHostPort(addr)
`,
		new:    "",
		killer: "TestDialAddrInfersServerName",
	},
	{
		name: "resolve: writes to the user's tls.Config",
		old: `		tlsConf = tlsConf.Clone()
`,
		new:    "",
		killer: "TestDialAddrInfersServerName",
	},
	{
		name: "DialAddr: resolve dropped (socket leak on error)",
		old: `	addr, tlsConf, err := resolve(ctx, addr, tlsConf)
	if err != nil {
		return nil, err
	}
	return g.dial(conf, func() (*quic.Conn, error) { return quic.DialAddr(`,
		new:    `	return g.dial(conf, func() (*quic.Conn, error) { return quic.DialAddr(`,
		killer: "TestFailedDialLeavesNoSocket",
	},
	{
		name:   "dial: limits of Config not passed",
		old:    "c := g.wrap(raw, terms, nil, nil)",
		new:    "_ = terms\n\tc := g.wrap(raw, termsOf(nil), nil, nil)",
		killer: "TestDialAndListenUseTheirGuardAndConfig",
	},
}
