package main

// stats breaks stats.go.
var stats = []mutation{
	{
		name: "public: ending shown",
		old: `	if h >= halfEnding {
		return HalfOpen`,
		new: `	if h > halfDetached {
		return HalfOpen`,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name: "refresh: end not looked at",
		old: `	c.endIfClosed()
`,
		new:    "",
		killer: "TestConnectionEndIsSeenAtOnce",
	},
	{
		name: "refresh: bubbles not looked at",
		old: `		tell(c.look())
`,
		new: `		_ = c
`,
		killer: "TestCalledFinalSizeCallbackIsForgotten",
	},
	{
		name: "Streams: break ignored",
		old: `			if !yield(st.infoWith(text)) {
				return
			}`,
		new:    `			yield(st.infoWith(text))`,
		killer: "TestStreamsStopsAtBreak",
	},
	{
		name:   "StreamInfo.String: the age when it is printed",
		old:    "i.Age.Round",
		new:    "time.Since(i.Opened).Round",
		killer: "TestStreamsTellWhatIsOpen",
	},
}
