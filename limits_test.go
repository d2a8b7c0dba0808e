package quiclife_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// opener is what the two kinds of stream that can be opened have in common.
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

// TestPeerLimit: at the peer's limit the error says who holds the streams, and
// matches quic-go's in every form that programs use.
func TestPeerLimit(t *testing.T) {
	for _, o := range openers {
		t.Run(o.name, func(t *testing.T) {
			var log logged
			conf := &quic.Config{MaxIncomingStreams: 3, MaxIncomingUniStreams: 3}
			guard := &quiclife.Guard{Logger: log.logger(), CaptureStacks: true}
			setup{serverConf: conf, guard: guard}.in(t, func(t *testing.T, e ends) {
				var held []released
				for range 3 {
					s, err := o.open(e.client)
					require.NoError(t, err)
					held = append(held, s)
					time.Sleep(time.Second)
				}
				for range 2 {
					s, err := o.open(e.client)
					require.Nil(t, s)
					require.ErrorIs(t, err, &quic.StreamLimitReachedError{})
					require.ErrorIs(t, err, quic.StreamLimitReachedError{})
					var pointer *quic.StreamLimitReachedError
					require.ErrorAs(t, err, &pointer)
					var value quic.StreamLimitReachedError
					require.ErrorAs(t, err, &value)
					limit, ok := errors.AsType[*quiclife.LimitError](err)
					require.True(t, ok)
					require.Equal(t, quiclife.PeerLimit, limit.Scope)
					require.Equal(t, [3]int64{3, 3, 0}, [3]int64{limit.Open, limit.Opened, limit.Limit})
					require.Equal(t, held[0].StreamID(), limit.Oldest.ID)
					require.Equal(t, 3*time.Second, time.Since(limit.Oldest.Opened))
					require.Contains(t, limit.Oldest.Stack, "limits_test.go")
					require.NotErrorIs(t, err, context.Canceled)
					require.Contains(t, err.Error(), "the peer's limit of "+o.name+" streams reached: 3 open here of 3 opened, the oldest: stream")
				}
				require.Equal(t, 1, strings.Count(log.String(), "limit reached"), "one record for a run of failures")

				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				s, err := o.sync(e.client, ctx)
				require.Nil(t, s)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.NotErrorIs(t, err, &quic.StreamLimitReachedError{})
				limit, ok := errors.AsType[*quiclife.LimitError](err)
				require.True(t, ok)
				require.EqualValues(t, 3, limit.Open)
				require.Contains(t, err.Error(), "context deadline exceeded")

				// Released here, but the peer's application does nothing: it is the peer then.
				for _, s := range held {
					s.Release()
				}
				_, err = o.open(e.client)
				limit, ok = errors.AsType[*quiclife.LimitError](err)
				require.True(t, ok)
				require.Zero(t, limit.Open)
				require.Contains(t, err.Error(), "0 open here of 3 opened, the peer has not ended the others")
				limit.Open = 1 // and one that is rightly open
				require.Contains(t, err.Error(), "1 open here of 3 opened, the peer may not have ended the others, the oldest: stream")
				require.EqualValues(t, 3, o.stats(e.client.Stats()).Opened, "a failed open counts nothing")
				requireBalance(t, e.client.Stats())
			})
		})
	}
}

// TestStuckOpenIsLogged: an open without a deadline returns no error that
// would tell what it waits for, so the log does, once until a stream is opened.
func TestStuckOpenIsLogged(t *testing.T) {
	for _, own := range []bool{false, true} {
		var log logged
		guard := &quiclife.Guard{Logger: log.logger()}
		conf, scope := &quic.Config{MaxIncomingStreams: 1}, "the peer's limit of"
		if own {
			guard.MaxOutgoingStreams = 1
			conf, scope = nil, "this side's limit of"
		}
		setup{guard: guard, serverConf: conf}.in(t, func(t *testing.T, e ends) {
			records := func() int { return strings.Count(log.String(), scope) }
			held, in := e.stream(t)
			for n := range 2 {
				opened := make(chan *quiclife.Stream)
				go func() {
					s, err := e.client.OpenStreamSync(context.Background())
					if err != nil {
						t.Error(err)
					}
					opened <- s
				}()
				time.Sleep(900 * time.Millisecond)
				require.Equal(t, n, records(), "a short wait is none")
				time.Sleep(10 * time.Second)
				require.Equal(t, n+1, records(), log.String())
				require.Contains(t, log.String(), "the oldest: stream")
				in.Release()
				held.Release()
				held = <-opened
				write(t, held, "x")
				s, err := e.server.AcceptStream(t.Context())
				require.NoError(t, err)
				in = s
			}
			in.Release()
			held.Release()
			settled()
			e.requireNothingLeft(t)
		})
	}
	// The timer runs for the other direction; an open that waits shortly is none.
	var log logged
	guard := &quiclife.Guard{Logger: log.logger(), MaxOutgoingStreams: 1}
	setup{guard: guard, clientConf: &quic.Config{MaxIncomingStreams: 1}, serverConf: &quic.Config{MaxIdleTimeout: time.Hour}}.in(t, func(t *testing.T, e ends) {
		s, err := e.server.OpenStream()
		require.NoError(t, err)
		write(t, s, "x")
		in, err := e.client.AcceptStream(t.Context()) // the last slot, from now on
		require.NoError(t, err)
		held, err := e.client.OpenStream()
		require.NoError(t, err)
		time.Sleep(4900 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err = e.client.OpenStreamSync(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, strings.Count(log.String(), "limit reached"), log.String())
		require.Contains(t, log.String(), "context deadline exceeded", "the failure, no other")
		for _, s := range []*quiclife.Stream{s, in, held} {
			s.Release()
		}
	})
}

// TestBusyLimitIsNotLogged: opens wait all the time, but not in vain.
func TestBusyLimitIsNotLogged(t *testing.T) {
	var log logged
	setup{guard: &quiclife.Guard{Logger: log.logger(), MaxOutgoingStreams: 1}}.in(t, func(t *testing.T, e ends) {
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				s, err := e.client.OpenStreamSync(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(300 * time.Millisecond)
				s.Release()
			})
		}
		wg.Wait()
		require.Empty(t, log.String())
	})
}

// TestOutgoingLimit: this side's own limit fails at once or waits in line.
func TestOutgoingLimit(t *testing.T) {
	for _, o := range openers {
		t.Run(o.name, func(t *testing.T) {
			guard := &quiclife.Guard{}
			o.limit(guard, 2)
			setup{guard: guard}.in(t, func(t *testing.T, e ends) {
				a, err := o.open(e.client)
				require.NoError(t, err)
				b, err := o.sync(e.client, t.Context())
				require.NoError(t, err)

				_, err = o.open(e.client)
				limit, ok := errors.AsType[*quiclife.LimitError](err)
				require.True(t, ok)
				require.Equal(t, quiclife.OutgoingLimit, limit.Scope)
				require.Equal(t, [2]int64{2, 2}, [2]int64{limit.Open, limit.Limit})
				require.NotErrorIs(t, err, &quic.StreamLimitReachedError{})
				require.False(t, errors.As(err, new(quic.StreamLimitReachedError)))
				require.Contains(t, err.Error(), "this side's limit of "+o.name+" streams reached: limit 2, 2 open here")

				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("cause"))
				defer cancel()
				_, err = o.sync(e.client, ctx)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorAs(t, err, &limit)

				// First come, first served; one who gives up is skipped.
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
				a, err = o.open(e.client)
				require.NoError(t, err, "one slot is free, b has the other")
				defer runtime.KeepAlive(a) // a dropped one would come back
				_, err = o.open(e.client)
				require.Error(t, err)
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
		})
	}
}

// TestSlotsAreNotLost: many openers that give up at any moment lose no slot.
func TestSlotsAreNotLost(t *testing.T) {
	guard := &quiclife.Guard{MaxOutgoingStreams: 3}
	e := setup{guard: guard, serverConf: &quic.Config{MaxIncomingStreams: 1 << 20}}.onLoopback(t)
	go func() {
		for {
			s, err := e.server.AcceptStream(context.Background())
			if err != nil {
				return
			}
			s.Release()
		}
	}()
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
	for range 3 {
		_, err := e.client.OpenStream()
		require.NoError(t, err)
	}
	_, err := e.client.OpenStream()
	require.Error(t, err)
	requireBalance(t, e.client.Stats())
	e.client.CloseWithError(0, "")
}

// TestCancelledContext fails as quic-go does, and counts nothing.
func TestCancelledContext(t *testing.T) {
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
		for range 5 { // no slot was lost
			_, err := e.client.OpenStream()
			require.NoError(t, err)
		}
		require.Panics(t, func() { e.client.OpenUniStreamSync(nil) }, "as quic-go does")
	})
}

// TestLimitsOfStats: what the counts say about limits.
func TestLimitsOfStats(t *testing.T) {
	for _, c := range []struct{ configured, effective int64 }{{0, 100}, {7, 7}, {-1, 0}, {1 << 62, 1 << 60}} {
		guard := &quiclife.Guard{MaxOutgoingStreams: c.configured, MaxOutgoingUniStreams: c.configured}
		conf := &quic.Config{MaxIncomingStreams: c.configured, MaxIncomingUniStreams: c.configured}
		setup{guard: guard, clientConf: conf}.in(t, func(t *testing.T, e ends) {
			stats := e.client.Stats()
			require.Equal(t, c.effective, stats.Incoming.Limit)
			require.Equal(t, c.effective, stats.IncomingUni.Limit)
			require.Equal(t, max(c.configured, 0), stats.Outgoing.Limit)
			require.Equal(t, max(c.configured, 0), stats.OutgoingUni.Limit)
		})
	}
}

// TestStatsAndStreams: what the program can see of its streams.
func TestStatsAndStreams(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		start := time.Now()
		client, server := e.stream(t)
		time.Sleep(time.Second)
		uni, err := e.client.OpenUniStream()
		require.NoError(t, err)
		write(t, uni, "abc")
		r, err := e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		client.Close()
		write(t, server, "12345")
		expect(t, client, "123")

		infos := func(c *quiclife.Conn) (all []quiclife.StreamInfo) {
			for info := range c.Streams() {
				require.Equal(t, time.Since(info.Opened), info.Age)
				info.Age = 0
				info.Opened = info.Opened.Truncate(time.Second)
				all = append(all, info)
			}
			return all
		}
		require.Equal(t, []quiclife.StreamInfo{
			{ID: client.StreamID(), Opened: start.Truncate(time.Second), Send: quiclife.HalfFinished, Receive: quiclife.HalfOpen, BytesWritten: 1, BytesRead: 3},
			{ID: uni.StreamID(), Unidirectional: true, Opened: start.Add(time.Second).Truncate(time.Second), Send: quiclife.HalfOpen, BytesWritten: 3},
		}, infos(e.client))
		require.Equal(t, []quiclife.StreamInfo{
			{ID: server.StreamID(), Incoming: true, Opened: start.Truncate(time.Second), Send: quiclife.HalfOpen, Receive: quiclife.HalfOpen, BytesWritten: 5, BytesRead: 1},
			{ID: r.StreamID(), Incoming: true, Unidirectional: true, Opened: start.Add(time.Second).Truncate(time.Second), Receive: quiclife.HalfOpen},
		}, infos(e.server))
		require.EqualValues(t, 2, e.client.Stats().Open())
		require.Regexp(t, `^stream \d+ \(opened by us \d.*s ago, send finished, receive open, 1 bytes written, 3 read\)$`, fmt.Sprint(client.Info()))
		require.Contains(t, fmt.Sprint(server.Info()), "opened by the peer")
		info := client.Info()
		said := fmt.Sprint(info)
		time.Sleep(5 * time.Second)
		require.Equal(t, said, fmt.Sprint(info)) // it is a snapshot, also in an error that is printed later
		for range e.client.Streams() {
			break
		}
		// A stream may be ended in the loop.
		for range e.client.Streams() {
			client.Release()
			uni.Release()
		}
		server.Release()
		r.Release()
		settled()
		e.requireNothingLeft(t)
		require.Empty(t, infos(e.client))
		require.EqualValues(t, 1, e.client.Stats().Outgoing.Reset)
	})
}

// TestGuardIsNotWrittenTo: neither it nor the Config is.
func TestGuardIsNotWrittenTo(t *testing.T) {
	guard := &quiclife.Guard{}
	conf := &quic.Config{}
	setup{guard: guard, clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		client.Release()
		server.Release()
	})
	require.Equal(t, &quic.Config{}, conf)
	guard.Logger = nil // set by the test's setup
	require.Zero(t, guard.Codes)
	require.Zero(t, [2]int64{guard.MaxOutgoingStreams, guard.MaxOutgoingUniStreams})
	require.Zero(t, guard.HalfCloseTimeout+guard.AbandonGrace)
	require.Nil(t, guard.OnLeak)
}

// TestFailedOpensKeepOwnLimit: an open that fails at the peer's limit neither
// keeps a slot of ours nor makes one.
func TestFailedOpensKeepOwnLimit(t *testing.T) {
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
				for range own - 1 { // slots that are the peer's to free, and no more ours
					open().Release()
				}
				held := []released{open(), open()} // and the peer's limit is reached
				settled()
				for range 10 {
					limit := new(quiclife.LimitError)
					require.ErrorAs(t, fail(e.client), &limit, name)
					require.Equal(t, quiclife.PeerLimit, limit.Scope, name)
				}
				done := e.serve(t.Context(), quiclife.Handler{}) // the peer frees all that it has seen
				settled()
				for range own - len(held) {
					held = append(held, open())
				}
				_, err := o.open(e.client)
				limit := new(quiclife.LimitError)
				require.ErrorAs(t, err, &limit, name)
				require.Equal(t, quiclife.OutgoingLimit, limit.Scope, name)
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
