// Package peek is what the packages leaktest and debugpage ask of the packages
// quiclife and ledger, and what no other program needs. These, which cannot be
// imported here, set the funcs.
package peek

import (
	"iter"
	"time"
)

// A Leak is a stream that has leaked, or will have if the program does nothing
// more with it.
type Leak struct {
	Conn   any // a *quiclife.Conn
	Stream any // a quiclife.StreamInfo
	Why    Why
	// Final says that nothing the program does can change it.
	Final bool
}

// A RecentLeak is a leak that was reported. It does not hold the connection.
type RecentLeak struct {
	At     time.Time
	Remote string
	Stream any // a quiclife.StreamInfo
	Reason string
}

// Why says how a stream leaked. The first of them are those of
// quiclife.LeakReason.
type Why uint8

const (
	Dropped    Why = iota // and reported
	Unread                // and reported
	Idle                  // and reported
	Uncredited            // it has ended, and its credit was not returned
	CutOff                // open when its connection ended, or when Shutdown cut it, and not ended since
)

var (
	// Leaks returns the leaks of the connections of a *quiclife.Guard, from the
	// first call of it on. Streams that are open are not among them, unless they
	// were reported.
	Leaks func(guard any) []Leak

	// KeepLeaks has a *quiclife.Guard keep its latest leaks for RecentLeaks,
	// which returns them, oldest first.
	KeepLeaks   func(guard any)
	RecentLeaks func(guard any) []RecentLeak

	// TakeUnaccepted takes the streams that wait for the program to accept them
	// from a *quiclife.Conn, ends them, and returns their quiclife.StreamInfos. It
	// takes none of a kind that somebody has accepted or waited for, and none at
	// all if the program has quic-go's connection, where it may accept as well.
	TakeUnaccepted func(conn any) []any

	// LedgerConns returns what a *ledger.Ledger has of its connections. It is not
	// ok if it is something else, or nil. The func is nil if the program does not
	// import package ledger. Package debugpage does not: http3's events would be
	// among the schemas that each program with a page lists in its qlog files.
	LedgerConns func(ledger any) (conns iter.Seq[LedgerConn], ok bool)
)

// A LedgerConn is a ledger.Report, and its streams.
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
