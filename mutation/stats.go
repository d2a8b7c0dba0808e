package main

// stats breaks stats.go.
var stats = []mutation{
	{
		name: "public: shows a half that is being ended",
		old: `	if h >= halfEnding {
		return HalfOpen`,
		new: `	if h > halfDetached {
		return HalfOpen`,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name: "refresh: does not look for the connection's end",
		old: `	c.endIfClosed()
`,
		new:    "",
		killer: "TestConnectionEndIsSeenAtOnce",
	},
	{
		name: "refresh: does not look for dropped streams in a bubble",
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
		name:   "StreamInfo.String: prints the age of now, not of the snapshot",
		old:    "i.Age.Round",
		new:    "time.Since(i.Opened).Round",
		killer: "TestStreamsTellWhatIsOpen",
	},
}
