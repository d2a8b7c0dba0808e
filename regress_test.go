package quiclife_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

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

// TestReportedOnce: a stream that was reported is not reported again for
// another reason.
func TestReportedOnce(t *testing.T) {
	var found leaks
	guard := &quiclife.Guard{OnLeak: found.add, AbandonGrace: -1, IdleTimeout: time.Second}
	setup{guard: guard}.in(t, func(t *testing.T, e ends) {
		drop(t, e.client, func(s *quiclife.Stream) { s.Write([]byte("x")) })
		runtime.GC()
		e.client.Stats()
		settled()
		settled()
		require.Len(t, found.list(), 1)
	})
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

// TestDroppedWhileItEnds: a dropped stream of which the end has just become
// known, but has not been consumed yet, is no leak.
func TestDroppedWhileItEnds(t *testing.T) {
	var found leaks
	setup{guard: &quiclife.Guard{OnLeak: found.add}}.in(t, func(t *testing.T, e ends) {
		looked := false
		drop(t, e.client, func(s *quiclife.Stream) {
			s.SetReceiveFinalSizeCallback(func(int64) { // called before the end is consumed
				runtime.GC()
				e.client.Stats()
				looked = true
			})
			write(t, s, "x")
			s.CancelWrite(1)
		})
		s, err := e.server.AcceptStream(t.Context())
		require.NoError(t, err)
		s.Release()
		settled()
		require.True(t, looked)
		require.Empty(t, found.list())
		e.requireNothingLeft(t)
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
