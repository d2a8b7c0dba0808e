package main

// closer breaks closer.go.
var closer = []mutation{
	{
		name: "claim: send half not claimed",
		old: `		st.sendHalf = halfEnding
`,
		new: `		_ = st
`,
	},
	{
		name: "claim: receive half not claimed",
		old: `		st.receiveHalf = halfEnding
`,
		new: `		_ = st
`,
	},
	{
		name: "claim: takes ended send half too",
		old:  "gotSend = send && st.sendHalf == HalfOpen;",
		new:  "gotSend = send && st.send != nil;",
	},
	{
		name: "claim: takes ended receive half too",
		old:  "gotReceive = receive && st.receiveHalf == HalfOpen;",
		new:  "gotReceive = receive && st.receive != nil;",
	},
	{
		name: "settle: unregister repeatedly (!gone dropped)",
		old:  "receiveEnded && !st.gone",
		new:  "receiveEnded",
	},
	{
		name: "settle: only aborted send counts as reset",
		old: `	case st.sendHalf == HalfAborted || st.receiveHalf == HalfAborted:
`,
		new: `	case st.sendHalf == HalfAborted:
`,
	},
	{
		name: "settle: watchFinalSize dropped",
		old: `		st.watchFinalSize()
		st.consumeEOF()
		st.awaitReader()`,
		new: `		st.consumeEOF()
		st.awaitReader()`,
	},
	{
		name: "settle: consumeEOF dropped",
		old: `		st.watchFinalSize()
		st.consumeEOF()
		st.awaitReader()`,
		new: `		st.watchFinalSize()
		st.awaitReader()`,
	},
	{
		name: "settle: awaitReader dropped",
		old: `		st.consumeEOF()
		st.awaitReader()`,
		new: `		st.consumeEOF()`,
	},
	{
		name: "settle: send != HalfAbsent dropped",
		old:  "case send != HalfAbsent && !receiveEnded",
		new:  "case !receiveEnded",
	},
	{
		name: "close: st.cut ignored",
		old:  "got && (st.cut || st.writing)",
		new:  "got && st.writing",
	},
	{
		name: "close: st.writing ignored",
		old:  "got && (st.cut || st.writing)",
		new:  "got && st.cut",
	},
	{
		name: "close: closeErr of a cut not kept",
		old: `		st.closeErr = ErrWriteCut
`,
		new: `		_ = st
`,
	},
	{
		name: "close: peerStopped ignored",
		old: `			err = stop
`,
		new: `			_ = stop
`,
	},
	{
		name: "sendFailed: does nothing",
		old: `	if got, _ := st.claim(true, false); got {
		stop,`,
		new: `	if got := false; got {
		stop,`,
	},
	{
		name: "sendFailed: local StreamError kept as Close error",
		old:  "if !ok || !stop.Remote {",
		new: `_ = stop
		if !ok {`,
	},
	{
		name: "readFailed: a deadline ends the half",
		old:  "if err == nil || isDeadline(err) {",
		new:  "if err == nil {",
	},
	{
		name: "watchFinalSize: sets the callback each time",
		old:  `	if !watching {`,
		new:  `	if _ = watching; true {`,
	},
	{
		name: "finalSizeKnown: user callback not forgotten",
		old: `	st.userFinalSize = nil
`,
		new: "",
	},
	{
		name: "finalSizeKnown: consumeEOF dropped",
		old: `		user(size)
	}
	st.consumeEOF()`,
		new: `		user(size)
	}`,
	},
	{
		name: "consumeEOF: SetReadDeadline dropped",
		old: `		st.receive.SetReadDeadline(time.Time{}) // one that has passed would hide the EOF
`,
		new: `		_ = time.Time{}
`,
	},
	{
		name: "consumeEOF: CancelRead in place of Read",
		old:  `		st.readFailed(st.receive.Read(noBytes[:]))`,
		new:  `		st.cancelRead(0)`,
	},
	{
		name: "cancelWrite: settles a half that had ended",
		old: `	st.abortSend(code, got)
	if got {
		st.settle(HalfAborted, HalfAbsent)
	}`,
		new: `	st.abortSend(code, got)
	st.settle(HalfAborted, HalfAbsent)`,
	},
	{
		name: "cancelWrite: does not abort delivery after Close",
		old: `	st.abortSend(code, got)
	if got {
		st.settle(`,
		new: `	if got {
		st.abortSend(code, got)
		st.settle(`,
	},
	{
		name: "release: CancelRead skipped",
		old: `	if receive {
		st.receive.CancelRead(code)
	}
`,
		new: "",
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
	},
	{
		name: "reset: a finished send half is not aborted",
		old: `	if st.send != nil {
		st.abortSend`,
		new: `	if send {
		st.abortSend`,
	},
	{
		name: "abortSend: boundary ignored",
		old:  "deliver := st.boundary && !claimed",
		new:  "deliver := false && !claimed",
	},
	{
		name: "abortSend: a half that is being closed is reset",
		old:  "(st.sendHalf == HalfFinished || st.sendHalf == halfEnding)",
		new:  "(st.sendHalf == HalfFinished)",
	},
	{
		name: "abortSend: the IDs of a rejected phase reach new streams",
		old:  "!deliver && !stale {",
		new:  "!deliver && (!stale || true) {",
	},
	{
		name: "noticed: forgotten by sendFailed",
		old: `func (st *streamState) sendFailed(err error) {
	st.noticed(err)
`,
		new: `func (st *streamState) sendFailed(err error) {
`,
	},
	{
		name: "noticed: forgotten by readFailed",
		old: `	st.noticed(err)
	if _, got`,
		new: `	if _, got`,
	},
}
