// Package peek is what the packages leaktest and debugpage ask of package
// quiclife, and what no other program needs. Package quiclife, which cannot be
// imported here, sets the funcs.
package peek

import "time"

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
)
