package main

// closer breaks closer.go.
var closer = []mutation{
	{
		name: "claim: send half not claimed",
		old: `		st.sendHalf = halfEnding
`,
		new: `		_ = st
`,
		killer: "TestEdgeRaces",
	},
	{
		name: "claim: receive half not claimed",
		old: `		st.receiveHalf = halfEnding
`,
		new: `		_ = st
`,
		killer: "TestReceiveHalfEndsOnce",
	},
	{
		name:   "claim: takes ended send half too",
		old:    "gotSend = send && st.sendHalf == HalfOpen;",
		new:    "gotSend = send && st.send != nil;",
		killer: "TestMatrix",
	},
	{
		name:   "claim: takes ended receive half too",
		old:    "gotReceive = receive && st.receiveHalf == HalfOpen;",
		new:    "gotReceive = receive && st.receive != nil;",
		killer: "TestMatrix",
	},
	{
		name: "settle: only aborted send counts as reset",
		old: `	case st.sendHalf == HalfAborted || st.receiveHalf == HalfAborted:
`,
		new: `	case st.sendHalf == HalfAborted:
`,
		killer: "TestHalves",
	},
	{
		name: "settle: watchFinalSize dropped",
		old: `		st.watchFinalSize()
		st.awaitReader()`,
		new:    `		st.awaitReader()`,
		killer: "TestHalves",
	},
	{
		name: "settle: awaitReader dropped",
		old: `		st.watchFinalSize()
		st.awaitReader()`,
		new:    `		st.watchFinalSize()`,
		killer: "TestEdgeSweep",
	},
	{
		name:   "close: st.cut ignored",
		old:    "got && (st.cut || st.writing)",
		new:    "got && st.writing",
		killer: "TestCloseAgain",
	},
	{
		name:   "close: st.writing ignored",
		old:    "got && (st.cut || st.writing)",
		new:    "got && st.cut",
		killer: "TestCloseUnblocksWrite",
	},
	{
		name:   "close: cut taken though half not claimed",
		old:    "cut := got && (st.cut || st.writing)",
		new:    "cut := st.cut || st.writing",
		killer: "TestEdgeCloseAfterCutAndCancel",
	},
	{
		name: "close: closeErr of a cut not kept",
		old: `		st.closeErr = ErrWriteCut
`,
		new: `		_ = st
`,
		killer: "TestCloseAgain",
	},
	{
		name: "close: peerStopped ignored",
		old: `			err = stop
`,
		new: `			_ = stop
`,
		killer: "TestHalves",
	},
	{
		name: "close: error settled without keeping closeErr",
		old: `		st.sendEnded(HalfAborted, err)
		return err
`,
		new: `		st.settle(HalfAborted, HalfAbsent)
		return err
`,
		killer: "TestHalves",
	},
	{
		name: "sendFailed: does nothing",
		old: `	if got, _ := st.claim(true, false); got {
		if _, stopped`,
		new: `	if got := false; got {
		if _, stopped`,
		killer: "TestHalves",
	},
	{
		name:   "readFailed: a deadline ends the half",
		old:    "if err == nil || isDeadline(err) {",
		new:    "if err == nil {",
		killer: "TestMatrix",
	},
	{
		name: "readFailed: reset settled as finished",
		old: `		if err == io.EOF {
			as`,
		new: `		if err != nil || err == io.EOF {
			as`,
		killer: "TestHalves",
	},
	{
		name: "detach: settles nothing",
		old: `		st.settle(given(send), given(receive))
`,
		new: `		_ = given
`,
		killer: "TestHalves",
	},
	{
		name: "connectionEnded: does nothing",
		old: `	if send, receive := st.claim(true, true); send || receive {
		st.settle(`,
		new: `	if send, receive := false, false; send || receive {
		st.settle(`,
		killer: "TestAfterEnd",
	},
	{
		name: "finalSizeKnown: user callback not forgotten",
		old: `	st.userFinalSize = nil
`,
		new:    "",
		killer: "TestEdgeCallbackForgotten",
	},
	{
		name: "finalSizeKnown: consumeEOF dropped",
		old: `		user(size)
	}
	st.consumeEOF()`,
		new: `		user(size)
	}`,
		killer: "TestHalves",
	},
	{
		name: "setFinalSizeCallback: nil does not remove",
		old: `	if size == sizeUnknown {
		st.userFinalSize`,
		new: `	if size == sizeUnknown && callback != nil {
		st.userFinalSize`,
		killer: "TestFinalSizeCallback",
	},
	{
		name: "consumeEOF: half not checked to be open",
		old: `	if open {
`,
		new: `	if _ = open; true {
`,
		killer: "TestEdgeDetachWatched",
	},
	{
		name: "consumeEOF: SetReadDeadline dropped",
		old: `		st.receive.SetReadDeadline(time.Time{}) // one that has passed would hide the EOF
`,
		new: `		_ = time.Time{}
`,
		killer: "TestHalves",
	},
	{
		name:   "consumeEOF: CancelRead in place of Read",
		old:    `		st.readFailed(st.receive.Read(noBytes[:]))`,
		new:    `		st.cancelRead(0)`,
		killer: "TestHalves",
	},
	{
		name: "cancelWrite: settles a half that had ended",
		old: `	st.abortSend(code, got)
	if got {
		st.settle(HalfAborted, HalfAbsent)
	}`,
		new: `	st.abortSend(code, got)
	st.settle(HalfAborted, HalfAbsent)`,
		killer: "TestHalves",
	},
	{
		name: "cancelWrite: does not abort delivery after Close",
		old: `	st.abortSend(code, got)
	if got {
		st.settle(`,
		new: `	if got {
		st.abortSend(code, got)
		st.settle(`,
		killer: "TestEdgeFrames",
	},
	{
		name: "release: CancelWrite skipped",
		old: `	if send {
		st.abortSend(code, true)
	}
`,
		new:    "",
		killer: "TestMatrix",
	},
	{
		name: "release: CancelRead skipped",
		old: `	if receive {
		st.receive.CancelRead(code)
	}
`,
		new:    "",
		killer: "TestMatrix",
	},
	{
		name: "release: CancelRead before CancelWrite",
		old: `	if send {
		st.abortSend(code, true)
	}
	if receive {
		st.receive.CancelRead(code)
	}
	if send || receive {
		st.settle(aborted(send), aborted(receive))
	}
	st.returnCredit()
`,
		new: `	if receive {
		st.receive.CancelRead(code)
	}
	if send {
		st.abortSend(code, true)
	}
	if send || receive {
		st.settle(aborted(send), aborted(receive))
	}
	st.returnCredit()
`,
		equivalent: "the two frames leave in one packet, and end halves that do not depend on each other",
	},
	{
		name: "release: credit not returned",
		old: `	if send {
		st.abortSend(code, true)
	}
	if receive {
		st.receive.CancelRead(code)
	}
	if send || receive {
		st.settle(aborted(send), aborted(receive))
	}
	st.returnCredit()
`,
		new: `	if send {
		st.abortSend(code, true)
	}
	if receive {
		st.receive.CancelRead(code)
	}
	if send || receive {
		st.settle(aborted(send), aborted(receive))
	}
`,
		killer: "TestCredit",
	},
	{
		name: "release: a FIN in place of a reset",
		old: `	if send {
		st.abortSend(code, true)
	}
`,
		new: `	if send {
		st.send.Close()
	}
`,
		killer: "TestFrames",
	},
	{
		name: "release: aborts a finished send half too",
		old: `	if send {
		st.abortSend(code, true)`,
		new: `	if st.send != nil {
		st.abortSend(code, true)`,
		killer: "TestFrames",
	},
	{
		name: "reset: a finished send half is not aborted",
		old: `	if st.send != nil {
		st.abortSend`,
		new: `	if send {
		st.abortSend`,
		killer: "TestFrames",
	},
	{
		name: "detached: seen on the send half only",
		old: `	return st.sendHalf == halfDetached || st.receiveHalf == halfDetached
`,
		new: `	return st.sendHalf == halfDetached
`,
		killer: "TestEdgeFrames",
	},
	{
		name:   "abortSend: boundary ignored",
		old:    "deliver := st.boundary && !claimed",
		new:    "deliver := false && !claimed",
		killer: "TestEdgeUni",
	},
	{
		name:   "abortSend: boundary delivers open halves too",
		old:    "deliver := st.boundary && !claimed && (st.sendHalf == HalfFinished || st.sendHalf == halfEnding)",
		new:    "deliver := st.boundary",
		killer: "TestBoundaryRace",
	},
	{
		name:   "abortSend: the IDs of a rejected phase reach new streams",
		old:    "!deliver && !stale {",
		new:    "!deliver && (!stale || true) {",
		killer: "TestStaleResetAfterRejection",
	},
	{
		name:   "noticed: a reset counts as cut",
		old:    " && !reset {",
		new:    " && (!reset || true) {",
		killer: "TestResetDuringShutdown",
	},
	{
		name: "noticed: forgotten by sendFailed",
		old: `func (st *streamState) sendFailed(err error) {
	st.noticed(err)
`,
		new: `func (st *streamState) sendFailed(err error) {
`,
		killer: "TestShutdownCutNoticedFirst",
	},
	{
		name: "noticed: forgotten by readFailed",
		old: `	st.noticed(err)
	if _, got`,
		new:    `	if _, got`,
		killer: "TestShutdownCutNoticedFirst",
	},
}
