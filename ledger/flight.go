package ledger

import (
	"cmp"
	"slices"
)

// A sentFrame is a frame in a packet that is neither acknowledged nor lost.
type sentFrame struct {
	pn     int64
	op     op // opNone once the packet is acknowledged or lost
	fin    bool
	kind   uint8
	num    int64 // of the stream, as in stream
	n1, n2 int64 // as in event
}

// A flight is the frames that are under way to the peer and whose delivery
// matters. They are in the order of their packet numbers.
type flight struct {
	frames  []sentFrame
	settled int // how many of frames have op opNone
}

// add adds s. If there are too many frames, it removes the older half, and calls
// each for the frames in it that are not settled.
func (f *flight) add(s sentFrame, each func(sentFrame)) {
	if n := len(f.frames); n > 0 && s.pn < f.frames[n-1].pn {
		f.clear() // the packet numbers start again
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

// forget removes frames of packets below pn, unless they are few. quic-go does
// not trace a packet as lost if it sends the frames again because a timer fired
// or the path changed.
func (f *flight) forget(pn int64) {
	if len(f.frames) == 0 || f.frames[0].pn >= pn {
		return
	}
	i, _ := slices.BinarySearchFunc(f.frames, pn, func(s sentFrame, pn int64) int { return cmp.Compare(s.pn, pn) })
	if i >= len(f.frames)/2 { // fewer are not worth moving the rest
		f.drop(i)
	}
}

// drop removes the first n frames.
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

// settle marks the frames of the packets lo to hi as settled, and calls each for
// them unless it is nil. each must not change f.
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

// compact removes the settled frames if they are most of all. Otherwise each
// acknowledgement would step over all of them.
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
