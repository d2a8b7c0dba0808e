package ledger

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A Conn is one end of a connection, as its frames describe it. It is safe for
// concurrent use, and outlives the connection.
type Conn struct {
	ledger *Ledger // nil if it is read from a file
	id     string
	listed atomic.Bool // it is or was in the ledger's lists

	mu            sync.Mutex // guards the fields below; never held for long
	state         *state
	local, remote string
	starving      bool // OnStarved is running
	starvedAgain  bool // OnStarved has to be called once more

	// Only for connections that are read from a file:
	last           int64 // the time of the last event
	window, flying int64 // the congestion window, and the bytes in flight
}

// now returns the time: of the last event if c is read from a file.
func (c *Conn) now() int64 {
	if c.ledger == nil {
		return c.last
	}
	return time.Now().UnixNano()
}

func newConn(client, unit bool) *Conn { return &Conn{state: newState(client, unit)} }

// A Count counts the bidirectional or the unidirectional streams that one end
// has opened. It counts them at the end that accepts them. A stream that the peer
// opened counts once its first frame has reached us. A stream that we opened
// counts once we know that its first frame has reached the peer.
type Count struct {
	Limit  int64 // how many may be held at a time, -1 if the limit was not seen
	Opened int64 // in all
	LetGo  int64 // the streams of Opened whose slot was given back
	Held   int64 // the streams of Opened that still hold their slot

	// HeldComplete is how many of Held are complete on the wire. They wait for the
	// application at the accepting end. If that end is the peer, a MAX_STREAMS that
	// gives back some of them may also be under way.
	HeldComplete int64

	// Exact means that the numbers are those of the accepting end, as of the
	// last MAX_STREAMS that was seen. If it is false, Why says why. If slots are
	// given back several at a time, Held is an upper bound.
	Exact bool
	Why   string

	// Blocked means that the opener has sent STREAMS_BLOCKED, and that no slot was
	// given back since.
	Blocked bool
}

// A Report says how many streams of a connection are held.
type Report struct {
	ID            string // the connection's: the Destination Connection ID of its first packet
	Client        bool   // whether our end is the client
	Local, Remote string // addresses, "" if they were not seen

	Began, Ended time.Time // zero: not seen, not yet
	Reason       string    // why the connection ended
	Missing      string    // what the file lacks, "" if it lacks nothing

	Incoming, IncomingUni Count // opened by the peer, accepted by us
	Outgoing, OutgoingUni Count // opened by us, accepted by the peer
}

// String returns r as one line for logs. It lists the kinds of streams that were
// opened, or for which the opener has no slot.
func (r Report) String() string {
	b := []byte("server ")
	if r.Client {
		b = []byte("client ")
	}
	b = fmt.Appendf(b, "%s, peer %s", cmp.Or(r.Local, "?"), cmp.Or(r.Remote, "?"))
	if !r.Ended.IsZero() {
		b = append(b, ", ended"...)
	}
	none := true
	for i, c := range [...]Count{r.Incoming, r.IncomingUni, r.Outgoing, r.OutgoingUni} {
		if c.Opened == 0 && !c.Blocked {
			continue
		}
		none = false
		b = fmt.Appendf(b, "; %s: %v", [...]string{"incoming", "incoming uni", "outgoing", "outgoing uni"}[i], c)
	}
	if none {
		b = append(b, "; no streams"...)
	}
	return string(b)
}

// String returns c in words: "10 held of 10, 3 of them complete, 14 opened, blocked".
func (c Count) String() string {
	b := strconv.AppendInt(nil, c.Held, 10)
	if !c.Exact {
		b = append(b, '?')
	}
	b = append(b, " held"...)
	if c.Limit >= 0 {
		b = fmt.Appendf(b, " of %d", c.Limit)
	}
	if c.HeldComplete > 0 {
		b = fmt.Appendf(b, ", %d of them complete", c.HeldComplete)
	}
	b = fmt.Appendf(b, ", %d opened", c.Opened)
	if c.Blocked {
		b = append(b, ", blocked"...)
	}
	if !c.Exact {
		b = fmt.Appendf(b, " (%s)", c.Why)
	}
	return string(b)
}

// Held returns how many streams of all kinds are held.
func (r Report) Held() int64 {
	return r.Incoming.Held + r.IncomingUni.Held + r.Outgoing.Held + r.OutgoingUni.Held
}

// Report returns the counts as they are now, or as they were when c ended.
func (c *Conn) Report() Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reportLocked()
}

func (c *Conn) reportLocked() Report {
	s := c.state
	return Report{
		ID: c.id, Client: s.client, Local: c.local, Remote: c.remote,
		Began: timeOf(s.began), Ended: timeOf(s.ended), Reason: s.reason, Missing: s.missing,
		Incoming: s.kinds[kindIncoming].count(), IncomingUni: s.kinds[kindIncomingUni].count(),
		Outgoing: s.kinds[kindOutgoing].count(), OutgoingUni: s.kinds[kindOutgoingUni].count(),
	}
}

func (c *counters) count() Count {
	letGo := min(c.letGo(), c.opened) // a peer may raise its limit as it likes
	why := c.inexact()
	held := c.opened - letGo
	return Count{
		Limit: c.limit, Opened: c.opened, LetGo: letGo, Held: held,
		HeldComplete: min(max(c.complete-letGo, 0), held),
		Exact:        why == "", Why: why,
		Blocked: c.limit >= 0 && c.blockedAt >= c.max,
	}
}

// Streams yields the streams that hold a slot. Where the frames do not tell, it
// also yields the complete streams that may hold one. The kinds come in this
// order: incoming, incoming unidirectional, outgoing, outgoing unidirectional.
// The streams of a kind are in the order of their IDs. A Stream that stands for
// several complete ones comes before them. The connection goes on meanwhile, so
// streams may come and go.
func (c *Conn) Streams() iter.Seq[Stream] {
	return func(yield func(Stream) bool) {
		for i := range 4 {
			if !c.yieldKind(i, yield) {
				return
			}
		}
	}
}

func (c *Conn) yieldKind(i int, yield func(Stream) bool) bool {
	c.mu.Lock()
	k := &c.state.kinds[i]
	numbers := make([]int64, 0, len(k.streams))
	for num := range k.streams {
		numbers = append(numbers, num)
	}
	silent := slices.Clone(k.silent)
	v := c.state.view(c.now())
	c.mu.Unlock()
	slices.Sort(numbers)

	if v.kinds[i].folded > 0 && !yield(v.foldedStreams(i)) {
		return false
	}
	const atATime = 32
	some := make([]stream, 0, atATime)
	for len(numbers) > 0 {
		for len(silent) > 0 && silent[0].lo < numbers[0] {
			if !yield(v.silent(i, silent[0])) {
				return false
			}
			silent = silent[1:]
		}
		n := min(atATime, len(numbers))
		if len(silent) > 0 { // stop before the next silent stream, to keep the order
			at, _ := slices.BinarySearch(numbers[:n], silent[0].lo)
			n = at
		}
		some = some[:0]
		c.mu.Lock()
		buf := v.buf
		v = c.state.view(c.now())
		v.buf = buf
		for _, num := range numbers[:n] {
			if str := c.state.kinds[i].streams[num]; str != nil {
				some = append(some, *str)
				got := &some[len(some)-1].recv.got
				got.rest = slices.Clone(got.rest)
			}
		}
		c.mu.Unlock()
		numbers = numbers[n:]
		for j := range some {
			if !yield(v.stream(i, &some[j])) {
				return false
			}
		}
	}
	for _, r := range silent {
		if !yield(v.silent(i, r)) {
			return false
		}
	}
	return true
}

// apply updates the state with e.
func (c *Conn) apply(e event) {
	c.mu.Lock()
	c.state.apply(e)
	c.unlock()
}

// unlock unlocks c.mu. If the peer has run out of slots, it makes sure that
// OnStarved is called.
func (c *Conn) unlock() {
	starved := c.state.starved
	c.state.starved = false
	start := false
	if starved && c.ledger != nil && c.ledger.options.OnStarved != nil {
		start = !c.starving
		c.starvedAgain = c.starving
		c.starving = true
	}
	c.mu.Unlock()
	if start {
		go c.tellStarved()
	}
}

// tellStarved calls OnStarved, and again if the peer ran out of slots during the
// call. It runs on a goroutine of its own.
func (c *Conn) tellStarved() {
	for {
		c.ledger.options.OnStarved(c, c.Report())
		c.mu.Lock()
		again := c.starvedAgain
		c.starving, c.starvedAgain = again, false
		c.mu.Unlock()
		if !again {
			return
		}
	}
}
