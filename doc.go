// Package quiclife is a drop-in for quic-go that owns the life of every
// stream: who opened it, which half has ended and how, when its slot goes
// back.
//
//	import quic "github.com/quiclife/quiclife" // was: "github.com/quic-go/quic-go"
//
// All names of quic-go's root package are here and mean what they mean there.
// What is new has a new name:
//
//   - [Stream.Release] says that the program is done with a stream, and ends
//     what has not ended. It is made for defer.
//   - [Stream.Reset] aborts both halves, also data that is not delivered yet.
//   - [Stream.BindContext] has a context end a stream.
//   - [Conn.Stats], [Conn.Streams] and [Stream.Info] tell what is open, and
//     [Guard.Stats] what all connections of a group have done so far.
//   - [Guard] is the policy for a group of connections: limits, timeouts, the
//     codes the peer sees, and what is told about leaks.
//   - [Conn.Serve], [Listener.Serve] and [Conn.Do] run a func for each stream,
//     with which the stream ends.
//   - [Conn.Shutdown] and [Guard.Shutdown] end connections so that nothing is
//     lost, after what [Guard.BeforeShutdown] has registered.
//   - [NetConn], [Conn.DialContext], [Conn.NetListener] and
//     [Listener.NetListener] are for code that expects a net.Conn.
//   - [Wrap] takes over a connection made elsewhere, [Conn.Unwrap] and
//     [Stream.Detach] give quic-go's own types back.
//
// # The life of a stream
//
// A stream has a send half and a receive half, a unidirectional one just one
// of them. Each half is open until it is finished (FIN sent, io.EOF read) or
// aborted (RESET_STREAM or STOP_SENDING by either side, or the connection's
// end); see [HalfState]. A half ends once. When both have ended, the stream is
// not counted any more, and quic-go lets go of it as soon as the peer has
// acknowledged what there is to acknowledge.
//
// The program ends a half as with quic-go: the send half with Close or
// CancelWrite, or when Write returns an error that is not about a deadline;
// the receive half when Read returns io.EOF or such an error, or with
// CancelRead. What a program forgets is ended for it:
//
//   - When the send half has ended and all bytes up to the peer's FIN have
//     been read, the receive half is finished, though nobody read the io.EOF.
//   - A bidirectional stream that the program has dropped is found by the
//     garbage collector, reported as a [Leak], and reset; see
//     Guard.AbandonGrace. Of a young stream it takes two collections, or one if
//     streams are short. A unidirectional one may be a control stream, so it is
//     left alone until streams of its kind are short.
//   - A receive half that nobody reads after the send half has ended is
//     cancelled after Guard.HalfCloseTimeout, and a stream on which no byte
//     moves is reset after Guard.IdleTimeout, if that is set.
//
// # Testing
//
// All of this works inside testing/synctest bubbles, in fake time, with one
// difference: as no goroutine outside a bubble may touch what is inside,
// dropped streams are not looked for by themselves there. [Conn.Stats] and
// [Conn.Streams] look for them: call one of them, then runtime.GC, then one of
// them again.
package quiclife
