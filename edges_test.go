package quiclife_test

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

var longConf = &quic.Config{MaxIdleTimeout: 10 * time.Hour}

// The sweep leaves streams alone whose send half is open. A later one is swept too.
func TestEdgeSweep(t *testing.T) {
	const timeout = 8 * time.Second
	var found leaks
	guard := &quiclife.Guard{HalfCloseTimeout: timeout, OnLeak: found.add}
	setup{guard: guard, clientConf: longConf, serverConf: longConf}.in(t, func(t *testing.T, e ends) {
		live, peer := e.stream(t)
		for n := range 2 {
			s, p := e.stream(t)
			s.Close()
			time.Sleep(timeout + 50*time.Millisecond)
			require.Equal(t, quiclife.HalfAborted, s.Info().Receive)
			require.Len(t, found.list(), n+1)
			time.Sleep(5 * timeout)
			p.Release()
		}
		write(t, live, "alive")
		expect(t, peer, "alive")
		write(t, peer, "alive")
		expect(t, live, "alive")
		live.Release()
		peer.Release()
	})
}

// What was read before Close does not prolong. The sweep looks at quarters.
func TestEdgeMarks(t *testing.T) {
	const timeout = 8 * time.Second
	for _, c := range []struct {
		name  string
		read  time.Duration
		after time.Duration
	}{{"before", -1, timeout}, {"in the middle", timeout / 2, timeout/2 + timeout + timeout/4}, {"late", timeout * 9 / 10, timeout*9/10 + timeout + timeout/4}} {
		t.Run(c.name, func(t *testing.T) {
			guard := &quiclife.Guard{HalfCloseTimeout: timeout}
			setup{guard: guard, clientConf: longConf, serverConf: longConf}.in(t, func(t *testing.T, e ends) {
				s, peer := e.stream(t)
				write(t, peer, "ab")
				if c.read < 0 {
					expect(t, s, "a")
				}
				s.Close()
				start := time.Now()
				if c.read > 0 {
					time.Sleep(c.read)
					expect(t, s, "a")
				}
				for s.Info().Receive == quiclife.HalfOpen {
					time.Sleep(10 * time.Millisecond)
				}
				require.LessOrEqual(t, time.Since(start), c.after+50*time.Millisecond)
				require.GreaterOrEqual(t, time.Since(start), max(c.read, 0)+timeout)
				peer.Release()
			})
		})
	}
	// a blocked Peek is reading, and a Peek that has returned is not
	setup{guard: &quiclife.Guard{HalfCloseTimeout: timeout}, clientConf: longConf, serverConf: longConf}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		s.Close()
		done := make(chan struct{})
		go func() { s.Peek(make([]byte, 1)); close(done) }()
		time.Sleep(10 * timeout)
		require.Equal(t, quiclife.HalfOpen, s.Info().Receive)
		write(t, peer, "x")
		<-done
		time.Sleep(2 * timeout)
		require.Equal(t, quiclife.HalfAborted, s.Info().Receive)
		peer.Release()
	})
	// 0 is 5 minutes
	setup{clientConf: longConf, serverConf: longConf}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		s.Close()
		time.Sleep(5*time.Minute - time.Second)
		require.Equal(t, quiclife.HalfOpen, s.Info().Receive)
		time.Sleep(time.Minute)
		require.Equal(t, quiclife.HalfAborted, s.Info().Receive)
		peer.Release()
	})
}

// Healing. Drop what is held at several times, and open in several ways.
func TestEdgeHeals(t *testing.T) {
	type hold struct{ all []*quiclife.Stream }
	for _, c := range []struct {
		name   string
		guard  *quiclife.Guard
		side   string        // who leaks
		after  time.Duration // when what is held is dropped, after the open has begun to block
		within time.Duration
		poll   bool // with OpenStream
		rounds int
	}{
		{"OpenStreamSync at once", &quiclife.Guard{}, "client", 0, 3 * time.Second, false, 1},
		{"OpenStream only", &quiclife.Guard{}, "client", 0, 3 * time.Second, true, 1},
		{"own limit", &quiclife.Guard{MaxOutgoingStreams: 20}, "client", 0, 3 * time.Second, false, 1},
		{"dropped later", &quiclife.Guard{}, "client", 2500 * time.Millisecond, 8 * time.Second, false, 1},
		{"accepter drops later", &quiclife.Guard{}, "server", 2500 * time.Millisecond, 8 * time.Second, false, 1},
		{"again and again", &quiclife.Guard{}, "client", 0, 5 * time.Second, false, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := &quic.Config{MaxIncomingStreams: 20}
			c.guard.AbandonGrace = time.Millisecond
			sconf := conf
			if c.guard.MaxOutgoingStreams > 0 {
				sconf = &quic.Config{MaxIncomingStreams: 1000}
			}
			e := setup{clientConf: conf, serverConf: sconf, guard: c.guard}.onLoopback(t)
			quiclife.ForgetCollections()
			if c.side == "client" {
				go func() {
					for {
						s, err := e.server.AcceptStream(context.Background())
						if err != nil {
							return
						}
						go func() { io.ReadAll(s); s.Release() }()
					}
				}()
			}
			for range c.rounds {
				h := &hold{}
				func() {
					for len(h.all) < 20 {
						ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
						s, err := e.client.OpenStreamSync(ctx)
						cancel()
						require.NoError(t, err)
						write(t, s, "x")
						if c.side == "client" {
							h.all = append(h.all, s)
						} else {
							p, err := e.server.AcceptStream(t.Context())
							require.NoError(t, err)
							h.all = append(h.all, p)
							s.Release()
						}
					}
				}()
				if c.after == 0 {
					h.all = nil
				} else {
					time.AfterFunc(c.after, func() { h.all = nil })
				}
				begin := time.Now()
				if c.poll {
					for {
						s, err := e.client.OpenStream()
						if err == nil {
							s.Release()
							break
						}
						require.Less(t, time.Since(begin), c.within)
						time.Sleep(time.Millisecond)
					}
				} else {
					ctx, cancel := context.WithTimeout(t.Context(), c.after+c.within)
					s, err := e.client.OpenStreamSync(ctx)
					cancel()
					require.NoError(t, err)
					s.Release()
				}
				time.Sleep(1100 * time.Millisecond) // the retry has ended
				runtime.KeepAlive(h)
			}
			e.client.CloseWithError(0, "")
		})
	}
}

// No collection is asked for when nobody is short of a slot, or nothing is idle.
func TestEdgeNoCollections(t *testing.T) {
	forced := func() uint32 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NumForcedGC
	}
	for _, own := range []bool{false, true} {
		guard := &quiclife.Guard{}
		conf := &quic.Config{MaxIncomingStreams: 1}
		if own {
			conf, guard.MaxOutgoingStreams = nil, 1
		}
		e := setup{serverConf: conf, guard: guard}.onLoopback(t)
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, err = e.client.OpenStreamSync(ctx)
		cancel()
		require.Error(t, err)
		time.Sleep(1500 * time.Millisecond)
		quiclife.ForgetCollections()
		before := forced()
		time.Sleep(2500 * time.Millisecond)
		require.Equal(t, before, forced())
		runtime.KeepAlive(s)
		e.client.CloseWithError(0, "")
	}

	e := setup{serverConf: &quic.Config{MaxIncomingStreams: 1}}.onLoopback(t)
	s, err := e.client.OpenStream()
	require.NoError(t, err)
	go s.Read(make([]byte, 1))
	time.Sleep(20 * time.Millisecond)
	quiclife.ForgetCollections()
	before := forced()
	ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
	_, err = e.client.OpenStreamSync(ctx)
	cancel()
	require.Error(t, err)
	require.Equal(t, before, forced())
	e.client.CloseWithError(0, "")
}

// Nothing written, nothing to wait for.
func TestEdgeDroppedAtOnce(t *testing.T) {
	var found leaks
	setup{guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
		drop(t, e.client, func(*quiclife.Stream) {})
		runtime.GC()
		require.Zero(t, e.client.Stats().Open())
		require.Same(t, e.client, found.list()[0].Conn)
	})
}

// The group is watched as long as it lives, not only once. It needs no calls to us.
func TestEdgeWatching(t *testing.T) {
	var found leaks
	guard := &quiclife.Guard{OnLeak: found.add}
	n := 0
	for range 2 {
		e := setup{guard: guard}.onLoopback(t)
		for range 3 {
			drop(t, e.client, func(*quiclife.Stream) {})
			n++
			for i := 0; len(found.list()) < n; i++ {
				require.Less(t, i, 1000)
				runtime.GC()
				time.Sleep(time.Millisecond)
			}
		}
		e.client.CloseWithError(0, "")
		e.server.CloseWithError(0, "")
		for range 10 { // the sentinel dies, and is not replaced
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
	}
}

// Healing works in a bubble too.
func TestEdgeHealsInBubble(t *testing.T) {
	setup{serverConf: &quic.Config{MaxIncomingStreams: 3}, guard: &quiclife.Guard{}}.in(t, func(t *testing.T, e ends) {
		quiclife.ForgetCollections()
		go func() {
			for {
				s, err := e.server.AcceptStream(context.Background())
				if err != nil {
					return
				}
				go func() { io.ReadAll(s); s.Release() }()
			}
		}()
		for range 3 {
			drop(t, e.client, func(s *quiclife.Stream) { s.Write([]byte("x")) })
		}
		settled()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		s, err := e.client.OpenStreamSync(ctx)
		require.NoError(t, err)
		s.Release()
	})
}

// KeepAlives: a call that is the last use of its handle is not taken for a leak.
// What is short is hard to catch; so many at once, while the collector runs.
func TestEdgeKeepAliveShort(t *testing.T) {
	var found leaks
	e := setup{guard: &quiclife.Guard{OnLeak: found.add, AbandonGrace: time.Nanosecond}}.onLoopback(t)
	collectConstantly(t)
	go func() {
		for {
			s, err := e.server.AcceptStream(context.Background())
			if err != nil {
				return
			}
			s.Release()
		}
	}()
	calls := []func(s *quiclife.Stream){
		(*quiclife.Stream).Release,
		func(s *quiclife.Stream) { s.Reset(1) },
		func(s *quiclife.Stream) { s.Detach().CancelRead(0) },
	}
	for i := range 3000 {
		s, err := e.client.OpenStreamSync(t.Context())
		require.NoError(t, err)
		calls[i%len(calls)](s)
	}
	require.Empty(t, found.list())
	e.client.CloseWithError(0, "")
}
