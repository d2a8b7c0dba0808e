package quiclife_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime"
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

// TestShutdownOfRejected0RTT: what was sent in 0-RTT that the server rejected
// is lost, and Shutdown says so.
func TestShutdownOfRejected0RTT(t *testing.T) {
	setupEarly(t, func(t *testing.T, c *quiclife.Conn) {
		s, err := c.OpenUniStream()
		require.NoError(t, err)
		write(t, s, "data")
		s.Close()
		require.ErrorIs(t, shutdown(c, time.Minute), quiclife.Err0RTTRejected)
	})
}

// setupEarly is dialEarly, rejected, in a bubble.
func setupEarly(t *testing.T, f func(t *testing.T, c *quiclife.Conn)) {
	bubble(t, func(t *testing.T) {
		c, _ := dialEarly(t, true)
		f(t, c)
	})
}

// TestStaleResetAfterRejection: the streams of the new phase have the IDs of
// those of the rejected one, whose calls must not reach them.
func TestStaleResetAfterRejection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, accept := dialEarly(t, true)
		old, err := c.OpenStream()
		require.NoError(t, err)
		write(t, old, "x")
		old.Close()
		s := accept()
		_, err = c.NextConnection(t.Context())
		require.NoError(t, err)
		str, in := ends{client: c, server: s}.stream(t)
		require.Equal(t, old.StreamID(), str.StreamID())
		old.Reset(7)
		old.CancelWrite(7)
		old.Release()
		settled()
		write(t, str, "y")
		require.NoError(t, str.Close())
		b, err := io.ReadAll(in)
		require.NoError(t, err)
		require.Equal(t, "y", string(b))
		str.Release()
		in.Release()
	})
}

// TestShutdownInHandshake: an early connection that is shut down before its
// handshake is complete loses nothing, though the first packets are lost.
func TestShutdownInHandshake(t *testing.T) {
	for seed := range uint64(60) {
		bubble(t, func(t *testing.T) {
			serverTLS, clientTLS := quictest.TLS()
			conf := &quic.Config{MaxIdleTimeout: 10 * time.Minute, HandshakeIdleTimeout: time.Minute}
			drop := dropSome(seed, 20)
			pc, ps, addr := quictest.Net{Latency: 150 * time.Millisecond, Drop: drop}.Endpoints(t)
			guard := &quiclife.Guard{}
			str, ctr := &quiclife.Transport{Conn: ps, Guard: guard}, &quiclife.Transport{Conn: pc, Guard: guard}
			defer str.Close()
			defer ctr.Close()
			ln, err := str.ListenEarly(serverTLS, conf)
			require.NoError(t, err)
			defer ln.Close()
			got := make(chan int, 1)
			go func() {
				c, err := ctr.Dial(context.Background(), addr, clientTLS, conf)
				if err != nil {
					got <- -1
					return
				}
				s, err := c.AcceptUniStream(context.Background())
				if err != nil {
					got <- -2
					return
				}
				b, _ := io.ReadAll(s)
				got <- len(b)
				c.CloseWithError(0, "")
			}()
			c, err := ln.Accept(t.Context())
			require.NoError(t, err)
			s, err := c.OpenUniStreamSync(t.Context())
			require.NoError(t, err)
			_, err = s.Write(make([]byte, 10_000))
			require.NoError(t, err)
			s.Close()
			err = shutdown(c, time.Hour)
			if n := <-got; err == nil {
				require.Equal(t, 10_000, n, "seed %d", seed)
			}
		})
	}
}

// TestShutdownCutByPeer: a stream that the peer's CloseWithError cuts is named,
// also if the program noticed first.
func TestShutdownCutByPeer(t *testing.T) {
	for range 100 {
		e := setup{}.onLoopback(t)
		s, _ := e.stream(t)
		read := make(chan struct{})
		go func() {
			s.Read(make([]byte, 1))
			s.Release()
			close(read)
		}()
		down := make(chan error)
		go func() { down <- shutdown(e.client, time.Minute) }()
		runtime.Gosched()
		e.server.CloseWithError(7, "")
		<-read
		err := <-down
		// Shutdown of a connection that had ended before it began returns nil.
		if err == nil {
			require.Error(t, e.client.Context().Err())
			continue
		}
		cut, ok := errors.AsType[*quiclife.ShutdownError](err)
		require.True(t, ok)
		require.Len(t, cut.Streams, 1)
	}
}

// TestShutdownNamesOnce: several calls that cut at once name each stream once.
func TestShutdownNamesOnce(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		for range 5 {
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			keep(t, s)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				cut, ok := errors.AsType[*quiclife.ShutdownError](e.client.Shutdown(ctx, 0, ""))
				if ok && len(cut.Streams) > 5 {
					t.Errorf("%d streams", len(cut.Streams))
				}
			})
		}
		wg.Wait()
	})
}

// TestServeDrainsAcceptQueue: connections that nobody accepted are shut down too.
func TestServeDrainsAcceptQueue(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	ln, err := quiclife.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	var clients []*quiclife.Conn
	for range 10 {
		c, err := quiclife.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
		require.NoError(t, err)
		clients = append(clients, c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, context.Canceled, ln.Serve(ctx, quiclife.Handler{}))
	for _, c := range clients {
		<-c.Context().Done()
	}
}

// TestPollingReader: one that looks for data now and then, with a deadline, is
// reading, though no byte comes.
func TestPollingReader(t *testing.T) {
	conf := &quic.Config{MaxIdleTimeout: time.Hour}
	setup{guard: &quiclife.Guard{HalfCloseTimeout: 10 * time.Second}, clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		s.Close()
		for range 60 {
			s.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			s.Read(make([]byte, 1))
			time.Sleep(time.Second)
		}
		require.Equal(t, quiclife.HalfOpen, s.Info().Receive)
		s.Release()
		peer.Release()
	})
}

// TestBoundaryRace: CancelWrite beside Close on a stream with a reliable
// boundary must not end the connection.
func TestBoundaryRace(t *testing.T) {
	conf := &quic.Config{EnableStreamResetPartialDelivery: true, MaxIncomingStreams: 1000}
	e := setup{clientConf: conf, serverConf: conf}.onLoopback(t)
	for range 500 {
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		s.Write([]byte("reliable"))
		s.SetReliableBoundary()
		s.Write([]byte("not so"))
		var wg sync.WaitGroup
		var closed error
		wg.Go(func() { closed = s.Close() })
		wg.Go(func() { s.CancelWrite(1) })
		wg.Wait()
		require.NoError(t, closed)
		s.Release()
		p, err := e.server.AcceptStream(t.Context())
		require.NoError(t, err)
		p.Release()
	}
	eventually(t, func() bool { return quictest.Held(e.rawClient)+quictest.Held(e.rawServer) == 0 })
	e.requireNothingLeft(t)
	e.client.CloseWithError(0, "")
}

// TestSlowLogger: a Logger that blocks holds up no handshake.
func TestSlowLogger(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	release := make(chan struct{})
	guard := &quiclife.Guard{MaxConns: 1, Logger: slog.New(slog.NewTextHandler(blockingWriter{release}, nil))}
	ln, err := guard.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	a, err := quiclife.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
	require.NoError(t, err)
	_, err = quiclife.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
	require.Error(t, err)
	a.CloseWithError(0, "")
	eventually(t, func() bool {
		c, err := quiclife.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
		if err == nil {
			c.CloseWithError(0, "")
		}
		return err == nil
	})
	ln.Close()
	close(release)
	require.NoError(t, guard.Shutdown(t.Context()))
}

type blockingWriter struct{ release chan struct{} }

func (w blockingWriter) Write(p []byte) (int, error) { <-w.release; return len(p), nil }

// TestCountsAfterCloseWithError: when it returns, the counts are down.
func TestCountsAfterCloseWithError(t *testing.T) {
	for range 50 {
		e := setup{}.onLoopback(t)
		for range 90 {
			_, err := e.client.OpenStream()
			require.NoError(t, err)
		}
		require.NoError(t, e.client.CloseWithError(1, ""))
		require.Zero(t, e.client.Stats().Open())
	}
}

// TestListenerBlockedAtShutdown: a net.Listener's Accept returns at once.
func TestListenerBlockedAtShutdown(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		s, _ := e.stream(t)
		done := make(chan error)
		go func() { _, err := e.client.Listener().Accept(); done <- err }()
		settled()
		go shutdown(e.client, time.Minute)
		require.Equal(t, quiclife.ErrShutdown, <-done)
		s.Release()
	})
}

func dropSome(seed uint64, percent int) func(simnet.Packet) bool {
	var mu sync.Mutex
	n := seed*2654435761 + 1
	return func(simnet.Packet) bool {
		mu.Lock()
		defer mu.Unlock()
		n = n*6364136223846793005 + 1442695040888963407
		return int(n>>33)%100 < percent
	}
}

// TestLostClose: a CONNECTION_CLOSE that is lost is repeated, though the
// listener was closed, and its last connection has ended.
func TestLostClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		serverTLS, clientTLS := quictest.TLS()
		var lose atomic.Bool
		drop := func(p simnet.Packet) bool {
			return p.From.String() == "1.0.0.2:443" && lose.CompareAndSwap(true, false)
		}
		pc, ps, addr := quictest.Net{Drop: drop}.Endpoints(t)
		ln, err := quiclife.Listen(ps, serverTLS, nil)
		require.NoError(t, err)
		c, err := quiclife.Dial(t.Context(), pc, addr, clientTLS, nil)
		require.NoError(t, err)
		sc, err := ln.Accept(t.Context())
		require.NoError(t, err)
		settled()
		ln.Close()
		lose.Store(true)
		sc.CloseWithError(5, "")
		s, err := c.OpenStream()
		require.NoError(t, err)
		write(t, s, "x")
		start := time.Now()
		<-c.Context().Done()
		require.Less(t, time.Since(start), time.Second)
		require.ErrorIs(t, context.Cause(c.Context()), &quiclife.ApplicationError{ErrorCode: 5, Remote: true})
		settled()
	})
}

// TestWholeWriteAtItsDeadline: a Write that has taken all of its data has not
// failed, though its deadline passes at that moment. A program that then gave
// up, and closed, would end a message cleanly that it could not complete.
func TestWholeWriteAtItsDeadline(t *testing.T) {
	const size = 100_000
	big := make([]byte, size)
	for _, write := range map[string]func(*quiclife.Stream) (int, error){
		"Write": func(s *quiclife.Stream) (int, error) { return s.Write(big) },
		"WriteWithLimit": func(s *quiclife.Stream) (int, error) {
			return s.WriteWithLimit(big, func(n int) int { return n })
		},
	} {
		// How long it takes, and then that as the deadline, which races with the end.
		var took time.Duration
		for n := range 200 {
			setup{}.in(t, func(t *testing.T, e ends) {
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				defer s.Release()
				start := time.Now()
				if took > 0 {
					s.SetWriteDeadline(start.Add(took))
				}
				wrote, err := write(s)
				if n == 0 {
					took = time.Since(start)
					require.Positive(t, took)
				}
				require.Equal(t, wrote < size, err != nil, "%d bytes, %v", wrote, err)
			})
		}
	}
}
