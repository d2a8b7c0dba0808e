package quiclife_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// dropUni opens a unidirectional stream, writes to it, and forgets it.
//
//go:noinline
func dropUni(ctx context.Context, c *quiclife.Conn) error {
	s, err := c.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	_, err = io.WriteString(s, "settings")
	return err
}

// acceptOnce accepts a unidirectional stream, reads its first message, and
// forgets it.
//
//go:noinline
func acceptOnce(ctx context.Context, c *quiclife.Conn) error {
	s, err := c.AcceptUniStream(ctx)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(s, make([]byte, len("settings")))
	return err
}

// readToTheError is a peer whose application does as it should.
func readToTheError(c *quiclife.Conn) {
	for {
		s, err := c.AcceptUniStream(context.Background())
		if err != nil {
			return
		}
		go func() {
			io.Copy(io.Discard, s)
			s.Release()
		}()
	}
}

// TestLeakedUniStreamsNeverBlockOpens: a program that opens, writes and drops
// unidirectional streams at a limit of 100 goes on.
func TestLeakedUniStreamsNeverBlockOpens(t *testing.T) {
	e := setup{guard: &quiclife.Guard{}}.onLoopback(t)
	quiclife.ForgetCollections()
	go readToTheError(e.server)
	n := 10_000
	if testing.Short() {
		n = 1000
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	start := time.Now()
	for i := range n {
		require.NoError(t, dropUni(ctx, e.client), "stream %d", i)
	}
	t.Logf("%.0f streams a second", float64(n)/time.Since(start).Seconds())
	stats := e.client.Stats().OutgoingUni
	require.LessOrEqual(t, stats.Open, int64(100))
	require.Equal(t, stats.Opened-stats.Open, stats.Reclaimed)
	e.client.CloseWithError(0, "")
}

// TestServerThatDropsEveryStreamServesOn: a server that answers and forgets
// each stream, at a limit of 100.
func TestServerThatDropsEveryStreamServesOn(t *testing.T) {
	e := setup{guard: &quiclife.Guard{}}.onLoopback(t)
	quiclife.ForgetCollections()
	go func() {
		for {
			s, err := e.server.AcceptStream(context.Background())
			if err != nil {
				return
			}
			go func() {
				io.ReadAll(s)
				s.Write([]byte("answer"))
			}()
		}
	}()
	n := 5000
	if testing.Short() {
		n = 1000
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	start := time.Now()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for range n / 100 {
				s, err := e.client.OpenStreamSync(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				s.Write([]byte("request"))
				s.Close()
				if _, err := io.ReadFull(s, make([]byte, len("answer"))); err != nil {
					t.Error(err)
				}
				s.Release()
			}
		})
	}
	wg.Wait()
	t.Logf("%.0f streams a second", float64(n)/time.Since(start).Seconds())
	e.client.CloseWithError(0, "")
}

// TestStalledWindowIsDrained: dropped streams whose unread data has filled the
// connection's window do not stop the others, though no slot is short and the
// program would not collect garbage by itself.
func TestStalledWindowIsDrained(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(2000))
	for _, uni := range []bool{false, true} {
		t.Run(fmt.Sprintf("unidirectional %v", uni), func(t *testing.T) {
			const window = 64 << 10
			conf := &quic.Config{InitialStreamReceiveWindow: window / 4, MaxStreamReceiveWindow: window / 4, InitialConnectionReceiveWindow: window, MaxConnectionReceiveWindow: window}
			e := setup{guard: &quiclife.Guard{}, serverConf: conf}.onLoopback(t)
			quiclife.ForgetCollections()
			runtime.GC()
			var held []io.Writer // the opener is no leaker
			open := func() io.Writer {
				if uni {
					s, err := e.client.OpenUniStream()
					require.NoError(t, err)
					return s
				}
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				return s
			}
			accept := func() io.Reader {
				if uni {
					s, err := e.server.AcceptUniStream(t.Context())
					require.NoError(t, err)
					return s
				}
				s, err := e.server.AcceptStream(t.Context())
				require.NoError(t, err)
				return s
			}
			for range 4 {
				w := open()
				held = append(held, w)
				go w.Write(make([]byte, window/4))
				accept()
			}
			w := open()
			go w.Write([]byte("x"))
			start := time.Now()
			_, err := io.ReadFull(accept(), make([]byte, 1))
			require.NoError(t, err)
			require.Less(t, time.Since(start), 3*time.Second)
			t.Log(time.Since(start))
			e.client.CloseWithError(0, "")
			runtime.KeepAlive(held)
		})
	}
}

// TestDroppedControlStreamsLive: a unidirectional stream that was written once,
// or read once, and forgotten stays open through collections, for as long as
// nobody is in want of a stream.
func TestDroppedControlStreamsLive(t *testing.T) {
	var found leaks
	setup{guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
		for range 5 {
			require.NoError(t, dropUni(t.Context(), e.client))
			require.NoError(t, dropUni(t.Context(), e.server))
			require.NoError(t, acceptOnce(t.Context(), e.client))
			require.NoError(t, acceptOnce(t.Context(), e.server))
		}
		for range 10 {
			runtime.GC()
			for _, c := range []*quiclife.Conn{e.client, e.server} {
				for info := range c.Streams() {
					require.True(t, info.Dropped, "%v", info)
				}
				stats := c.Stats()
				require.EqualValues(t, 5, stats.OutgoingUni.Open)
				require.EqualValues(t, 5, stats.IncomingUni.Open)
			}
			settled()
		}
		require.Empty(t, found.list())
		require.NoError(t, context.Cause(e.client.Context()))
	})
}

// TestDroppedUniStreamsThatThePeerHasEnded: nobody needs them any more, so they
// are not kept until there is a shortage.
func TestDroppedUniStreamsThatThePeerHasEnded(t *testing.T) {
	setup{guard: &quiclife.Guard{}}.in(t, func(t *testing.T, e ends) {
		require.NoError(t, dropUni(t.Context(), e.client))
		stopped, err := e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		stopped.Release()
		for _, end := range []func(*quiclife.SendStream){
			func(s *quiclife.SendStream) { s.Close() },
			func(s *quiclife.SendStream) { s.CancelWrite(1) },
		} {
			s, err := e.server.OpenUniStream()
			require.NoError(t, err)
			write(t, s, "settings, and more that nobody reads")
			require.NoError(t, acceptOnce(t.Context(), e.client))
			end(s)
		}
		settled()
		for range 3 {
			runtime.GC()
			e.client.Stats()
			settled()
		}
		e.requireNothingLeft(t)
	})
}

// TestDroppedControlStreamsAreEndedLast: in a shortage, all dropped streams are
// ended but the first three, and these only if that did not help.
func TestDroppedControlStreamsAreEndedLast(t *testing.T) {
	for _, peerLetsGo := range []bool{true, false} {
		setup{guard: &quiclife.Guard{}, serverConf: &quic.Config{MaxIncomingUniStreams: 10}}.in(t, func(t *testing.T, e ends) {
			for range 10 {
				require.NoError(t, dropUni(t.Context(), e.client))
			}
			if peerLetsGo {
				go readToTheError(e.server)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := dropUni(ctx, e.client)
			control := 0
			for info := range e.client.Streams() {
				if info.ID>>2 < 3 {
					control++
				}
			}
			if peerLetsGo {
				require.NoError(t, err)
				require.Equal(t, 3, control)
				require.NoError(t, shutdown(e.client, 10*time.Second))
			} else {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Zero(t, control)
			}
		})
	}
}

// TestCrowdedIncomingUniStreamsAreEnded: once three quarters of the slots are
// taken, dropped incoming streams are ended, so that the peer goes on.
func TestCrowdedIncomingUniStreamsAreEnded(t *testing.T) {
	var found leaks
	guard := &quiclife.Guard{OnLeak: found.add}
	setup{guard: guard, serverConf: &quic.Config{MaxIncomingUniStreams: 8}}.in(t, func(t *testing.T, e ends) {
		var held []*quiclife.SendStream
		open := func() {
			s, err := e.client.OpenUniStreamSync(t.Context())
			require.NoError(t, err)
			write(t, s, "settings")
			held = append(held, s)
			require.NoError(t, acceptOnce(t.Context(), e.server))
		}
		for range 5 {
			open()
		}
		runtime.GC()
		require.EqualValues(t, 5, e.server.Stats().IncomingUni.Open)
		settled()
		require.Empty(t, found.list())
		open()
		settled()
		require.NotEmpty(t, found.list(), "6 of 8 are taken")
		for range 20 {
			open()
			settled()
			for len(held) > 3 && held[3].Context().Err() != nil { // told to stop
				held[3].Release()
				held = append(held[:3], held[4:]...)
			}
		}
		require.LessOrEqual(t, e.server.Stats().IncomingUni.Open, int64(8))
		control := 0
		for info := range e.server.Streams() {
			if info.ID>>2 < 3 {
				control++
			}
		}
		require.Equal(t, 3, control)
		for _, s := range held {
			s.Release()
		}
	})
}

// TestDrainedStreamsAreEndedInAShortage: what a stall has had drained may be in
// the way later.
func TestDrainedStreamsAreEndedInAShortage(t *testing.T) {
	const window = 64 << 10
	conf := &quic.Config{MaxIncomingUniStreams: 8, InitialConnectionReceiveWindow: window, MaxConnectionReceiveWindow: window}
	setup{guard: &quiclife.Guard{}, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		open := func(size int) *quiclife.SendStream {
			s, err := e.client.OpenUniStreamSync(t.Context())
			require.NoError(t, err)
			go s.Write(make([]byte, size))
			_, err = e.server.AcceptUniStream(t.Context())
			require.NoError(t, err)
			return s
		}
		var held []*quiclife.SendStream
		for range 4 {
			held = append(held, open(window/4))
		}
		go e.server.AcceptStream(t.Context()) // somebody who waits
		time.Sleep(5 * time.Second)
		for range 4 {
			held = append(held, open(1))
		}
		time.Sleep(5 * time.Second)
		for info := range e.server.Streams() {
			require.NotEqual(t, 3, int(info.ID>>2), "the first that is no control stream: %v", info)
		}
		for _, s := range held {
			s.Release()
		}
		e.server.CloseWithError(0, "")
	})
}

// TestHTTP3Shape: connections as quic-go's http3 uses them, with control and
// QPACK streams that are written or read once and dropped in both directions,
// live through a request of 5 s and constant collections. Either end closes
// the connection when a control stream ends.
func TestHTTP3Shape(t *testing.T) {
	e := setup{guard: &quiclife.Guard{AbandonGrace: -1}}.onLoopback(t)
	collectConstantly(t)
	const closedCriticalStream = 0x104
	control := func(c *quiclife.Conn) {
		for range 3 { // control, QPACK encoder, QPACK decoder
			if err := dropUni(context.Background(), c); err != nil {
				t.Error(err)
			}
		}
		first := true
		for {
			s, err := c.AcceptUniStream(context.Background())
			if err != nil {
				return
			}
			go func(watched bool) {
				io.ReadFull(s, make([]byte, len("settings")))
				if !watched {
					return // http3 reads no more of a QPACK stream
				}
				if _, err := s.Read(make([]byte, 1)); c.Context().Err() == nil {
					t.Errorf("control stream ended: %v", err)
					c.CloseWithError(closedCriticalStream, "")
				}
			}(first)
			first = false
		}
	}
	go control(e.client)
	go control(e.server)
	go func() {
		for {
			s, err := e.server.AcceptStream(context.Background())
			if err != nil {
				return
			}
			go func() {
				io.ReadAll(s)
				time.Sleep(5 * time.Second)
				s.Write([]byte("answer"))
				s.Close()
			}()
		}
	}()
	request := func() error {
		s, err := e.client.OpenStreamSync(context.Background())
		if err != nil {
			return err
		}
		defer s.Release()
		s.Write([]byte("request"))
		s.Close()
		_, err = io.ReadAll(s)
		return err
	}
	require.NoError(t, request())
	require.NoError(t, context.Cause(e.client.Context()))
	require.NoError(t, context.Cause(e.server.Context()))
	for _, c := range []*quiclife.Conn{e.client, e.server} {
		require.EqualValues(t, 3, c.Stats().OutgoingUni.Open)
		require.EqualValues(t, 3, c.Stats().IncomingUni.Open)
	}
	e.client.CloseWithError(0, "")
}

// TestShutdownBesideDroppedControlStreams: nobody will end them, and Shutdown
// does not wait for that.
func TestShutdownBesideDroppedControlStreams(t *testing.T) {
	var found leaks
	setup{guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
		for _, c := range []*quiclife.Conn{e.client, e.server} {
			for range 3 {
				require.NoError(t, dropUni(t.Context(), c))
			}
		}
		for range 3 {
			require.NoError(t, acceptOnce(t.Context(), e.client))
			require.NoError(t, acceptOnce(t.Context(), e.server))
		}
		settled()
		start := time.Now()
		require.NoError(t, e.client.Shutdown(t.Context(), 0, ""))
		require.Less(t, time.Since(start), time.Second)
		require.Empty(t, found.list())
	})
	setup{}.in(t, func(t *testing.T, e ends) { // nor are they among what it had to cut
		require.NoError(t, dropUni(t.Context(), e.client))
		client, _ := e.stream(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var cut *quiclife.ShutdownError
		require.ErrorAs(t, e.client.Shutdown(ctx, 0, ""), &cut)
		require.Len(t, cut.Streams, 1)
		require.Equal(t, client.StreamID(), cut.Streams[0].ID)
	})
}

// TestDroppedStreamsAtOwnLimitComeBack: dropped streams are looked for at every
// limit, however the program opens, also when it only polls.
func TestDroppedStreamsAtOwnLimitComeBack(t *testing.T) {
	for _, c := range []struct {
		name  string
		guard *quiclife.Guard
	}{
		{"MaxOutgoingStreams", &quiclife.Guard{MaxOutgoingStreams: 10}},
		{"MaxStreams", &quiclife.Guard{MaxStreams: 10}},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup{guard: c.guard}.in(t, func(t *testing.T, e ends) {
				for range 10 {
					drop(t, e.client, func(*quiclife.Stream) {})
				}
				for range 5000 {
					s, err := e.client.OpenStream()
					if err == nil {
						s.Release()
						return
					}
					require.ErrorAs(t, err, new(*quiclife.LimitError))
					time.Sleep(time.Millisecond)
				}
				require.Fail(t, "no stream came back in 5 s")
			})
		})
	}
}

// TestDroppedUncreditedStreamsComeBack: streams that have ended but owe their
// credit hold slots too. When they are dropped, a collection is asked for.
func TestDroppedUncreditedStreamsComeBack(t *testing.T) {
	conf := &quic.Config{MaxIncomingStreams: 4, RequireStreamCreditRelease: true}
	guard := &quiclife.Guard{}
	setup{guard: guard, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		for range 4 {
			func() {
				client, server := e.stream(t)
				client.Release()
				server.Close()
				io.ReadAll(server)
			}()
		}
		require.Zero(t, e.server.Stats().Open())
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		s, err := e.client.OpenStreamSync(ctx)
		require.NoError(t, err)
		s.Release()
	})
}

// TestNoStopSending: what is forgotten is drained, and the peer, which takes
// STOP_SENDING for an error, sees none.
func TestNoStopSending(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(t *testing.T, e ends, server *quiclife.Stream) // has the server's stream end
	}{
		{"dropped", func(t *testing.T, e ends, server *quiclife.Stream) {
			server.Close()
		}},
		{"half-closed", func(t *testing.T, e ends, server *quiclife.Stream) {
			server.Close()
			time.Sleep(3 * time.Second)
			_, err := server.Read(make([]byte, 1))
			require.ErrorIs(t, err, &quiclife.StreamError{StreamID: server.StreamID(), ErrorCode: 7})
			require.NoError(t, server.SetReadDeadline(time.Time{}))
		}},
		{"idle while a Read waits", func(t *testing.T, e ends, server *quiclife.Stream) {
			_, err := server.Read(make([]byte, 1))
			require.ErrorIs(t, err, &quiclife.StreamError{StreamID: server.StreamID(), ErrorCode: 8})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			guard := &quiclife.Guard{NoStopSending: true, HalfCloseTimeout: 2 * time.Second, Codes: quiclife.Codes{HalfClosed: 7, Idle: 8}}
			if c.name == "idle while a Read waits" {
				guard.IdleTimeout = 2 * time.Second
			}
			clientGuard := &quiclife.Guard{HalfCloseTimeout: -1}
			setup{guard: guard}.in(t, func(t *testing.T, e ends) {
				e.client = clientGuard.Wrap(e.rawClient, nil)
				client, server := e.stream(t)
				func() { c.end(t, e, server) }()
				server = nil
				for range 5 {
					runtime.GC()
					e.server.Stats()
					settled()
				}
				write(t, client, string(make([]byte, 100_000))) // more than a window would need draining
				for range 3 {
					write(t, client, string(make([]byte, 400_000)))
				}
				require.EqualValues(t, 1, e.server.Stats().Incoming.Open)
				require.NoError(t, client.Close())
				io.ReadAll(client)
				settled()
				settled()
				stats := e.server.Stats().Incoming
				require.Zero(t, stats.Open)
				require.EqualValues(t, 1, stats.Reclaimed)
				e.requireNothingLeft(t)
			})
		})
	}
}

// TestNoStopSendingReturnsCredit: a stream that is drained because its time was
// up holds no slot once it has ended, though the program still holds it.
func TestNoStopSendingReturnsCredit(t *testing.T) {
	guard := &quiclife.Guard{NoStopSending: true, HalfCloseTimeout: 2 * time.Second}
	clientGuard := &quiclife.Guard{HalfCloseTimeout: -1}
	conf := &quic.Config{MaxIncomingStreams: 1, RequireStreamCreditRelease: true}
	setup{guard: guard, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		e.client = clientGuard.Wrap(e.rawClient, nil)
		client, server := e.stream(t)
		keep(t, server)
		server.Close()
		time.Sleep(3 * time.Second)
		client.Close()
		io.ReadAll(client)
		settled()
		settled()
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		s.Release()
	})
}

// TestGraceIsShortInAShortage: who waits for a slot does not wait for
// AbandonGrace, and yet what was written arrives, though a packet is lost.
func TestGraceIsShortInAShortage(t *testing.T) {
	var lose atomic.Bool
	net := quictest.Net{Latency: 10 * time.Millisecond, Drop: func(simnet.Packet) bool { return lose.CompareAndSwap(true, false) }}
	guard := &quiclife.Guard{MaxOutgoingStreams: 1, AbandonGrace: time.Minute}
	setup{net: net, guard: guard}.in(t, func(t *testing.T, e ends) {
		settled()
		lose.Store(true)
		drop(t, e.client, func(s *quiclife.Stream) { s.Write([]byte("message")) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s, err := e.client.OpenStreamSync(ctx)
		require.NoError(t, err)
		s.Release()
		in, err := e.server.AcceptStream(t.Context())
		require.NoError(t, err)
		expect(t, in, "message")
		in.Release()
	})
}

// TestCrowdedSlotsComeBackAtOnce: an accepter that drops streams does not wait
// for a timer before it takes them back.
func TestCrowdedSlotsComeBackAtOnce(t *testing.T) {
	setup{serverConf: &quic.Config{MaxIncomingStreams: 4}}.in(t, func(t *testing.T, e ends) {
		go func() {
			for {
				if _, err := e.server.AcceptStream(context.Background()); err != nil {
					return
				}
			}
		}()
		start := time.Now()
		for range 40 {
			s, err := e.rawClient.OpenStreamSync(t.Context())
			require.NoError(t, err)
			s.Write([]byte("x"))
			s.CancelWrite(1)
			s.CancelRead(1)
		}
		require.Less(t, time.Since(start), time.Second)
		e.server.CloseWithError(0, "")
	})
}

// TestStallIsSeenWhoeverWaits: dropped streams with unread data have filled the
// connection's window, after a long time of rest. They are drained, unless
// leaks are only to be reported.
func TestStallIsSeenWhoeverWaits(t *testing.T) {
	const window = 64 << 10
	for _, c := range []struct {
		name  string
		wait  func(*quiclife.Conn, *quiclife.Stream)
		guard *quiclife.Guard
	}{
		{"Read", func(_ *quiclife.Conn, s *quiclife.Stream) { s.Read(make([]byte, 1)) }, &quiclife.Guard{}},
		{"Write", func(_ *quiclife.Conn, s *quiclife.Stream) { s.Write(make([]byte, 4<<20)) }, &quiclife.Guard{}},
		{"Accept", func(c *quiclife.Conn, _ *quiclife.Stream) { c.AcceptStream(context.Background()) }, &quiclife.Guard{}},
		{"ReportOnly", func(_ *quiclife.Conn, s *quiclife.Stream) { s.Read(make([]byte, 1)) }, &quiclife.Guard{ReportOnly: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := &quic.Config{InitialConnectionReceiveWindow: window, MaxConnectionReceiveWindow: window, MaxIdleTimeout: time.Hour, KeepAlivePeriod: time.Minute}
			setup{serverConf: conf, clientConf: &quic.Config{MaxIdleTimeout: time.Hour}, guard: c.guard}.in(t, func(t *testing.T, e ends) {
				client, server := e.stream(t)
				keep(t, client)
				keep(t, server)
				go c.wait(e.server, server)
				time.Sleep(10 * time.Minute)
				for range 4 {
					s, err := e.client.OpenUniStream()
					require.NoError(t, err)
					keep(t, s)
					go s.Write(make([]byte, window/4))
					_, err = e.server.AcceptUniStream(t.Context())
					require.NoError(t, err)
				}
				written := make(chan error, 1)
				go func() {
					s, err := e.client.OpenUniStream()
					if err == nil {
						_, err = s.Write(make([]byte, window/4))
					}
					written <- err
				}()
				time.Sleep(5 * time.Second)
				if c.guard.ReportOnly {
					require.Empty(t, written)
				} else {
					require.NotEmpty(t, written)
					require.NoError(t, <-written)
				}
				e.client.CloseWithError(0, "")
				e.server.CloseWithError(0, "")
			})
		})
	}
}

// TestShutdownDrainsDroppedStreams: what peers send on dropped streams is taken
// while Shutdown waits for others.
func TestShutdownDrainsDroppedStreams(t *testing.T) {
	const window = 16 << 10
	conf := &quic.Config{InitialStreamReceiveWindow: window, MaxStreamReceiveWindow: window}
	setup{serverConf: conf}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		uni, err := e.client.OpenUniStream()
		require.NoError(t, err)
		written := make(chan error, 1)
		go func() {
			_, err := uni.Write(make([]byte, 2*window))
			written <- err
		}()
		_, err = e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		down := make(chan error, 1)
		go func() { down <- shutdown(e.server, time.Minute) }()
		time.Sleep(5 * time.Second)
		require.NotEmpty(t, written)
		require.NoError(t, <-written)
		uni.Release()
		client.Release()
		server.Release()
		require.NoError(t, <-down)
	})
}

// TestOpenThatWaitsAsksForFewCollections: those that find nothing become rare.
func TestOpenThatWaitsAsksForFewCollections(t *testing.T) {
	conf := &quic.Config{MaxIncomingStreams: 1, MaxIdleTimeout: time.Hour}
	setup{serverConf: conf, clientConf: conf}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		keep(t, client)
		keep(t, server)
		go e.client.OpenStreamSync(context.Background())
		time.Sleep(time.Minute)
		for _, c := range []*quiclife.Conn{e.client, e.server} {
			n := quiclife.CollectionsAsked(c)
			require.Positive(t, n)
			require.LessOrEqual(t, n, 12, "after 0.1, 0.2, 0.4 ... s")
		}
		e.client.CloseWithError(0, "")
	})
}

// TestIdleConnectionsAskForFewCollections: a connection at rest with calls that
// wait and halves that nobody reads looks like a stalled one.
func TestIdleConnectionsAskForFewCollections(t *testing.T) {
	setup{serverConf: &quic.Config{MaxIdleTimeout: time.Hour, KeepAlivePeriod: time.Minute}, guard: &quiclife.Guard{HalfCloseTimeout: -1}}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		go e.server.AcceptStream(t.Context())
		go client.Read(make([]byte, 1))
		asked := quiclife.CollectionsAsked(e.server)
		time.Sleep(10 * time.Minute)
		n := quiclife.CollectionsAsked(e.server) - asked
		require.Positive(t, n)
		require.LessOrEqual(t, n, 12, "after 1, 2, 4 ... 120 s")
		runtime.KeepAlive(server)
		e.server.CloseWithError(0, "")
	})
}

// TestStallIsSeenThoughWhatBlocksBeganLongBefore: an Accept has waited for
// seconds when a Read returns, and its stream is dropped with unread data.
func TestStallIsSeenThoughWhatBlocksBeganLongBefore(t *testing.T) {
	const window = 64 << 10
	for _, way := range []string{"Read", "Peek", "Accept", "Open"} {
		conf := &quic.Config{InitialConnectionReceiveWindow: window, MaxConnectionReceiveWindow: window, MaxIdleTimeout: time.Hour}
		setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
			filler, victim := e.stream(t)
			other, last := e.stream(t)
			read := make(chan struct{})
			go func() {
				defer close(read)
				last.Read(make([]byte, 1)) // it waits from the start
			}()
			switch way {
			case "Read":
				go victim.Read(make([]byte, 10))
			case "Peek":
				go victim.Peek(make([]byte, 10))
			case "Accept":
				go e.server.AcceptStream(t.Context())
			}
			time.Sleep(5 * time.Second)
			switch way {
			case "Accept":
				victim.Release()
				filler.Release()
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				filler = s
			case "Open":
				victim.Release()
				filler.Release()
				func() {
					s, err := e.server.OpenStream()
					require.NoError(t, err)
					write(t, s, "x")
				}()
				s, err := e.client.AcceptStream(t.Context())
				require.NoError(t, err)
				filler = s
			}
			victim = nil
			go filler.Write(make([]byte, 2*window))
			time.Sleep(100 * time.Millisecond)
			go other.Write([]byte("x"))
			select {
			case <-read:
			case <-time.After(5 * time.Second):
				t.Errorf("%s: the connection has stalled", way)
			}
			runtime.KeepAlive(last)
			e.client.CloseWithError(0, "")
		})
	}
}

// TestIdleDrainedStreamsCostNothing: to a connection at rest, with its dropped
// control streams, it looks as if it had stalled.
func TestIdleDrainedStreamsCostNothing(t *testing.T) {
	conf := &quic.Config{MaxIdleTimeout: 2 * time.Hour}
	setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		var reads atomic.Int64
		func() {
			require.NoError(t, dropUni(t.Context(), e.client))
			s, err := e.server.AcceptUniStream(t.Context())
			require.NoError(t, err)
			expect(t, s, "settings")
			quiclife.AroundDrainedReads(s, func(read func()) { reads.Add(1); read() })
		}()
		go e.server.AcceptStream(t.Context())
		time.Sleep(time.Minute)
		require.Positive(t, reads.Load())
		reads.Store(0)
		time.Sleep(time.Hour)
		require.LessOrEqual(t, reads.Load(), int64(200))
		e.server.CloseWithError(0, "")
	})
}

// TestTrickleOnDrainedStreamHoldsUpNoOther: a peer that sends all the time on a
// stream that is drained does not keep the others from it.
func TestTrickleOnDrainedStreamHoldsUpNoOther(t *testing.T) {
	guard := &quiclife.Guard{NoStopSending: true, HalfCloseTimeout: -1}
	setup{}.in(t, func(t *testing.T, e ends) {
		e.server = guard.Wrap(e.rawServer, nil)
		var trickle, bulk *quiclife.SendStream
		var reading, most atomic.Int64
		for _, to := range []**quiclife.SendStream{&trickle, &bulk} {
			s, err := e.client.OpenUniStream()
			require.NoError(t, err)
			write(t, s, "x")
			func() {
				r, err := e.server.AcceptUniStream(t.Context())
				require.NoError(t, err)
				quiclife.AroundDrainedReads(r, func(read func()) {
					raise(&most, reading.Add(1))
					read()
					reading.Add(-1)
				})
			}()
			*to = s
		}
		go e.server.AcceptStream(t.Context()) // somebody who waits
		runtime.GC()
		e.server.Stats()
		var wg sync.WaitGroup
		wg.Go(func() {
			for trickle.TryWriteAll([]byte("x")) == nil {
				time.Sleep(300 * time.Microsecond)
			}
		})
		wg.Go(func() {
			bulk.Write(make([]byte, 2<<20))
			bulk.Close()
		})
		time.Sleep(15 * time.Second)
		require.Equal(t, quiclife.HalfFinished, bulk.Info().Send, "%v", bulk.Info())
		require.LessOrEqual(t, most.Load(), int64(1), "drained by several at once")
		trickle.Release()
		e.client.CloseWithError(0, "")
		wg.Wait()
	})
}

// TestControlStreamsLiveWhileOpensWaitForSlowOnes: an open that waits, because the peer takes
// its time, or the program, does not end control streams.
func TestControlStreamsLiveWhileOpensWaitForSlowOnes(t *testing.T) {
	for _, c := range []struct {
		name string
		wait time.Duration
		held bool // by the program; else they have ended here
	}{
		{"slow peer", 3 * time.Second, false},
		{"held by the program", time.Minute, true},
	} {
		conf := &quic.Config{MaxIncomingUniStreams: 10, MaxIdleTimeout: time.Hour}
		setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
			for range 3 {
				require.NoError(t, dropUni(t.Context(), e.client))
			}
			var held []*quiclife.SendStream
			for range 7 {
				s, err := e.client.OpenUniStream()
				require.NoError(t, err)
				write(t, s, "data")
				held = append(held, s)
				if !c.held {
					s.Close()
				}
			}
			time.AfterFunc(c.wait, func() {
				for _, s := range held {
					s.Close()
				}
				readToTheError(e.server)
			})
			s, err := e.client.OpenUniStreamSync(t.Context())
			require.NoError(t, err)
			s.Release()
			control := 0
			for info := range e.client.Streams() {
				if info.ID>>2 < 3 {
					control++
				}
			}
			require.Equal(t, 3, control, c.name)
			e.client.CloseWithError(0, "")
		})
	}
}

// TestCrowdedConnectionAtRestLooksRarely: most slots are taken by streams in
// use, for hours.
func TestCrowdedConnectionAtRestLooksRarely(t *testing.T) {
	conf := &quic.Config{MaxIdleTimeout: 2 * time.Hour, MaxIncomingStreams: 4}
	setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		for range 3 {
			client, server := e.stream(t)
			keep(t, client)
			go server.Read(make([]byte, 1))
		}
		time.Sleep(time.Minute)
		looks := 0
		last := quiclife.LastLook(e.server)
		for range 3600 {
			time.Sleep(time.Second)
			if look := quiclife.LastLook(e.server); look != last {
				last = look
				looks++
			}
		}
		require.LessOrEqual(t, looks, 200)
		e.server.CloseWithError(0, "")
	})
}

// TestStreamsDroppedAfterLongUseComeBackSoon: what frees them is that a call
// has returned, which was blocked for long.
func TestStreamsDroppedAfterLongUseComeBackSoon(t *testing.T) {
	for _, how := range []string{"read", "write"} {
		conf := &quic.Config{MaxIdleTimeout: 2 * time.Hour, MaxIncomingStreams: 4, InitialStreamReceiveWindow: 20000, MaxStreamReceiveWindow: 20000}
		setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
			for range 4 {
				c, s := e.stream(t)
				go func() {
					if how == "read" {
						s.Read(make([]byte, 1))
					} else {
						s.Write(make([]byte, 60000))
					}
				}()
				time.AfterFunc(20*time.Minute, func() {
					if how == "read" {
						c.Write([]byte("x"))
					} else {
						io.ReadFull(c, make([]byte, 60000))
					}
					c.Close()
					c.CancelRead(0)
				})
			}
			time.Sleep(20 * time.Minute)
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			raw, err := e.rawClient.OpenStreamSync(ctx)
			require.NoError(t, err)
			raw.CancelWrite(0)
			require.Less(t, time.Since(start), 3*time.Second, how)
			e.server.CloseWithError(0, "")
		})
	}
}
