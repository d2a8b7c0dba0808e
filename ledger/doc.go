// Package ledger tells who holds the streams of a QUIC connection: our
// application, the peer's, or the network. It works for every program on
// quic-go, http3 and webtransport included, without a change to its code but
// one line in its configuration:
//
//	l := ledger.New(ledger.Options{})
//	conf := &quic.Config{Tracer: l.Tracer(nil)}
//
// From then on [Ledger.Conns] lists the connections, [Conn.Report] counts the
// streams of each, and [Conn.Streams] names those that hold a slot, and whose
// move it is, with the frames that prove it.
//
// The ledger reads quic-go's own trace events, which describe every frame that
// is sent and received. It calls into no stream, starts no goroutine at rest,
// and sees no payload.
//
// # What the counts mean
//
// A stream takes a slot of the limit that the accepting end has set, from the
// moment when that end sees its first frame until the end gives the slot back.
// It gives slots back with MAX_STREAMS, which quic-go sends each time it lets go
// of a stream. So the highest MAX_STREAMS, less the limit in the transport
// parameters, is the number of streams that the accepting end has let go of,
// and both ends can read it. [Count] has these numbers, for what the peer opened
// and for what we opened.
//
// # What blame means
//
// [Stream.Blame] says whose move it is. A half that has no end yet waits for
// its sender, or for its receiver if the flow control window is full, or for the
// network if frames are under way. A stream that is complete on the wire, and
// still holds its slot, waits for the application at the accepting end: it has
// not accepted the stream, or not read it to its end. Blame is judged from the
// frames that were seen so far, so it holds for a stream at rest. Where the
// frames do not tell, Blame is BlameUnknown, and the Proof says why. docs/LEDGER.md
// lists what can be known, and from which frame.
//
// # Files
//
// [ReadFile] builds the same from a qlog file.
package ledger
