// Package quiclife is a drop-in replacement for quic-go that manages the life
// of every stream: who opened it, which half has ended and how, and when its
// slot is free again.
//
//	import quic "github.com/quiclife/quiclife" // was: "github.com/quic-go/quic-go"
//
// All names of quic-go's root package are here, with the same meaning. New
// features have new names:
//
//   - [Stream.Release] says that the program is done with a stream, and aborts
//     each half that has not ended. It is made for defer.
//   - [Stream.Reset] aborts both halves at once, even if data has not been
//     delivered yet.
//   - [Stream.BindContext] resets a stream when a context is done.
//   - [Conn.Stats], [Conn.Streams] and [Stream.Info] show what is open.
//     [Guard.Stats] shows what all connections of a group have done so far.
//   - [Guard] is the policy for a group of connections: limits, timeouts, the
//     error codes that the peer sees, and how leaks are reported.
//   - [Conn.Serve] and [Listener.Serve] run a function for each stream that the
//     peer opens. [Conn.Do] runs a function with a stream that it opens. The
//     stream ends when the function returns.
//   - [Conn.Shutdown] and [Guard.Shutdown] end connections so that no data is
//     lost. Guard.Shutdown first calls the functions registered with
//     [Guard.BeforeShutdown].
//   - [NetConn], [Conn.DialContext], [Conn.NetListener] and
//     [Listener.NetListener] are for code that expects a net.Conn.
//   - [Wrap] takes over a connection made elsewhere. [Conn.Unwrap] and
//     [Stream.Detach] return quic-go's own types.
//
// # The life of a stream
//
// A bidirectional stream has a send half and a receive half. A unidirectional
// stream has just one of them. A half is open until it is finished (FIN sent,
// io.EOF read) or aborted (by RESET_STREAM or STOP_SENDING from either side, or
// by the end of the connection); see [HalfState]. A half ends once. When both
// halves have ended, the stream no longer counts as open. quic-go frees it once
// the peer has acknowledged everything that was sent on it.
//
// Limits say how many streams of each kind may be open at a time. Each open
// stream takes one slot of its limit. Slots of a kind are short if a call that
// opens a stream waits for a slot or has failed within the last second, if
// three quarters of the slots for incoming streams are taken, or if
// Guard.MaxStreams or Guard.MaxHeap was reached within the last second.
//
// The program ends a half as it does with quic-go. The send half ends with
// Close or CancelWrite, or when Write returns an error other than a timeout.
// The receive half ends with CancelRead, or when Read returns io.EOF or an
// error other than a timeout. If the program does not end a half, quiclife
// does:
//
//   - When the send half has ended and all bytes up to the peer's FIN have been
//     read, the receive half is finished, even if nobody has read the io.EOF.
//   - A stream is dropped if the program no longer refers to it and has not
//     ended it. The garbage collector finds dropped streams. It takes two
//     collections if none has run since the stream was opened, or one if slots
//     are short. A dropped bidirectional stream is reported as a [Leak] and
//     reset; see Guard.AbandonGrace. A dropped unidirectional stream may be a
//     control stream, so it is left alone until slots of its kind are short.
//   - If nobody reads from the receive half after the send half has ended, it
//     is aborted after Guard.HalfCloseTimeout. If Guard.IdleTimeout is set, a
//     stream on which no byte moves for that long is reset.
//
// # Testing
//
// All of this works in fake time, inside testing/synctest bubbles, with one
// difference. No goroutine outside a bubble may touch what is inside, so
// dropped streams are not looked for automatically there. [Conn.Stats] and
// [Conn.Streams] look for them: call one of them, then runtime.GC, then one of
// them again.
package quiclife
