package quiclife_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// opener has the methods that both types of stream that can be opened have.
type opener struct {
	name  string
	limit func(*quiclife.Guard, int64)
	open  func(*quiclife.Conn) (released, error)
	sync  func(*quiclife.Conn, context.Context) (released, error)
	stats func(quiclife.Stats) quiclife.StreamStats
}

type released interface {
	Release()
	StreamID() quiclife.StreamID
}

var openers = []opener{
	{
		"bidirectional",
		func(g *quiclife.Guard, n int64) { g.MaxOutgoingStreams = n },
		func(c *quiclife.Conn) (released, error) { return c.OpenStream() },
		func(c *quiclife.Conn, ctx context.Context) (released, error) { return c.OpenStreamSync(ctx) },
		func(s quiclife.Stats) quiclife.StreamStats { return s.Outgoing },
	},
	{
		"unidirectional",
		func(g *quiclife.Guard, n int64) { g.MaxOutgoingUniStreams = n },
		func(c *quiclife.Conn) (released, error) { return c.OpenUniStream() },
		func(c *quiclife.Conn, ctx context.Context) (released, error) { return c.OpenUniStreamSync(ctx) },
		func(s quiclife.Stats) quiclife.StreamStats { return s.OutgoingUni },
	},
}

// atOwnLimit runs f for both kinds of stream, with two streams open and
// MaxOutgoing limits of two.
func atOwnLimit(t *testing.T, f func(t *testing.T, e ends, o opener, a, b released)) {
	for _, o := range openers {
		t.Run(o.name, func(t *testing.T) {
			guard := &quiclife.Guard{}
			o.limit(guard, 2)
			setup{guard: guard}.in(t, func(t *testing.T, e ends) {
				a, err := o.open(e.client)
				require.NoError(t, err)
				b, err := o.sync(e.client, t.Context())
				require.NoError(t, err)
				f(t, e, o, a, b)
				runtime.KeepAlive(a) // the slot of a dropped one would come back
				runtime.KeepAlive(b)
			})
		})
	}
}

// TestOpenAtOwnLimitFails: at once, or when its context is done.
func TestOpenAtOwnLimitFails(t *testing.T) {
	t.Parallel()
	atOwnLimit(t, func(t *testing.T, e ends, o opener, a, b released) {
		_, err := o.open(e.client)
		limit := requireLimitError(t, err)
		require.Equal(t, quiclife.LimitOutgoing, limit.Scope)
		require.Equal(t, [2]int64{2, 2}, [2]int64{limit.Open, limit.Limit})
		require.NotErrorIs(t, err, &quic.StreamLimitReachedError{})
		require.NotErrorAs(t, err, new(quic.StreamLimitReachedError))
		require.Contains(t, err.Error(), "this side's limit of "+o.name+" streams reached: limit 2, 2 open here")

		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("cause"))
		defer cancel()
		_, err = o.sync(e.client, ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		requireLimitError(t, err)

		a.Release()
		a, err = o.open(e.client)
		require.NoError(t, err, "one slot is free, b has the other")
		_, err = o.open(e.client)
		requireLimitError(t, err, "there is no third slot")
		runtime.KeepAlive(a)
		require.EqualValues(t, 2, o.stats(e.client.Stats()).Peak)
	})
}

// TestOpensAtOwnLimitAreServedInOrder: one that gives up is skipped.
func TestOpensAtOwnLimitAreServedInOrder(t *testing.T) {
	t.Parallel()
	atOwnLimit(t, func(t *testing.T, e ends, o opener, a, b released) {
		var order []int
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				ctx := t.Context()
				if i == 1 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, 500*time.Millisecond)
					defer cancel()
				}
				s, err := o.sync(e.client, ctx)
				if err != nil {
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				time.Sleep(10 * time.Millisecond)
				s.Release()
			})
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		require.Empty(t, order)
		a.Release()
		wg.Wait()
		require.Equal(t, []int{0, 2, 3, 4}, order)
		require.EqualValues(t, 2, o.stats(e.client.Stats()).Peak)
		requireBalance(t, e.client.Stats())
	})
}

// TestConnectionEndUnblocksOpensAtOwnLimit: even those that have just been
// given a slot.
func TestConnectionEndUnblocksOpensAtOwnLimit(t *testing.T) {
	t.Parallel()
	atOwnLimit(t, func(t *testing.T, e ends, o opener, a, b released) {
		b.Release()
		done := make(chan error)
		for range 3 {
			go func() {
				s, err := o.sync(e.client, context.Background())
				if err == nil {
					_, err = o.sync(e.client, context.Background())
				}
				runtime.KeepAlive(s)
				done <- err
			}()
		}
		settled()
		e.client.CloseWithError(7, "")
		for range 3 {
			require.ErrorIs(t, <-done, &quiclife.ApplicationError{ErrorCode: 7})
		}
		require.Zero(t, e.client.Stats().Open())
		require.EqualValues(t, 2, o.stats(e.client.Stats()).Peak)
		requireBalance(t, e.client.Stats())
	})
}

// TestOpensThatGiveUpLoseNoSlot: many at once, at random moments.
func TestOpensThatGiveUpLoseNoSlot(t *testing.T) {
	guard := &quiclife.Guard{MaxOutgoingStreams: 3}
	e := setup{guard: guard, serverConf: &quic.Config{MaxIncomingStreams: 1 << 20}}.onLoopback(t)
	go acceptAndRelease(e.server)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 200 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(300))*time.Microsecond)
				s, err := e.client.OpenStreamSync(ctx)
				if err == nil {
					s.Write([]byte("x"))
					s.Release()
				}
				cancel()
				if s, err := e.client.OpenStream(); err == nil {
					s.Release()
				}
			}
		})
	}
	wg.Wait()
	stats := e.client.Stats().Outgoing
	require.Zero(t, stats.Open)
	require.LessOrEqual(t, stats.Peak, int64(3))
	for n := range 3 {
		s, err := e.client.OpenStream()
		require.NoError(t, err, "%d slots of 3 are left", n)
		keep(t, s)
	}
	_, err := e.client.OpenStream()
	requireLimitError(t, err, "there are more than 3 slots")
	requireBalance(t, e.client.Stats())
	e.client.CloseWithError(0, "")
}

// TestOpenWithCancelledContextCountsNothing: it fails as in quic-go.
func TestOpenWithCancelledContextCountsNothing(t *testing.T) {
	t.Parallel()
	setup{guard: &quiclife.Guard{MaxOutgoingStreams: 5}}.in(t, func(t *testing.T, e ends) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, o := range openers {
			_, err := o.sync(e.client, ctx)
			require.Equal(t, context.Canceled, err)
		}
		_, err := e.client.AcceptStream(ctx)
		require.Equal(t, context.Canceled, err)
		require.Zero(t, e.client.Stats().Outgoing.Opened)
		for n := range 5 {
			s, err := e.client.OpenStream()
			require.NoError(t, err, "%d slots of 5 are left", n)
			keep(t, s)
		}
		require.Panics(t, func() { e.client.OpenUniStreamSync(noContext) }, "as quic-go does")
	})
}

// TestOpenThatFailsAtPeersLimitKeepsNoSlot: of this side's own limit. Nor does
// it free one too many.
func TestOpenThatFailsAtPeersLimitKeepsNoSlot(t *testing.T) {
	t.Parallel()
	const own, peers = 4, 5
	for _, o := range openers {
		for name, fail := range map[string]func(c *quiclife.Conn) error{
			"at once": func(c *quiclife.Conn) error { _, err := o.open(c); return err },
			"waiting": func(c *quiclife.Conn) error {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				_, err := o.sync(c, ctx)
				return err
			},
		} {
			guard := &quiclife.Guard{}
			o.limit(guard, own)
			conf := &quic.Config{MaxIncomingStreams: peers, MaxIncomingUniStreams: peers}
			setup{guard: guard, serverConf: conf}.in(t, func(t *testing.T, e ends) {
				name := o.name + ", " + name
				open := func() (s released) {
					s, err := o.open(e.client)
					require.NoError(t, err, name)
					return s
				}
				for range own - 1 { // the peer still has to free these slots
					open().Release()
				}
				held := []released{open(), open()} // and the peer's limit is reached
				settled()
				for range 10 {
					limit := requireLimitError(t, fail(e.client), name)
					require.Equal(t, quiclife.LimitPeer, limit.Scope, name)
				}
				done := e.serve(t.Context(), quiclife.Handlers{}) // the peer frees all slots that it has seen
				settled()
				for range own - len(held) {
					held = append(held, open())
				}
				_, err := o.open(e.client)
				require.Equal(t, quiclife.LimitOutgoing, requireLimitError(t, err, name).Scope, name)
				for _, s := range held {
					s.Release()
				}
				settled()
				e.requireNothingLeft(t)
				e.client.CloseWithError(0, "")
				<-done
			})
		}
	}
}

// TestOpenThatEndsWithConnectionReturnsItsError: even if its context was done
// at the same time.
func TestOpenThatEndsWithConnectionReturnsItsError(t *testing.T) {
	t.Parallel()
	conf := &quic.Config{MaxIncomingStreams: 1}
	setup{serverConf: conf}.in(t, func(t *testing.T, e ends) {
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		done := make(chan error)
		ctx, cancel := context.WithCancel(e.client.Context())
		defer cancel()
		go func() { _, err := e.client.OpenStreamSync(ctx); done <- err }()
		settled()
		e.client.CloseWithError(4, "")
		err = <-done
		require.Error(t, err)
		require.NotErrorAs(t, err, new(*quiclife.LimitError))
		keep(t, s)
	})
	setup{}.in(t, func(t *testing.T, e ends) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := &quiclife.ApplicationError{ErrorCode: 4, Remote: true}
		err := quiclife.AwaitPeer(ctx, e.client, func(context.Context) (*quic.Stream, error) {
			e.server.CloseWithError(4, "")
			<-e.client.Context().Done()
			cancel() // just as the connection ends
			return nil, context.Cause(e.client.Context())
		})
		require.ErrorIs(t, err, ended)
		require.NotErrorAs(t, err, new(*quiclife.LimitError))
	})
}

// TestNoOpenWaitsWhileASlotIsFree: even if the slot comes back just as an open
// begins to wait.
func TestNoOpenWaitsWhileASlotIsFree(t *testing.T) {
	e := setup{guard: &quiclife.Guard{MaxOutgoingStreams: 1}}.onLoopback(t)
	go acceptAndRelease(e.server)
	openAndRelease := func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		s, err := e.client.OpenStreamSync(ctx)
		if err != nil {
			t.Error(err)
			return
		}
		s.Release()
	}
	for n := 0; n < 2000 && !t.Failed(); n++ {
		together(openAndRelease, openAndRelease)
	}
	e.client.CloseWithError(0, "")
}
