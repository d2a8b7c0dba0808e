package quiclife

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quiclife/quiclife/internal/slots"
)

// DefaultGuard is the [Guard] of the package-level functions and of every
// [Transport] that has none of its own. Set its fields before the first
// connection is made.
var DefaultGuard = &Guard{}

// A Guard is the policy of a group of connections, and what they share.
//
// The zero value works. Set the fields before the first use and leave them
// alone from then on; quiclife never writes to them. A Guard must not be
// copied after first use. Its methods may be called from any goroutine.
type Guard struct {
	// Codes are the stream error codes that the peer sees.
	Codes Codes

	// MaxOutgoingStreams and MaxOutgoingUniStreams limit how many streams this
	// side holds open on one connection. At the limit OpenStreamSync waits,
	// first come, first served, and OpenStream fails with a [*LimitError].
	// 0 means that only the peer's limit counts.
	MaxOutgoingStreams    int64
	MaxOutgoingUniStreams int64

	// MaxStreams limits how many streams are handled at a time, by
	// [Conn.Serve], [Listener.Serve] and the NetListeners of the group's
	// connections together. Further ones wait for their turn, for MaxWait at
	// most, and are then refused with Codes.Refused. A free slot goes to the
	// connection that has fewest streams handled. Streams that are opened here,
	// or accepted with AcceptStream, are not counted. A NetListener's stream
	// counts from shortly before its Accept returns it until it has ended. 0 means
	// no limit.
	MaxStreams int64

	// MaxWait is how long a stream waits at MaxStreams. Those that the peer has
	// opened after it on the connection are refused with it. 0 means 1 second, a
	// negative value for as long as the connection lives.
	MaxWait time.Duration

	// MaxConns and MaxHeap limit connections (with handshakes under way), and
	// bytes of live heap in the whole process, as of the last garbage collection.
	// At a limit, new connections are refused during the handshake (the peer sees
	// CONNECTION_REFUSED) and Dial fails with a [*LimitError]; above MaxHeap new
	// outgoing streams do too. What is running goes on, with the streams that
	// its peers open. What is refused above MaxHeap asks for a collection, at most
	// one a second, and fewer if they do not help. 0 means no limit.
	//
	// A packet with a forged address begins a handshake that fails seconds
	// later. So handshakes of clients that have not shown that they receive at
	// their address take at most an eighth of MaxConns (none below 8). While
	// they do, clients are asked to show it, with a Retry: that costs them one
	// more round trip, and their 0-RTT packets are dropped. Connections that
	// are not accepted yet take at most half of MaxConns, rounded up.
	MaxConns int64
	MaxHeap  int64

	// IdleTimeout is how long a stream may go without a byte read or written
	// before it is reset with Codes.Idle. It is cancelled between one and one
	// and a quarter of this time after the last byte. It has to be longer than
	// the slowest handler works without reading or writing. A Write that blocks
	// is not idle while its bytes go into packets; those that it queues count
	// when they are queued. 0 means never.
	IdleTimeout time.Duration

	// HalfCloseTimeout is how long a bidirectional stream may stay with its
	// send half ended and nobody reading, before its receive half is cancelled
	// with Codes.HalfClosed. A blocked Read counts as reading. It is cancelled
	// between one and one and a quarter of this time after the last Read, or
	// after the send half has ended. 0 means 5 minutes, a negative value never.
	HalfCloseTimeout time.Duration

	// AbandonGrace is how long a stream that the garbage collector found
	// dropped is left to deliver what was written to it, or to receive the end
	// it was waiting for. While streams of its kind are short, it is left a
	// probe timeout and a round trip at most. 0 means 1 second, a negative value
	// no time.
	AbandonGrace time.Duration

	// ReportOnly reports leaks, and ends nothing: neither dropped streams nor
	// those whose time is up.
	ReportOnly bool

	// NoStopSending is for protocols that forbid STOP_SENDING, such as DNS over
	// QUIC (RFC 9250). The receive halves of streams that were dropped, or whose
	// time is up, are not cancelled then: they are read and discarded once a
	// second, or every 30 seconds while nothing comes, until the peer ends them.
	// Their send halves are reset as usual. Nor does Shutdown cancel those that
	// it cuts. STOP_SENDING is still sent where the program asks for it, with
	// CancelRead, Release, Reset or a handler that returns before it has read
	// all, when a context of BindContext is done, and for streams that are refused.
	NoStopSending bool

	// DrainTimeout is how long [Listener.Serve] and a closed
	// [Listener.NetListener] wait for the streams of their connections to end,
	// before they cut them. While a [Guard.Shutdown] is under way, that says how
	// long. 0 means 30 seconds, a negative value for ever.
	DrainTimeout time.Duration

	// CloseCode and CloseReason are what the peer sees when [Guard.Shutdown],
	// [Listener.Serve] or a NetListener closes a connection.
	CloseCode   ApplicationErrorCode
	CloseReason string

	// CaptureStacks remembers where each stream was opened or accepted, for
	// [StreamInfo].Stack. It costs about a microsecond a stream
	// (go test -run '^$' -bench CaptureStacks). Without it, one stream in 16 has
	// the innermost 4 calls remembered for ten minutes after each leak.
	CaptureStacks bool

	// Logger is told of leaks, panics of handlers, answers that were cut,
	// connections that Listener.Serve had to cut, and what fails at a limit. When
	// opens have waited at a limit for a second in vain, it is told too.
	//
	// The first record of a kind is written at once. Those of the next ten
	// seconds are held back, then one is written for them all: its attribute
	// "count" says how many it stands for. Leaks are of one kind if they have
	// the same reason, opener and half states. A Logger that panics is recovered
	// from. nil means [slog.Default].
	Logger *slog.Logger

	// OnLeak, if not nil, is called once for each leaked stream, after it was
	// logged, without any lock held. By then the stream has been ended, unless
	// AbandonGrace still leaves it time, or ReportOnly is set. Calls can be
	// concurrent. If it panics, that is logged.
	OnLeak func(Leak)

	records   thinner
	totals    totals
	samples   samples
	collector *collector                  // nil but in tests, see collectorFor
	watched   atomic.Pointer[leakWatch]   // nil but under package leaktest
	recent    atomic.Pointer[recentLeaks] // nil but under package debugpage

	mu         sync.Mutex         // guards the fields below
	conns      map[*Conn]struct{} // until they have ended, and all of their streams
	listeners  map[*listener]struct{}
	counted    int64                         // connections, and handshakes under way
	handshakes int64                         // of these: not accepted yet
	unverified int64                         // of these: without proof of their address
	refused    time.Time                     // when a limit that streams count against was last reached
	handling   slots.Fair[*Conn]             // of MaxStreams
	hooks      []func(context.Context) error // of BeforeShutdown
	hooking    *hookRun                      // they run now, or nil
	shutdowns  int                           // calls of Shutdown under way
	shutDown   chan struct{}                 // closed when the last of them returns
}

// Codes are the stream error codes that quiclife puts into RESET_STREAM and
// STOP_SENDING frames. The zero value, all 0, suits most protocols.
type Codes struct {
	// Release is sent by Release for halves that have not ended.
	Release StreamErrorCode
	// Canceled is sent when a context given to BindContext is done.
	Canceled StreamErrorCode
	// Cut is sent by Close when a Write was not taken in full.
	Cut StreamErrorCode
	// Abandoned is sent for streams that were dropped without being ended.
	Abandoned StreamErrorCode
	// HalfClosed is sent when HalfCloseTimeout has passed.
	HalfClosed StreamErrorCode
	// Idle is sent when IdleTimeout has passed.
	Idle StreamErrorCode
	// Refused is sent for streams that no handler has seen: of a kind that
	// [Handlers] has no func for, or refused at Guard.MaxStreams.
	Refused StreamErrorCode
	// HandlerError is sent when a handler, or the func of Do, returned an
	// error for which Handlers.Code does not say otherwise.
	HandlerError StreamErrorCode
	// Panic is sent when a handler panicked.
	Panic StreamErrorCode
	// Shutdown is sent for streams that Shutdown refuses, and for those that it
	// cuts. The connection is closed right after that, so of a stream that was
	// cut the peer may see this code or the end of the connection.
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
