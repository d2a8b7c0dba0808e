// Package peek is how packages leaktest and debugpage get information from
// packages quiclife and ledger that no other program needs. quiclife and ledger
// cannot be imported here, so they set the functions.
package peek

import (
	"iter"
	"time"
)

// A Leak is a stream that has leaked, or that will leak if the program does
// nothing more with it.
type Leak struct {
	Conn   any // a *quiclife.Conn
	Stream any // a quiclife.StreamInfo
	Why    Why
	// Final says that the program can no longer prevent the leak.
	Final bool
}

// A RecentLeak is a leak that was reported. It does not keep the connection
// alive.
type RecentLeak struct {
	At     time.Time
	Remote string
	Stream any // a quiclife.StreamInfo
	Reason string
}

// Why says how a stream leaked. The first four values are those of
// quiclife.LeakReason.
type Why uint8

const (
	Dropped    Why = iota // and reported
	Unread                // and reported
	Idle                  // and reported
	Uncredited            // it has ended, but its stream credit was not returned
	CutOff                // it was open when its connection ended or Shutdown cut it, and the program has not ended it since
)

var (
	// Leaks returns the leaks of the connections of a *quiclife.Guard since the
	// first call. It leaves out open streams, unless they were reported.
	Leaks func(guard any) []Leak

	// KeepLeaks makes a *quiclife.Guard keep its latest leaks. RecentLeaks
	// returns them, oldest first.
	KeepLeaks   func(guard any)
	RecentLeaks func(guard any) []RecentLeak

	// TakeUnaccepted accepts the streams that are queued on a *quiclife.Conn,
	// refuses them, and returns their quiclife.StreamInfos. It leaves out a
	// kind of stream if somebody has ever called accept for it. It takes no
	// streams if the program has quic-go's connection, because the program may
	// accept streams from that.
	TakeUnaccepted func(conn any) []any

	// LedgerConns returns the connections of a *ledger.Ledger. ok is false if
	// its argument is nil or something else. The function is nil if the program
	// does not import package ledger. Package debugpage does not import it: if
	// it did, every program with a page would list the schema of http3's events
	// in its qlog files.
	LedgerConns func(ledger any) (conns iter.Seq[LedgerConn], ok bool)
)

// A LedgerConn is a ledger.Report with its streams.
type LedgerConn struct {
	Client  bool                   `json:"client"`
	Local   string                 `json:"local"`
	Remote  string                 `json:"remote"`
	Ended   bool                   `json:"ended"`
	Reason  string                 `json:"reason,omitempty"`
	Held    int64                  `json:"held"`
	Kinds   []LedgerCount          `json:"kinds"`
	Streams iter.Seq[LedgerStream] `json:"-"`
}

// A LedgerCount is a ledger.Count.
type LedgerCount struct {
	Incoming       bool   `json:"incoming"` // opened by the peer, and accepted here
	Unidirectional bool   `json:"unidirectional"`
	Limit          int64  `json:"limit"`
	Opened         int64  `json:"opened"`
	Held           int64  `json:"held"`
	HeldComplete   int64  `json:"held_complete"`
	Exact          bool   `json:"exact"`
	Why            string `json:"why,omitempty"`
	Blocked        bool   `json:"blocked"`
}

// A LedgerStream is a ledger.Stream.
type LedgerStream struct {
	ID             int64     `json:"stream"`
	Last           int64     `json:"last"`
	Count          int64     `json:"count"`
	Incoming       bool      `json:"incoming"`
	Unidirectional bool      `json:"unidirectional"`
	Label          string    `json:"label,omitempty"`
	Opened         time.Time `json:"opened,omitzero"`
	Blame          string    `json:"blame"`
	Proof          string    `json:"proof"`
}
