package quiclife_test

import (
	"context"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// totals returns the counts of s that never fall, by name.
func totals(s quiclife.GuardStats) map[string]int64 {
	counts := make(map[string]int64)
	var add func(prefix string, v reflect.Value)
	add = func(prefix string, v reflect.Value) {
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			switch name {
			case "Open", "Peak", "Limit", "Conns", "Full", "Most", "Oldest", "OpensWaiting", "Handled":
				if prefix == "ConnsRefused." { // its Conns never falls
					break
				}
				continue
			}
			if f := v.Field(i); f.Kind() == reflect.Struct {
				add(prefix+name+".", f)
			} else {
				counts[prefix+name] = f.Int()
			}
		}
	}
	add("", reflect.ValueOf(s))
	return counts
}

// TestGuardStatsNeverFall: while connections come and go under load. At the end
// the counts are exact.
func TestGuardStatsNeverFall(t *testing.T) {
	connections, workers := 200, 8
	if testing.Short() {
		connections = 40
	}
	guard := &quiclife.Guard{Logger: slog.New(slog.DiscardHandler)}
	var opened, openedUni atomic.Int64
	stop := make(chan struct{})
	var sampler sync.WaitGroup
	sampler.Go(func() {
		before := totals(guard.Stats())
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			now := totals(guard.Stats())
			for name, n := range now {
				if n < before[name] {
					t.Errorf("%s fell from %d to %d", name, before[name], n)
				}
			}
			before = now
		}
	})
	next := make(chan int)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for seed := range next {
				e := setup{guard: guard}.onLoopback(t)
				go e.server.Serve(context.Background(), quiclife.Handlers{
					Stream:    func(_ context.Context, s *quiclife.Stream) error { _, err := io.Copy(s, s); return err },
					UniStream: func(_ context.Context, s *quiclife.ReceiveStream) error { _, err := io.Copy(io.Discard, s); return err },
				})
				r := rand.New(rand.NewPCG(uint64(seed), 2))
				for range 20 {
					if r.IntN(4) == 0 {
						if s, err := e.client.OpenUniStream(); err == nil {
							openedUni.Add(1)
							s.Write([]byte("x"))
							if r.IntN(2) == 0 {
								s.Close()
							}
						}
						continue
					}
					s, err := e.client.OpenStream()
					if err != nil {
						continue
					}
					opened.Add(1)
					s.Write([]byte("x"))
					switch r.IntN(3) {
					case 0:
						s.Close()
						io.ReadAll(s)
					case 1:
						s.Release()
					}
				}
				e.client.CloseWithError(0, "") // with streams open
				<-e.server.Context().Done()
			}
		})
	}
	for i := range connections {
		next <- i
	}
	close(next)
	all.Wait()
	eventually(t, func() bool { return guard.Stats().Conns == 0 && guard.Stats().Open() == 0 })
	close(stop)
	sampler.Wait()
	s := guard.Stats()
	require.Equal(t, opened.Load(), s.Outgoing.Opened, "bidirectional streams that were opened")
	require.Equal(t, openedUni.Load(), s.OutgoingUni.Opened, "unidirectional streams that were opened")
	require.EqualValues(t, 2*connections, s.ConnsOpened)
	requireBalance(t, s.Stats)
}

// TestGuardStats checks the counts about open connections.
func TestGuardStats(t *testing.T) {
	guard := &quiclife.Guard{MaxOutgoingStreams: 2}
	setup{guard: guard, serverConf: &quic.Config{MaxIncomingUniStreams: 1}}.in(t, func(t *testing.T, e ends) {
		first, _ := e.stream(t)
		time.Sleep(3 * time.Second)
		second, _ := e.stream(t)
		uni, err := e.client.OpenUniStream()
		require.NoError(t, err)

		s := guard.Stats()
		require.EqualValues(t, 2, s.Conns)
		require.Equal(t, [3]int64{2, 1, 2}, [3]int64{s.Outgoing.Open, s.OutgoingUni.Open, s.Incoming.Open}, "open streams")
		require.EqualValues(t, 2, s.Most.Outgoing, "open on the connection that has most")
		require.EqualValues(t, 2, s.Most.Incoming)
		require.EqualValues(t, 4, s.Outgoing.Limit, "of two connections")
		require.EqualValues(t, 1, s.Full.Outgoing, "connections at our limit")
		require.Zero(t, s.Full.Incoming)
		require.GreaterOrEqual(t, s.Oldest.Outgoing, 3*time.Second)
		require.Zero(t, s.Oldest.IncomingUni, "none of these is open")

		waited := make(chan error)
		go func() {
			third, err := e.client.OpenStreamSync(context.Background())
			if err == nil {
				third.Release()
			}
			waited <- err
		}()
		time.Sleep(2 * time.Second)
		require.EqualValues(t, 1, guard.Stats().OpensWaiting)
		first.Release()
		require.NoError(t, <-waited)
		s = guard.Stats()
		require.Zero(t, s.OpensWaiting)
		require.Equal(t, 2*time.Second, s.OpenWait)
		require.EqualValues(t, 2, s.Outgoing.Released)
		require.Zero(t, s.LimitErrors, "an open that waited has not failed")

		_, err = e.client.OpenUniStream()
		require.Error(t, err)
		second2, err := e.client.OpenStream()
		require.NoError(t, err)
		_, err = e.client.OpenStream()
		require.Error(t, err)
		require.Equal(t, quiclife.LimitCounts{Peer: 1, Outgoing: 1}, guard.Stats().LimitErrors)
		second2.Release()
		second.Release()
		uni.Release()
	})
}

// TestStreamOfEndedConnCountsOnce: a stream that was opened just before the
// connection ended is in the totals, even if the connection was already folded
// into them.
func TestStreamOfEndedConnCountsOnce(t *testing.T) {
	guard := &quiclife.Guard{}
	setup{guard: guard}.in(t, func(t *testing.T, e ends) {
		raw, err := e.rawClient.OpenStream()
		require.NoError(t, err)
		e.client.CloseWithError(0, "")
		quiclife.Adopt(e.client, raw)
		s := guard.Stats()
		require.EqualValues(t, 1, s.Outgoing.Opened)
		require.EqualValues(t, 1, s.Outgoing.Reset)
		require.Zero(t, s.Open())
	})
}

// TestOutcomesAreToldApart: streams that this side released are not counted as
// reset, and an EOF that was read for the program is counted.
func TestOutcomesAreToldApart(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(s, peer *quiclife.Stream)
		want quiclife.StreamStats
	}{
		"Release":             {func(s, peer *quiclife.Stream) { s.Release() }, quiclife.StreamStats{Released: 1}},
		"Close, Release":      {func(s, peer *quiclife.Stream) { s.Close(); s.Release() }, quiclife.StreamStats{Released: 1}},
		"NetConn.Close":       {func(s, peer *quiclife.Stream) { s.NetConn().Close() }, quiclife.StreamStats{Released: 1}},
		"Reset":               {func(s, peer *quiclife.Stream) { s.Reset(1) }, quiclife.StreamStats{Reset: 1}},
		"CancelRead, Release": {func(s, peer *quiclife.Stream) { s.CancelRead(1); s.Release() }, quiclife.StreamStats{Reset: 1}},
		"the peer's reset, Release": {func(s, peer *quiclife.Stream) {
			peer.Reset(1)
			settled()
			s.Read(make([]byte, 1))
			s.Release()
		}, quiclife.StreamStats{Reset: 1}},
		"all read, Close": {func(s, peer *quiclife.Stream) {
			peer.Close()
			io.ReadAll(s)
			s.Close()
			s.Release()
		}, quiclife.StreamStats{Finished: 1}},
		"Close, read to the last byte": {func(s, peer *quiclife.Stream) {
			peer.Write([]byte("x"))
			settled() // so that the FIN comes in a frame of its own
			peer.Close()
			s.Close()
			s.Read(make([]byte, 1))
			settled()
		}, quiclife.StreamStats{Finished: 1, EOFs: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			setup{}.in(t, func(t *testing.T, e ends) {
				s, peer := e.stream(t)
				c.do(s, peer)
				got := e.client.Stats().Outgoing
				c.want.Opened, c.want.Peak = 1, 1
				require.Equal(t, c.want, got)
				peer.Release()
			})
		})
	}
}

// TestGuardStatsCountWhatFailsAtEachLimit: streams that waited too long for
// their turn, and streams and connections that were refused above MaxHeap.
func TestGuardStatsCountWhatFailsAtEachLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		guard := &quiclife.Guard{MaxStreams: 1, Logger: slog.New(slog.DiscardHandler)}
		clients, stop := star(t, guard, nil, 1, quiclife.Handlers{Stream: func(_ context.Context, s *quiclife.Stream) error {
			_, err := io.Copy(io.Discard, s)
			return err
		}})
		held, err := clients[0].OpenStream()
		require.NoError(t, err)
		write(t, held, "x")
		settled()
		require.Error(t, askFor(t.Context(), clients[0]), "nothing is handled beside the first")
		require.Equal(t, quiclife.LimitCounts{Streams: 1}, guard.Stats().LimitErrors)
		held.Release()
		stop()
	})
	guard := &quiclife.Guard{}
	setup{guard: guard}.in(t, func(t *testing.T, e ends) {
		defer quiclife.SetLiveHeap(func() int64 { return 2 })()
		guard.MaxHeap = 1
		_, err := e.client.OpenStream()
		require.Error(t, err)
		require.Equal(t, quiclife.LimitCounts{Heap: 1}, guard.Stats().LimitErrors)
	})
}

// TestHandledCountsHandlersThatHang: with MaxStreams, until they return, even if
// their stream was reset.
func TestHandledCountsHandlersThatHang(t *testing.T) {
	bubble(t, func(t *testing.T) {
		guard := &quiclife.Guard{MaxStreams: 2, IdleTimeout: time.Second, Logger: slog.New(slog.DiscardHandler)}
		release := make(chan struct{})
		clients, stop := star(t, guard, nil, 1, quiclife.Handlers{Stream: func(context.Context, *quiclife.Stream) error {
			<-release
			return nil
		}})
		s, err := clients[0].OpenStream()
		require.NoError(t, err)
		write(t, s, "x")
		time.Sleep(2 * time.Second)
		stats := guard.Stats()
		require.EqualValues(t, 1, stats.Leaks.Idle, "the stream was reset")
		require.Zero(t, stats.Incoming.Open)
		require.EqualValues(t, 1, stats.Handled)
		close(release)
		settled()
		require.Zero(t, guard.Stats().Handled)
		s.Release()
		stop()
	})
}

// TestGuardStatsAreExact: a dropped stream, and one whose connection has ended,
// show at once.
func TestGuardStatsAreExact(t *testing.T) {
	guard := &quiclife.Guard{AbandonGrace: -1}
	setup{guard: guard}.in(t, func(t *testing.T, e ends) {
		time.Sleep(time.Second)
		drop(t, e.client, func(*quiclife.Stream) {})
		time.Sleep(time.Minute / 6)
		require.Equal(t, time.Minute/6, guard.Stats().Oldest.Outgoing, "since it was opened")
		runtime.GC()
		require.EqualValues(t, 1, guard.Stats().Outgoing.Reclaimed, "dropped")
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		keep(t, s)
		quiclife.EndUnnoticed(e.client)
		stats := guard.Stats()
		require.EqualValues(t, 1, stats.Outgoing.Reset, "ended with the connection")
		require.EqualValues(t, 1, stats.Conns, "only the server's is left")
	})
}

// TestSlotIsTakenUntilItsCreditIsBack: a stream that has ended takes a slot
// until its credit is returned.
func TestSlotIsTakenUntilItsCreditIsBack(t *testing.T) {
	guard := &quiclife.Guard{}
	setup{guard: guard, serverConf: &quic.Config{MaxIncomingStreams: 1, RequireStreamCreditRelease: true}}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		client.Close()
		server.Close()
		io.ReadAll(client)
		io.ReadAll(server)
		settled()
		require.Zero(t, e.server.Stats().Open())
		require.EqualValues(t, 1, guard.Stats().Full.Incoming, "connections without a slot, while the credit is owed")
		for range 2 { // the second has no effect
			server.ReleaseStreamCredit()
			require.Zero(t, guard.Stats().Full.Incoming, "connections without a slot")
		}
		client, server = e.stream(t)
		keep(t, server)
		require.EqualValues(t, 1, guard.Stats().Full.Incoming, "connections without a slot, while the next is open")
		server.ReleaseStreamCredit()
		client.Close()
		server.Close()
		io.ReadAll(client)
		io.ReadAll(server)
		settled()
		require.Zero(t, guard.Stats().Full.Incoming, "connections without a slot, though the credit was returned before the end")
	})
}

// TestLimitsOfManyConnectionsAddUp: even limits as high as QUIC allows.
func TestLimitsOfManyConnectionsAddUp(t *testing.T) {
	guard := &quiclife.Guard{}
	conf := &quic.Config{MaxIncomingStreams: math.MaxInt64}
	setup{guard: guard, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		for range 8 { // each has its own streams
			guard.Wrap(e.rawServer, conf)
		}
		require.Greater(t, guard.Stats().Incoming.Limit, int64(1)<<60)
	})
}

// TestConnectionIsFullWhileItsOpensFail: at the peer's limit, even if none
// waits.
func TestConnectionIsFullWhileItsOpensFail(t *testing.T) {
	guard := &quiclife.Guard{}
	setup{guard: guard, serverConf: &quic.Config{MaxIncomingStreams: 1}}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		require.Zero(t, guard.Stats().Full.Outgoing)
		_, err := e.client.OpenStream()
		require.Error(t, err)
		require.EqualValues(t, 1, guard.Stats().Full.Outgoing)
		time.Sleep(2 * time.Second)
		require.Zero(t, guard.Stats().Full.Outgoing, "nobody has tried lately")
		s.Release()
		peer.Release()
	})
}
