package ledger

import (
	"cmp"
	"slices"
)

// A sentFrame is a frame in a packet that is neither acknowledged nor lost.
type sentFrame struct {
	pn     int64
	op     op // opNone once it is settled
	fin    bool
	kind   uint8
	num    int64 // of the stream
	n1, n2 int64 // as in event
}

// flight is the frames under way to the peer whose delivery matters, in the
// order of their packet numbers.
type flight struct {
	frames  []sentFrame
	settled int // how many of frames are
}

// add adds s. If there are too many, it takes the oldest ones out, and calls
// each for them.
func (f *flight) add(s sentFrame, each func(sentFrame)) {
	if n := len(f.frames); n > 0 && s.pn < f.frames[n-1].pn {
		f.clear() // numbers begin anew
	}
	if len(f.frames) >= maxInFlight {
		for _, old := range f.frames[:maxInFlight/2] {
			if old.op != opNone {
				each(old)
			}
		}
		f.drop(maxInFlight / 2)
	}
	f.frames = append(f.frames, s)
}

// forget takes the frames of packets below pn out. A packet that quic-go sends
// anew when a timer fires, or on another path, is not traced as lost.
func (f *flight) forget(pn int64) {
	if len(f.frames) == 0 || f.frames[0].pn >= pn {
		return
	}
	i, _ := slices.BinarySearchFunc(f.frames, pn, func(s sentFrame, pn int64) int { return cmp.Compare(s.pn, pn) })
	if i >= len(f.frames)/2 { // moving the rest has to be worth it
		f.drop(i)
	}
}

// drop takes the first n frames out.
func (f *flight) drop(n int) {
	f.frames = slices.Delete(f.frames, 0, n)
	f.settled = 0
	for i := range f.frames {
		if f.frames[i].op == opNone {
			f.settled++
		}
	}
	f.compact()
}

// settle takes the frames of the packets from lo to hi out, and calls each for
// them. What each does must not change f.
func (f *flight) settle(lo, hi int64, each func(sentFrame)) {
	i, _ := slices.BinarySearchFunc(f.frames, lo, func(s sentFrame, pn int64) int { return cmp.Compare(s.pn, pn) })
	for ; i < len(f.frames) && f.frames[i].pn <= hi; i++ {
		if f.frames[i].op == opNone {
			continue
		}
		if each != nil {
			each(f.frames[i])
		}
		f.frames[i].op = opNone
		f.settled++
	}
	f.compact()
}

// compact keeps the frames from being mostly settled ones, of which the next
// acknowledgement would have to step over each.
func (f *flight) compact() {
	switch {
	case f.settled == len(f.frames):
		f.clear()
	case f.settled > 64 && f.settled > len(f.frames)/2:
		f.frames = slices.DeleteFunc(f.frames, func(s sentFrame) bool { return s.op == opNone })
		f.settled = 0
	}
}

func (f *flight) clear() {
	f.frames = f.frames[:0]
	f.settled = 0
	if cap(f.frames) > 1024 {
		f.frames = nil
	}
}
