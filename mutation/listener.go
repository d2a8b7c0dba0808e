package main

var listeners = []mutation{
	{
		name: "begin: says that a closed listener is in use",
		old: `	case l.closed:
`,
		new: `	case false:
`,
		killer: "TestClosedListenerSaysSo",
	},
	{
		name: "Accept: the listener stays in use",
		old: `	defer l.l.finish()
	return l.l.accept(ctx)`,
		new:    `	return l.l.accept(ctx)`,
		killer: "TestListenerHasOneUserAtATime",
	},
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
		name:   "accept: the connection forgets its admission",
		old:    "return l.guard.wrap(raw, a.terms, a, l.owned), nil",
		new:    "return l.guard.wrap(raw, a.terms, nil, l.owned), nil",
		killer: "TestConnContextThatEndsEarlyEndsNothing",
	},
}
