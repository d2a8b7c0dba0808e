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

func (f *flight) add(s sentFrame) {
	if n := len(f.frames); n > 0 && s.pn < f.frames[n-1].pn {
		f.clear() // numbers begin anew
	}
	if len(f.frames) >= maxInFlight {
		f.frames = slices.Delete(f.frames, 0, maxInFlight/2)
		f.settled = 0
		for i := range f.frames {
			if f.frames[i].op == opNone {
				f.settled++
			}
		}
	}
	f.frames = append(f.frames, s)
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
