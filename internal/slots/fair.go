package slots

import "container/heap"

// A Fair is some slots that parties want, each perhaps many of them. A free
// slot goes to the party that holds fewest, among those to the one that has
// waited longest. It does not lock.
type Fair[P comparable] struct {
	Limit int64

	taken   int64
	asked   int64 // turns so far
	parties map[P]*party[P]
	waiting queue[P] // the parties that wait
}

// A party is one that holds slots, or waits for some.
type party[P comparable] struct {
	key   P
	held  int64
	turns []*Turn[P] // first come, first served
	index int        // in waiting, if it has turns
}

// A Turn is a wait for a slot.
type Turn[P comparable] struct {
	Given chan struct{} // closed when it is
	party *party[P]
	order int64
}

// Take takes a slot for a party. If it returns a Turn, the slot is the party's
// only once that is given, and whoever does not wait for it any more calls
// Leave.
func (f *Fair[P]) Take(key P) *Turn[P] {
	p := f.parties[key]
	if p == nil {
		p = &party[P]{key: key}
		if f.parties == nil {
			f.parties = make(map[P]*party[P])
		}
		f.parties[key] = p
	}
	if f.taken < f.Limit {
		f.taken++
		p.held++
		return nil
	}
	f.asked++
	turn := &Turn[P]{Given: make(chan struct{}), party: p, order: f.asked}
	p.turns = append(p.turns, turn)
	if len(p.turns) == 1 {
		heap.Push(&f.waiting, p)
	}
	return turn
}

// Release gives a party's slot to whom it is due, or back.
func (f *Fair[P]) Release(key P) {
	p := f.parties[key]
	p.held--
	if len(p.turns) > 0 {
		heap.Fix(&f.waiting, p.index)
	}
	f.forget(p)
	if len(f.waiting) == 0 {
		f.taken--
		return
	}
	next := f.waiting[0]
	turn := next.turns[0]
	next.held++
	f.drop(next, 0)
	close(turn.Given)
}

// Leave gives up a turn, also if it was given since.
func (f *Fair[P]) Leave(turn *Turn[P]) {
	p := turn.party
	for i, t := range p.turns {
		if t == turn {
			f.drop(p, i)
			f.forget(p)
			return
		}
	}
	f.Release(p.key)
}

// drop takes a turn of p out, and p from its place in the line.
func (f *Fair[P]) drop(p *party[P], i int) {
	p.turns = append(p.turns[:i], p.turns[i+1:]...)
	if len(p.turns) == 0 {
		heap.Remove(&f.waiting, p.index)
	} else {
		heap.Fix(&f.waiting, p.index)
	}
}

func (f *Fair[P]) forget(p *party[P]) {
	if p.held == 0 && len(p.turns) == 0 {
		delete(f.parties, p.key)
	}
}

// Taken is how many slots are taken.
func (f *Fair[P]) Taken() int64 { return f.taken }

// Most returns the party that holds most slots, and how many.
func (f *Fair[P]) Most() (key P, held int64) {
	for _, p := range f.parties {
		if p.held > held {
			key, held = p.key, p.held
		}
	}
	return key, held
}

// A queue is a heap of parties, the one whose turn is next first.
type queue[P comparable] []*party[P]

func (q queue[P]) Len() int { return len(q) }

func (q queue[P]) Less(i, j int) bool {
	if q[i].held != q[j].held {
		return q[i].held < q[j].held
	}
	return q[i].turns[0].order < q[j].turns[0].order
}

func (q queue[P]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue[P]) Push(x any) {
	p := x.(*party[P])
	p.index = len(*q)
	*q = append(*q, p)
}

func (q *queue[P]) Pop() any {
	old := *q
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return p
}
