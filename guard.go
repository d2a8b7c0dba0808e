package quiclife

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quiclife/quiclife/internal/slots"
)

// DefaultGuard is the [Guard] of the package-level functions, and of every
// [Transport] whose Guard is nil. Set its fields before the first connection is
// made.
var DefaultGuard = &Guard{}

// A Guard is the policy for a group of connections: those that are made by its
// methods, or by a [Transport] with this Guard. It also holds the state that
// they share.
//
// The zero value works. Set the fields before the first use, and do not change
// them afterwards. quiclife never writes to them. A Guard must not be copied
// after first use. Its methods may be called from any goroutine.
type Guard struct {
	// Codes are the stream error codes that the peer sees.
	Codes Codes

	// MaxOutgoingStreams and MaxOutgoingUniStreams limit how many streams this
	// side has open on one connection. At the limit OpenStreamSync waits, first
	// come, first served, and OpenStream fails with a [*LimitError]. 0 means
	// that only the peer's limit applies.
	MaxOutgoingStreams    int64
	MaxOutgoingUniStreams int64

	// MaxStreams limits how many streams of the group are handled at a time. It
	// counts the streams handled by [Conn.Serve], [Listener.Serve] and
	// NetListeners. At the limit, further streams wait for their turn for at
	// most MaxWait, and are then refused with Codes.Refused. A free slot goes
	// to the connection that has the fewest streams being handled. Streams that
	// this side opens, or accepts with AcceptStream, are not counted. A stream
	// counts until its handler returns, even if it was reset before that. A
	// NetListener's stream counts from shortly before Accept returns it until
	// it has ended. 0 means no limit.
	MaxStreams int64

	// MaxWait is how long a stream waits at MaxStreams. When it is refused, the
	// streams of its kind that the peer opened after it on the same connection
	// are refused too. 0 means 1 second. A negative value means as long as the
	// connection lives.
	MaxWait time.Duration

	// MaxConns limits the connections of the group, including handshakes in
	// progress. MaxHeap limits the bytes of live heap of the whole process, as
	// measured by the last garbage collection. At either limit, new incoming
	// connections are refused at their first packet (the peer sees
	// CONNECTION_REFUSED), and Dial fails with a [*LimitError]. Above MaxHeap,
	// opening a stream fails with a LimitError too. Existing connections and
	// streams go on, and peers may open more streams on them. A refusal above
	// MaxHeap requests a garbage collection, at most once a second, and less
	// often if collections do not help. 0 means no limit.
	//
	// A packet with a forged address starts a handshake that fails only seconds
	// later. So handshakes with clients whose address is not validated may take
	// at most an eighth of MaxConns (none if MaxConns is below 8). Once they
	// do, and for 3 seconds more, new clients have to validate their address
	// with a Retry. That costs them one more round trip, and their 0-RTT
	// packets are dropped.
	// Connections that have not been accepted yet take at most half of
	// MaxConns, rounded up.
	MaxConns int64
	MaxHeap  int64

	// IdleTimeout is how long a stream may go without a byte read or written
	// before it is reset with Codes.Idle. The reset comes between 1 and 1.25
	// times IdleTimeout after the last byte. It does not end the stream's handler,
	// which should wait for [Stream.Context] too. IdleTimeout must be longer than
	// the slowest handler works without reading or writing. While a blocked
	// Write's bytes go into packets, the stream is not idle. Bytes that Write
	// queues count when they are queued. 0 means never.
	IdleTimeout time.Duration

	// HalfCloseTimeout is how long a bidirectional stream may go unread after
	// its send half has ended. Then its receive half is aborted with
	// Codes.HalfClosed. A blocked Read counts as reading. The abort comes
	// between 1 and 1.25 times HalfCloseTimeout after the last Read or the end
	// of the send half, whichever is later. 0 means 5 minutes. A negative value
	// means never.
	HalfCloseTimeout time.Duration

	// AbandonGrace is how long a dropped stream is left alone after the garbage
	// collector has found it. In this time, data that was written may still be
	// delivered, and the peer's FIN may still arrive. While slots of its kind
	// are short, the time is at most a probe timeout (PTO) and a round trip. 0
	// means 1 second. A negative value means no time.
	AbandonGrace time.Duration

	// ReportOnly reports leaks but ends no stream, neither those that were
	// dropped nor those that have timed out.
	ReportOnly bool

	// NoStopSending is for protocols that forbid STOP_SENDING, such as DNS over
	// QUIC (RFC 9250). If a stream was dropped or has timed out, its receive
	// half is then drained instead of aborted: once a second, or every 30
	// seconds while nothing arrives, its data is read and discarded, until the
	// peer ends it. Its send half is reset as usual. Shutdown does not send
	// STOP_SENDING either when it cuts streams. STOP_SENDING is still sent
	// where the program asks for it: by CancelRead, Release or Reset, when a
	// handler returns before it has read everything, and when a context given
	// to BindContext is done. It is also sent for refused streams.
	NoStopSending bool

	// DrainTimeout is how long [Listener.Serve] waits for the streams of its
	// connections to end, and for their data to arrive, before it cuts them. A
	// closed [Listener.NetListener] waits for streams to end without a limit,
	// and then for at most DrainTimeout for their data to arrive. During a
	// [Guard.Shutdown], its context sets the time instead. 0 means 30 seconds.
	// A negative value means no limit.
	DrainTimeout time.Duration

	// CloseCode and CloseReason are what the peer sees when [Guard.Shutdown],
	// [Listener.Serve] or a NetListener closes a connection.
	CloseCode   ApplicationErrorCode
	CloseReason string

	// CaptureStacks records where each stream was opened or accepted, for
	// [StreamInfo].Stack. It costs about a microsecond per stream (go test -run
	// '^$' -bench CaptureStacks). Without it, for ten minutes after each leak,
	// one stream in 16 has its innermost 4 calls recorded.
	CaptureStacks bool

	// Logger receives records of leaks, of handlers that fail or panic, of
	// answers that were cut, of connections that Listener.Serve or a
	// NetListener had to cut, of connections that Handlers.Conn refused, and of
	// failures at a limit. It also receives one when streams wait at MaxStreams,
	// or calls that open streams have waited at a limit for a second in vain.
	//
	// The first record of a kind is written at once. Those of the next ten
	// seconds are held back. Then one record is written for all of them, and
	// its attribute "count" says how many it stands for. What is still held
	// back when Shutdown or [Listener.Serve] returns is written then. If the
	// program ends in another way, it is lost. Leaks are of one kind if they
	// have the same reason, opener and half states. The errors of handlers are
	// all of one kind. If the Logger panics, the panic is recovered and
	// ignored. nil means [slog.Default].
	Logger *slog.Logger

	// OnLeak, if not nil, is called once for each leaked stream, after the leak
	// was logged. By then the stream was ended, unless AbandonGrace gives its
	// data time to arrive, NoStopSending has it drained, or ReportOnly is set.
	// No lock is held during the call. Calls may be concurrent. If OnLeak
	// panics, the panic is logged.
	OnLeak func(Leak)

	records   thinner
	totals    totals
	samples   samples
	collector *collector                  // nil except in tests, see collectorFor
	watched   atomic.Pointer[leakWatch]   // nil unless package leaktest is used
	recent    atomic.Pointer[recentLeaks] // nil unless package debugpage is used

	mu         sync.Mutex         // guards the fields below
	conns      map[*Conn]struct{} // members until they and all of their streams have ended
	listeners  map[*listener]struct{}
	counted    int64                         // connections, including handshakes in progress
	handshakes int64                         // of these: not accepted yet
	unverified int64                         // of these: address not validated
	pressedAt  time.Time                     // when clients last had to validate their address
	refused    time.Time                     // when a limit that streams count against was last reached
	handling   slots.Fair[*Conn]             // for MaxStreams
	hooks      []func(context.Context) error // registered with BeforeShutdown
	hooking    *hookRun                      // the run in progress, or nil
	shutdowns  int                           // calls of Shutdown in progress
	shutDown   chan struct{}                 // closed when the last of them returns
}

// Codes are the stream error codes that quiclife puts into RESET_STREAM and
// STOP_SENDING frames. The zero value, all 0, suits most protocols.
type Codes struct {
	// Release is sent by Stream.Release for halves that have not ended, and by
	// NetConn.CloseRead.
	Release StreamErrorCode
	// Canceled is sent when a context given to Stream.BindContext is done.
	Canceled StreamErrorCode
	// Cut is sent by Stream.Close if a Write was cut short.
	Cut StreamErrorCode
	// Abandoned is sent for dropped streams.
	Abandoned StreamErrorCode
	// HalfClosed is sent when Guard.HalfCloseTimeout has passed.
	HalfClosed StreamErrorCode
	// Idle is sent when Guard.IdleTimeout has passed.
	Idle StreamErrorCode
	// Refused is sent for streams that no handler has seen: [Handlers] has no
	// function for their kind, or they waited too long at Guard.MaxStreams.
	Refused StreamErrorCode
	// HandlerError is sent when a handler, or the function given to Do,
	// returned an error, and when the context of Do is done. For handlers,
	// Handlers.Code may choose another code.
	HandlerError StreamErrorCode
	// Panic is sent when a handler, or the function given to Do, panicked.
	Panic StreamErrorCode
	// Shutdown is sent for streams that Shutdown refuses or cuts. It closes the
	// connection right after it has cut streams, so the peer may see the end of
	// the connection instead of this code.
	Shutdown StreamErrorCode
}

func (g *Guard) halfCloseTimeout() time.Duration {
	if g.HalfCloseTimeout == 0 {
		return 5 * time.Minute
	}
	return g.HalfCloseTimeout
}

func (g *Guard) drainTimeout() time.Duration {
	if g.DrainTimeout == 0 {
		return 30 * time.Second
	}
	return g.DrainTimeout
}

func (g *Guard) abandonGrace() time.Duration {
	if g.AbandonGrace == 0 {
		return time.Second
	}
	return max(g.AbandonGrace, 0)
}
