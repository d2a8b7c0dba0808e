package main

// stats breaks stats.go.
var stats = []mutation{
	{
		name: "public: ending shown",
		old: `	if h >= halfEnding {
		return HalfOpen`,
		new: `	if h > halfDetached {
		return HalfOpen`,
	},
	{
		name: "Streams: not refreshed",
		old: `		c.refresh()
		for _, st`,
		new: `		for _, st`,
	},
	{
		name: "refresh: end not looked at",
		old: `	c.endIfClosed()
`,
		new: "",
	},
	{
		name: "refresh: bubbles not looked at",
		old: `	if c.inBubble {
		c.reclaimDropped()
	}`,
		new: "",
	},
	{
		name: "Streams: break ignored",
		old: `			if !yield(st.info()) {
				return
			}`,
		new: `			yield(st.info())`,
	},
}
