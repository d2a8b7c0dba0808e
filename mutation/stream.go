package main

// stream breaks stream.go.
var stream = []mutation{
	{
		name: "Peek: didPeek dropped",
		old: `	err = s.st.didPeek(n, len(b), err)
`,
		new: `	s.st.readers.Add(-1)
`,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name: "Stream.Write: KeepAlive dropped",
		old: `	n, err := s.st.write(p)
	runtime.KeepAlive(s)
`,
		new: `	n, err := s.st.write(p)
`,
		killer: "TestBlockedCallKeepsItsStreamAlive",
	},
	{
		name: "start: the state holds the handle strongly",
		old: `	h.st = st
`,
		new: `	h.st = st
	st.extraLocked().userFinalSize = func(int64) { h.st = st }
`,
		alone:  true,
		killer: "TestUnwrittenStreamIsEndedAtOnce",
	},
	{
		name:   "start: phase not noted",
		old:    "phase: uint8(c.phase.Load()), ",
		new:    "",
		alone:  true,
		killer: "TestStreamsOfRejected0RTTDoNotTouchThoseAfterIt",
	},
	{
		name: "Write: calls quic-go's plain Write",
		old: `	n, err := s.st.write(p)
`,
		new: `	n, err := s.raw.Write(p)
`,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name: "Close: bypasses the accounting",
		old: `	err := s.st.close()
`,
		new: `	err := s.raw.Close()
`,
		killer: "TestEachEndSettlesItsHalf",
	},
}
