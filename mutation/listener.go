package main

var listeners = []mutation{
	{
		name: "listen: nothing closed when Listen fails",
		old: `	raw, err := o.tr.Listen(tlsConf, l.gate.watch(conf))
	if err != nil {
		o.listenerClosed()
`,
		new: `	raw, err := o.tr.Listen(tlsConf, l.gate.watch(conf))
	if err != nil {
`,
		killer: "TestFailedListenLeavesNothing",
	},
	{
		name:   "accept: counted twice at the end",
		old:    "return l.guard.wrap(raw, a.terms, a, l.owned), nil",
		new:    "return l.guard.wrap(raw, a.terms, nil, l.owned), nil",
		killer: "TestConnContextThatEndsEarlyEndsNothing",
	},
}
