package main

import (
	"encoding/json"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/quiclife/quiclife/ledger"
)

// A share says whose move it is on some of the held streams. The first shares
// equal the values of ledger.Blame.
type share int

const (
	shareUnknown = share(ledger.BlameUnknown)
	shareOurApp  = share(ledger.BlameOurApp)
	sharePeerApp = share(ledger.BlamePeerApp)
	shareWire    = share(ledger.BlameWire)
	// shareComplete is for streams that are complete on the wire. We know how many
	// of them are held, but not which.
	shareComplete = shareWire + 1
	shares        = shareComplete + 1
)

// shareOrder is the order in which shares are shown.
var shareOrder = [...]share{shareOurApp, sharePeerApp, shareWire, shareComplete, shareUnknown}

func (s share) String() string {
	if s == shareComplete {
		return "complete"
	}
	return ledger.Blame(s).String()
}

// kindNames are the kinds of streams, in the order in which they are shown.
var kindNames = [...]string{"incoming", "incoming uni", "outgoing", "outgoing uni"}

func kindOf(s *ledger.Stream) int {
	kind := 0
	if !s.Incoming {
		kind = 2
	}
	if s.Unidirectional {
		kind++
	}
	return kind
}

func countsOf(r *ledger.Report) [4]ledger.Count {
	return [...]ledger.Count{r.Incoming, r.IncomingUni, r.Outgoing, r.OutgoingUni}
}

// A tally counts the streams of one kind.
type tally struct {
	ledger.Count
	by     [shares]int64
	oldest time.Time // when the oldest stream was opened that is held for sure
}

// isHeld reports whether s is held for sure. A complete stream may have been let
// go of if its blame is unknown.
func isHeld(s *ledger.Stream) bool { return s.Complete.IsZero() || s.Blame != ledger.BlameUnknown }

// tallies counts streams. It passes each to also, unless also is nil.
func tallies(r *ledger.Report, streams iter.Seq[ledger.Stream], also func(ledger.Stream)) (all [4]tally) {
	for i, c := range countsOf(r) {
		all[i].Count = c
	}
	for s := range streams {
		t := &all[kindOf(&s)]
		if isHeld(&s) || len(s.Candidates) > 0 { // also count those that may wait for the network
			t.by[s.Blame] += s.Count
		}
		if isHeld(&s) {
			if !s.Opened.IsZero() && (t.oldest.IsZero() || s.Opened.Before(t.oldest)) {
				t.oldest = s.Opened
			}
		}
		if also != nil {
			also(s)
		}
	}
	for i := range all {
		t := &all[i]
		rest := t.Held
		for _, n := range t.by {
			rest -= n
		}
		if rest > 0 { // rest is negative if frames of ours that open streams are under way
			complete := int64(0)
			if t.Exact {
				complete = min(rest, t.HeldComplete)
			}
			t.by[shareComplete] += complete
			t.by[shareUnknown] += rest - complete
		}
	}
	return all
}

// A book is what a file says about one end of a connection.
type book struct {
	file    string
	report  ledger.Report
	kinds   [4]tally
	now     time.Time // the end of the connection, or the latest time that is known
	streams iter.Seq[ledger.Stream]
}

func bookOf(file string, c *ledger.Conn) *book {
	b := &book{file: file, report: c.Report(), streams: c.Streams()}
	b.now = b.report.Ended
	b.kinds = tallies(&b.report, b.streams, func(s ledger.Stream) {
		if b.report.Ended.IsZero() && s.KnownHeld.After(b.now) {
			b.now = s.KnownHeld
		}
	})
	return b
}

func (b *book) end() string {
	if b.report.Client {
		return "client"
	}
	return "server"
}

type jsonConn struct {
	File    string       `json:"file"`
	ID      string       `json:"id"`
	End     string       `json:"end"` // client or server: the end that wrote the file
	Local   string       `json:"local,omitempty"`
	Remote  string       `json:"remote,omitempty"`
	Began   time.Time    `json:"began,omitzero"`
	Ended   time.Time    `json:"ended,omitzero"`
	Reason  string       `json:"reason,omitempty"`
	Missing string       `json:"missing,omitempty"`
	Kinds   []jsonKind   `json:"kinds"`
	Streams []jsonStream `json:"streams"`
}

type jsonKind struct {
	Kind         string           `json:"kind"`
	Limit        int64            `json:"limit"` // -1 if it was not seen
	Opened       int64            `json:"opened"`
	LetGo        int64            `json:"let_go"`
	Held         int64            `json:"held"`
	HeldComplete int64            `json:"held_complete"`
	Exact        bool             `json:"exact"`
	Why          string           `json:"why,omitempty"`
	Blocked      bool             `json:"blocked"`
	Whose        map[string]int64 `json:"whose"`
	Oldest       time.Time        `json:"oldest,omitzero"`
}

type jsonStream struct {
	ID         int64          `json:"id"`
	Last       int64          `json:"last"`
	Count      int64          `json:"count"`
	Kind       string         `json:"kind"`
	Label      string         `json:"label,omitempty"`
	Opened     time.Time      `json:"opened,omitzero"`
	Complete   time.Time      `json:"complete,omitzero"`
	Since      time.Time      `json:"since,omitzero"`
	KnownHeld  time.Time      `json:"known_held,omitzero"`
	Send       *jsonHalf      `json:"send,omitempty"`
	Receive    *jsonHalf      `json:"receive,omitempty"`
	Blame      ledger.Blame   `json:"blame"`
	Candidates []ledger.Blame `json:"candidates,omitempty"`
	Proof      string         `json:"proof"`
}

type jsonHalf struct {
	State     ledger.HalfState `json:"state"`
	Bytes     int64            `json:"bytes"`
	Delivered int64            `json:"delivered"`
	Limit     int64            `json:"limit"`
	Stopped   bool             `json:"stopped"`
	Code      uint64           `json:"code"`
}

func jsonHalfOf(h ledger.Half) *jsonHalf {
	if h.State == ledger.HalfNone {
		return nil
	}
	j := jsonHalf(h)
	return &j
}

// writeJSON writes b as one line. Times are in UTC, so that the output does not
// depend on the time zone.
func (b *book) writeJSON(w io.Writer) error {
	r := &b.report
	j := jsonConn{
		File: b.file, ID: r.ID, End: b.end(), Local: r.Local, Remote: r.Remote, Began: r.Began.UTC(), Ended: r.Ended.UTC(), Reason: r.Reason, Missing: r.Missing,
		Streams: []jsonStream{},
	}
	for i, t := range b.kinds {
		k := jsonKind{
			Kind: kindNames[i], Limit: t.Limit, Opened: t.Opened, LetGo: t.LetGo, Held: t.Held, HeldComplete: t.HeldComplete,
			Exact: t.Exact, Why: t.Why, Blocked: t.Blocked, Whose: make(map[string]int64), Oldest: t.oldest.UTC(),
		}
		for s, n := range t.by {
			if n > 0 {
				k.Whose[share(s).String()] = n
			}
		}
		j.Kinds = append(j.Kinds, k)
	}
	for s := range b.streams {
		j.Streams = append(j.Streams, jsonStream{
			ID: int64(s.ID), Last: int64(s.Last), Count: s.Count, Kind: kindNames[kindOf(&s)], Label: s.Label,
			Opened: s.Opened.UTC(), Complete: s.Complete.UTC(), Since: s.Since.UTC(), KnownHeld: s.KnownHeld.UTC(),
			Send: jsonHalfOf(s.Send), Receive: jsonHalfOf(s.Receive), Blame: s.Blame, Candidates: s.Candidates, Proof: s.Proof,
		})
	}
	text, err := json.Marshal(&j)
	if err != nil {
		return err
	}
	_, err = w.Write(append(harmlessJSON(text), '\n'))
	return err
}

// whose returns, as text, how many streams wait for whom.
func whose(by [shares]int64) string {
	var parts []string
	for _, s := range shareOrder {
		if by[s] > 0 {
			parts = append(parts, s.String()+" "+grouped(by[s]))
		}
	}
	return strings.Join(parts, ", ")
}
