package slots

import "container/heap"

// A Fair shares Limit slots among parties, each of which may take many. A free
// slot goes to the waiting party that holds the fewest slots. If several hold
// as few, it goes to the one that has waited longest. It is not safe for
// concurrent use.
type Fair[P comparable] struct {
	Limit int64

	taken   int64
	asked   int64 // number of Turns so far
	parties map[P]*party[P]
	waiting queue[P] // the parties with turns
}

// A party holds slots or waits for slots.
type party[P comparable] struct {
	key   P
	held  int64
	turns []*Turn[P] // first come, first served
	index int        // index in waiting, if it has turns
}

// A Turn is a wait for a slot.
type Turn[P comparable] struct {
	Given chan struct{} // closed when the slot is given
	party *party[P]
	order int64
}

// Take takes a slot for a party. If it returns nil, the party has the slot. If
// it returns a Turn, the party has the slot once Given is closed. A caller that
// stops waiting must call Leave.
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

// Release gives back a party's slot. It goes to the next party that waits, if
// there is one.
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

// Leave gives up a turn. If the slot was already given, it releases the slot.
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

// drop removes a turn of p, and moves p to its new place in the queue.
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

// Taken returns how many slots are taken.
func (f *Fair[P]) Taken() int64 { return f.taken }

// Most returns the party that holds the most slots, and their number.
func (f *Fair[P]) Most() (key P, held int64) {
	for _, p := range f.parties {
		if p.held > held {
			key, held = p.key, p.held
		}
	}
	return key, held
}

// A queue is a heap of parties. The first is the one that gets the next slot.
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
