// Package ledger says who holds the streams of a QUIC connection: our
// application, the peer's application, or the network. It works for every program
// on quic-go, including those that use http3 or webtransport. It takes one line
// in the configuration:
//
//	l := ledger.New(ledger.Options{})
//	conf := &quic.Config{Tracer: l.Tracer(nil)}
//
// From then on [Ledger.Conns] lists the connections, and [Conn.Report] counts
// the streams of each. [Conn.Streams] lists the streams that hold a slot. For
// each it says whose move it is, and which frames prove it.
//
// The ledger reads quic-go's own trace events, which describe every frame that
// is sent and received. It calls into no stream, starts no goroutine at rest,
// and sees no payload.
//
// # What the counts mean
//
// The end that accepts streams sets a limit. A stream takes one slot from the
// moment that end sees its first frame until that end gives the slot back. That
// end gives it back with MAX_STREAMS, which quic-go sends each time it lets go of
// a stream. So the highest MAX_STREAMS, less the limit in the transport
// parameters, is the number of streams that the accepting end has let go of. Both
// ends can read it. [Count] has these numbers, both for the streams that the peer
// opened and for those that we opened.
//
// # What blame means
//
// [Stream.Blame] says whose move it is. A half that has not ended waits for its
// sender. If the flow control window is full, it waits for its receiver. If
// frames are under way, it waits for the network. A stream may be complete on the
// wire and still hold its slot. Then it waits for the application at the
// accepting end, which has not accepted it or has not read it to the end.
//
// Blame is judged from the frames seen so far, so it is right for a stream at
// rest. Where the frames do not tell, Blame is BlameUnknown, and the Proof says
// why. docs/LEDGER.md lists what can be known, and from which frame.
//
// # Files
//
// [ReadFile] returns the same information from a qlog file.
//
// # Strings of the peer
//
// [Stream.Label] and [Report].Reason may contain text from the peer, unchanged.
// Quote them before you print them to a terminal.
package ledger
