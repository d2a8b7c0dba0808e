package quiclife_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// TestErrorAtPeersLimitSaysWhoHoldsIt: it also matches quic-go's error in every
// way that programs use.
func TestErrorAtPeersLimitSaysWhoHoldsIt(t *testing.T) {
	t.Parallel()
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
					limit := requireLimitError(t, err)
					require.Equal(t, quiclife.LimitPeer, limit.Scope)
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
				limit := requireLimitError(t, err)
				require.EqualValues(t, 3, limit.Open)
				require.Contains(t, err.Error(), "context deadline exceeded")

				// Released here, but the peer's application does nothing: then
				// the peer holds the slots.
				for _, s := range held {
					s.Release()
				}
				_, err = o.open(e.client)
				limit = requireLimitError(t, err)
				require.Zero(t, limit.Open)
				require.Contains(t, err.Error(), "0 open here of 3 opened, the peer has not ended the others")
				limit.Open = 1 // and one that is open as it should be
				require.Contains(t, err.Error(), "1 open here of 3 opened, the peer may not have ended the others, the oldest: stream")
				require.EqualValues(t, 3, o.stats(e.client.Stats()).Opened, "a failed open counts nothing")
				requireBalance(t, e.client.Stats())
			})
		})
	}
}

// TestStuckOpenIsLogged: an open without a deadline returns no error that says
// what it waits for. So the log says it, once until a stream is opened.
func TestStuckOpenIsLogged(t *testing.T) {
	t.Parallel()
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
			e.requireNothingLeftOf(t, in, held)
		})
	}
}

// TestShortWaitIsNotLoggedAsStuck: even if the timer fires because of the other
// direction.
func TestShortWaitIsNotLoggedAsStuck(t *testing.T) {
	t.Parallel()
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

// TestBusyLimitIsNotLogged: opens always wait, but not in vain.
func TestBusyLimitIsNotLogged(t *testing.T) {
	t.Parallel()
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

// TestGuardIsNotWrittenTo: nor is the Config.
func TestGuardIsNotWrittenTo(t *testing.T) {
	t.Parallel()
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

// TestEachRunOfFailuresAtPeersLimitIsLoggedOnce: the second run comes after the
// peer has freed slots. The record has no limit, although this side has one of
// its own.
func TestEachRunOfFailuresAtPeersLimitIsLoggedOnce(t *testing.T) {
	t.Parallel()
	var log logged
	conf := &quic.Config{MaxIncomingStreams: 2}
	setup{serverConf: conf, guard: &quiclife.Guard{MaxOutgoingStreams: 10, Logger: log.logger()}}.in(t, func(t *testing.T, e ends) {
		for round := range 2 {
			var held []*quiclife.Stream
			for range 2 {
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				held = append(held, s)
			}
			_, err := e.client.OpenStream()
			limit := requireLimitError(t, err)
			require.Zero(t, limit.Limit)
			require.Equal(t, quiclife.LimitPeer, limit.Scope)
			require.Equal(t, round+1, strings.Count(log.String(), "limit reached"), "records")
			for _, s := range held {
				s.Release()
				p, err := e.server.AcceptStream(t.Context())
				require.NoError(t, err)
				p.Release()
			}
			time.Sleep(10 * time.Second) // records of this kind are held back for so long
		}
	})
}

// TestLimitErrorSaysAllItKnows: and nothing that it does not know.
func TestLimitErrorSaysAllItKnows(t *testing.T) {
	oldest := quiclife.StreamInfo{Age: 1500 * time.Microsecond, Send: quiclife.HalfOpen, Receive: quiclife.HalfOpen}
	const first = "the oldest: stream 0 (opened by us 2ms ago, send open, receive open, 0 bytes written, 0 read)"
	for _, c := range []struct {
		err  quiclife.LimitError
		want string
	}{
		{quiclife.LimitError{Scope: quiclife.LimitOutgoing, Open: 1, Opened: 2, Limit: 1, Oldest: oldest}, "this side's limit of bidirectional streams reached: limit 1, 1 open here of 2 opened, " + first},
		{quiclife.LimitError{Scope: quiclife.LimitOutgoing, Unidirectional: true, Opened: 2, Limit: 2}, "this side's limit of unidirectional streams reached: limit 2, 0 open here of 2 opened"},
		{quiclife.LimitError{Scope: quiclife.LimitPeer, Open: 1, Opened: 1, Oldest: oldest}, "the peer's limit of bidirectional streams reached: 1 open here of 1 opened, " + first},
		{quiclife.LimitError{Scope: quiclife.LimitPeer, Opened: 1}, "the peer's limit of bidirectional streams reached: 0 open here of 1 opened, the peer has not ended the others"},
		{quiclife.LimitError{Scope: quiclife.LimitPeer, Open: 1, Opened: 2, Oldest: oldest}, "the peer's limit of bidirectional streams reached: 1 open here of 2 opened, the peer may not have ended the others, " + first},
		{quiclife.LimitError{Scope: quiclife.LimitPeer, Err: &quic.StreamLimitReachedError{}}, "the peer's limit of bidirectional streams reached: 0 open here of 0 opened"},
		{quiclife.LimitError{Scope: quiclife.LimitPeer, Err: context.Canceled}, "the peer's limit of bidirectional streams reached: 0 open here of 0 opened: context canceled"},
		{quiclife.LimitError{Scope: quiclife.LimitStreams, Open: 3, Limit: 3}, "limit of handled streams reached: 3 of 3"},
		{quiclife.LimitError{Scope: quiclife.LimitConns, Open: 1, Limit: 3, Err: context.Canceled}, "limit of connections reached: 1 of 3: context canceled"},
		{quiclife.LimitError{Scope: quiclife.LimitHeap, Open: 4, Limit: 3}, "limit of live heap reached: 4 of 3"},
	} {
		require.EqualError(t, &c.err, "quiclife: "+c.want)
	}
}

// TestLimitErrorHasAttributes: the kind only at limits of streams, and other
// attributes only if they are set.
func TestLimitErrorHasAttributes(t *testing.T) {
	attrs := func(e quiclife.LimitError) (keys []string) {
		for _, a := range e.LogValue().Group() {
			keys = append(keys, a.Key)
		}
		return keys
	}
	for _, scope := range []quiclife.LimitScope{quiclife.LimitPeer, quiclife.LimitOutgoing} {
		require.Equal(t, []string{"scope", "open", "limit", "kind", "opened"}, attrs(quiclife.LimitError{Scope: scope}))
	}
	require.Equal(t, []string{"scope", "open", "limit"}, attrs(quiclife.LimitError{Scope: quiclife.LimitConns}))
	require.Equal(t, []string{"scope", "open", "limit", "oldest", "error"},
		attrs(quiclife.LimitError{Scope: quiclife.LimitConns, Oldest: quiclife.StreamInfo{ID: 4}, Err: context.Canceled}))
}
