package slots_test

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/slots"
)

func TestFreeSlotGoesToWhoeverHoldsFewest(t *testing.T) {
	f := slots.Fair[string]{Limit: 3}
	require.Nil(t, f.Take("greedy"))
	require.Nil(t, f.Take("greedy"))
	require.Nil(t, f.Take("other"))
	again, other, small := f.Take("greedy"), f.Take("other"), f.Take("small")
	require.False(t, given(f.Take("other").Given), "a slot while all are taken")

	key, held := f.Most()
	require.Equal(t, "greedy", key)
	require.EqualValues(t, 2, held)

	f.Release("greedy")
	require.True(t, given(small.Given), "to small, who holds none")
	f.Release("greedy")
	require.False(t, given(other.Given), "to other, who holds one")
	require.True(t, given(again.Given), "to greedy, who holds none now, and asked before other's second")
	require.EqualValues(t, 3, f.Taken())
}

// TestFairAgainstModel compares random calls with a plain search.
func TestFairAgainstModel(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		limit := 1 + r.IntN(5)
		f := slots.Fair[int]{Limit: int64(limit)}
		type wait struct {
			party int
			turn  *slots.Turn[int]
		}
		held := make(map[int]int)
		var waiting []wait // in the order in which they came
		taken := 0
		free := func(party int) {
			held[party]--
			if len(waiting) == 0 {
				taken--
				return
			}
			next := 0
			for i, w := range waiting {
				if held[w.party] < held[waiting[next].party] {
					next = i
				}
			}
			// Of the parties that hold the fewest slots, the one that has
			// waited longest comes first: the scan keeps the earliest.
			require.True(t, given(waiting[next].turn.Given), "seed %d: the turn of %d", seed, waiting[next].party)
			held[waiting[next].party]++
			waiting = slices.Delete(waiting, next, next+1)
		}
		for range 300 {
			party := r.IntN(4)
			switch r.IntN(5) {
			case 0, 1:
				turn := f.Take(party)
				if taken < limit {
					require.Nil(t, turn, "seed %d: a free slot", seed)
					taken++
					held[party]++
				} else {
					require.NotNil(t, turn, "seed %d: no slot is free", seed)
					waiting = append(waiting, wait{party, turn})
				}
			case 2, 3:
				if held[party] > 0 {
					f.Release(party)
					free(party)
				}
			case 4:
				if len(waiting) > 0 {
					i := r.IntN(len(waiting))
					w := waiting[i]
					waiting = slices.Delete(waiting, i, i+1)
					f.Leave(w.turn)
				}
			}
			for _, w := range waiting {
				require.False(t, given(w.turn.Given), "seed %d: out of turn, to %d", seed, w.party)
			}
			require.EqualValues(t, taken, f.Taken(), "seed %d", seed)
			_, most := f.Most()
			want := 0
			for _, n := range held {
				want = max(want, n)
			}
			require.EqualValues(t, want, most, "seed %d: the most that one holds", seed)
		}
	}
}

func TestTurnGivenToWhoLeavesIsPassedOn(t *testing.T) {
	f := slots.Fair[string]{Limit: 1}
	require.Nil(t, f.Take("a"))
	b, c := f.Take("b"), f.Take("c")
	f.Release("a")
	require.True(t, given(b.Given), "b, who came first")
	f.Leave(b)
	require.True(t, given(c.Given), "c, after b has left")
	f.Release("c")
	require.Zero(t, f.Taken())
}

func TestPartyThatHasLeftIsForgotten(t *testing.T) {
	f := slots.Fair[*[64]byte]{}
	key := new([64]byte)
	gone := weak.Make(key)
	f.Leave(f.Take(key))
	runtime.GC()
	require.Nil(t, gone.Value(), "something holds it")
	runtime.KeepAlive(&f)
}
