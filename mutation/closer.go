package main

// closer breaks closer.go.
var closer = []mutation{
	{
		name: "claim: send half not claimed",
		old: `		st.sendHalf = halfEnding
`,
		new: `		_ = st
`,
		killer: "TestSendHalfEndsOnce",
	},
	{
		name: "claim: receive half not claimed",
		old: `		st.receiveHalf = halfEnding
`,
		new: `		_ = st
`,
		killer: "TestCallsBesideEachOtherLeaveNothing",
	},
	{
		name:   "claim: takes an ended send half, too",
		old:    "gotSend = send && st.sendHalf == HalfOpen;",
		new:    "gotSend = send && st.kind.sends();",
		killer: "TestReleaseFreesStreamWhateverBothEndsDid",
	},
	{
		name:   "claim: takes an ended receive half, too",
		old:    "gotReceive = receive && st.receiveHalf == HalfOpen;",
		new:    "gotReceive = receive && st.kind.receives();",
		killer: "TestReleaseFreesStreamWhateverBothEndsDid",
	},
	{
		name: "settle: only an aborted send half counts as reset",
		old: `	case st.sendHalf == HalfAborted || st.receiveHalf == HalfAborted:
`,
		new: `	case st.sendHalf == HalfAborted:
`,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name: "settle: watchFinalSize dropped",
		old: `		st.watchFinalSize()
		st.conn.watchSoon(st.conn.guard.halfCloseTimeout())`,
		new:    `		st.conn.watchSoon(st.conn.guard.halfCloseTimeout())`,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name: "settle: watchSoon dropped",
		old: `		st.watchFinalSize()
		st.conn.watchSoon(st.conn.guard.halfCloseTimeout())`,
		new:    `		st.watchFinalSize()`,
		killer: "TestHalfCloseTimeoutSparesStreamsThatMaySend",
	},
	{
		name:   "close: st.cut ignored",
		old:    `st.closedCut = st.cut`,
		new:    `st.closedCut = false`,
		killer: "TestCloseAgainReturnsTheSame",
	},
	{
		name: "close: ignores a write under way",
		old: `		st.hurryWrites()
`,
		new:    ``,
		killer: "TestCloseDuringBlockedWriteResetsStream",
	},
	{
		name:   "close: a second call does not wait for the first",
		old:    `	for st.closing { // another`,
		new:    `	for false { // another`,
		killer: "TestClosesBesideBlockedWriteAgree",
	},
	{
		name:   "close: peerStopped ignored",
		old:    `st.sendAborted(st.peerStopped()) //`,
		new:    `st.sendAborted(nil) //`,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name:   "settle: a context keeps ended streams",
		old:    `		bound = st.unbindLocked()`,
		new:    `		_ = bound`,
		killer: "TestContextForgetsEndedStreams",
	},
	{
		name:   "Close: does not say that a context has reset the stream",
		old:    `x.canceled != nil && x.canceled.send:`,
		new:    `false:`,
		killer: "TestContextTakesBackWhatIsNotDelivered",
	},
	{
		name: "detach: a context still resets the stream",
		old: `	bound := st.unbindLocked()
	st.mu.Unlock()
	letGo(bound)
`,
		new: `	st.mu.Unlock()
`,
		killer: "TestDetachedStreamIsBoundToNothing",
	},
	{
		name: "sendFailed: does nothing",
		old: `	if got, _ := st.claim(true, false); got {
		stop, _`,
		new: `	if got := false; got {
		stop, _`,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name:   "readFailed: a deadline ends the half",
		old:    "if err == nil || isDeadline(err) {",
		new:    "if err == nil {",
		killer: "TestReleaseFreesStreamWhateverBothEndsDid",
	},
	{
		name: "readFailed: reset settled as finished",
		old: `		if err == io.EOF {
			as`,
		new: `		if err != nil || err == io.EOF {
			as`,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name: "detach: counts nothing",
		old: `		st.conn.unregister(st, detached)
`,
		new: `		_ = detached
`,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name: "connectionEnded: does nothing",
		old: `	send, receive := st.claimUnendedLocked(true, true)
`,
		new: `	send, receive := false, false
`,
		killer: "TestCallsAfterConnectionEndReturnItsError",
	},
	{
		name: "cancelWrite: settles a half that had ended",
		old: `	st.abortSend(code, got)
	if got {
		st.settle(HalfAborted, HalfAbsent)
	}`,
		new: `	st.abortSend(code, got)
	st.settle(HalfAborted, HalfAbsent)`,
		killer: "TestEachEndSettlesItsHalf",
	},
	{
		name: "cancelWrite: does not abort delivery after Close",
		old: `	st.abortSend(code, got)
	if got {
		st.settle(`,
		new: `	if got {
		st.abortSend(code, got)
		st.settle(`,
		killer: "TestEachEndSendsJustItsFrames",
	},
	{
		name: "release: CancelWrite skipped",
		old: `	if send {
		st.abortSend(code, true)
	}
`,
		new:    "",
		killer: "TestReleaseFreesStreamWhateverBothEndsDid",
	},
	{
		name: "release: CancelRead skipped",
		old: `	if receive {
		st.receive().CancelRead(code)
	}
`,
		new:    "",
		killer: "TestReleaseFreesStreamWhateverBothEndsDid",
	},
	{
		name: "release: CancelRead before CancelWrite",
		old: `	if send {
		st.abortSend(code, true)
	}
	if receive {
		st.receive().CancelRead(code)
	}
	if send || receive {
		st.settle(abortedIf(send), abortedIf(receive))
	}
	st.returnCredit()
`,
		new: `	if receive {
		st.receive().CancelRead(code)
	}
	if send {
		st.abortSend(code, true)
	}
	if send || receive {
		st.settle(abortedIf(send), abortedIf(receive))
	}
	st.returnCredit()
`,
		equivalent: "the two frames leave in one packet, and the halves they end are independent",
	},
	{
		name: "release: credit not returned",
		old: `	if send {
		st.abortSend(code, true)
	}
	if receive {
		st.receive().CancelRead(code)
	}
	if send || receive {
		st.settle(abortedIf(send), abortedIf(receive))
	}
	st.returnCredit()
`,
		new: `	if send {
		st.abortSend(code, true)
	}
	if receive {
		st.receive().CancelRead(code)
	}
	if send || receive {
		st.settle(abortedIf(send), abortedIf(receive))
	}
`,
		killer: "TestModel",
	},
	{
		name: "release: sends FIN in place of a reset",
		old: `	if send {
		st.abortSend(code, true)
	}
`,
		new: `	if send {
		st.send().Close()
	}
`,
		killer: "TestEachEndSendsJustItsFrames",
	},
	{
		name: "release: aborts a finished send half, too",
		old: `	if send {
		st.abortSend(code, true)`,
		new: `	if st.kind.sends() {
		st.abortSend(code, true)`,
		killer: "TestEachEndSendsJustItsFrames",
	},
	{
		name: "reset: a finished send half is not aborted",
		old: `	if st.kind.sends() {
		st.abortSend`,
		new: `	if send {
		st.abortSend`,
		killer: "TestEachEndSendsJustItsFrames",
	},
	{
		name: "claimOurs: does not ask whether the stream is ours",
		old: `	if st.given {
		return false`,
		new: `	if false {
		return false`,
		killer: "TestDetachOfEndedStreamIsFinal",
	},
	{
		name:   "abortSend: boundary ignored",
		old:    `deliver := st.boundary && !claimed`,
		new:    `deliver := false && !claimed`,
		killer: "TestUniStreamBoundaryHoldsAgainstReset",
	},
	{
		name:   "abortSend: forgets data queued past the boundary",
		old:    `	if extend {`,
		new:    `	if extend && false {`,
		killer: "TestReleaseAfterQueuedWriteKeepsConnectionAlive",
	},
	{
		name:   "abortSend: the boundary delivers open halves, too",
		old:    "deliver := st.boundary && !claimed && (st.sendHalf == HalfFinished || st.sendHalf == halfEnding)",
		new:    "deliver := st.boundary",
		killer: "TestCancelWriteBesideCloseAfterBoundaryKeepsConnectionAlive",
	},
	{
		name:   "abortSend: IDs of a rejected 0-RTT phase reach new streams",
		old:    `deliver || stale {`,
		new:    `deliver || stale && false {`,
		killer: "TestStreamsOfRejected0RTTDoNotTouchThoseAfterIt",
	},
	{
		name:   "noticed: a reset counts as cut",
		old:    " && !reset {",
		new:    " && (!reset || true) {",
		killer: "TestShutdownCallsStreamThatPeerResetCut",
	},
	{
		name: "noticed: sendFailed does not call it",
		old: `func (st *streamState) sendFailed(err error) {
	st.noticed(err)
`,
		new: `func (st *streamState) sendFailed(err error) {
`,
		killer: "TestShutdownNamesStreamWhoseEndProgramNoticedFirst",
	},
	{
		name: "noticed: readFailed does not call it",
		old: `	st.noticed(err)
	if _, got`,
		new:    `	if _, got`,
		killer: "TestShutdownNamesStreamWhoseEndProgramNoticedFirst",
	},
}
