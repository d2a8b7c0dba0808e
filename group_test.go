package quiclife_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// TestMaxStreams: the streams of a group, over several connections.
func TestMaxStreams(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	var log logged
	server := &quiclife.Guard{MaxStreams: 3, Logger: log.logger()}
	ln, err := server.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	defer ln.Close()
	dial := func() (*quiclife.Conn, error) {
		return quiclife.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
	}
	a, err := dial()
	require.NoError(t, err)
	defer a.CloseWithError(0, "")
	sa, err := ln.Accept(t.Context()) // before the next: two may come in either order
	require.NoError(t, err)
	b, err := dial()
	require.NoError(t, err)
	defer b.CloseWithError(0, "")
	sb, err := ln.Accept(t.Context())
	require.NoError(t, err)

	s1, err := sa.OpenStream()
	require.NoError(t, err)
	s2, err := sb.OpenUniStream()
	require.NoError(t, err)
	// What the peer opens is counted, and goes on.
	c, err := a.OpenStream()
	require.NoError(t, err)
	write(t, c, "x")
	s3, err := sa.AcceptStream(t.Context())
	require.NoError(t, err)
	for _, open := range []func() error{
		func() error { _, err := sa.OpenStream(); return err },
		func() error { _, err := sb.OpenStreamSync(t.Context()); return err },
		func() error { _, err := sb.OpenUniStream(); return err },
		func() error { _, err := server.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil); return err },
	} {
		err := open()
		limit, ok := errors.AsType[*quiclife.LimitError](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, quiclife.LimitError{Scope: quiclife.GroupLimit, Open: 3, Limit: 3}, *limit)
		require.EqualError(t, err, "quiclife: limit of streams of the group reached: 3 of 3")
	}
	_, err = dial()
	require.ErrorIs(t, err, &quiclife.TransportError{ErrorCode: quiclife.ConnectionRefused, Remote: true})
	eventually(t, func() bool { return strings.Contains(log.String(), "limit reached") })
	require.Equal(t, 1, strings.Count(log.String(), "limit reached"), "one record for all")
	c2, err := a.OpenStream()
	require.NoError(t, err)
	write(t, c2, "x")
	s4, err := sa.AcceptStream(t.Context())
	require.NoError(t, err)
	s1.Release()
	s2.Release()
	s, err := sb.OpenStream()
	require.NoError(t, err)
	_, err = sb.OpenStream()
	require.Error(t, err)
	for _, s := range []*quiclife.Stream{s, s3, s4, c, c2} {
		s.Release()
	}
	d, err := dial()
	require.NoError(t, err)
	d.CloseWithError(0, "")
}

// TestMaxStreamsOfOne: the smallest limit is one, not none.
func TestMaxStreamsOfOne(t *testing.T) {
	guard := &quiclife.Guard{MaxStreams: 1}
	setup{guard: guard}.in(t, func(t *testing.T, e ends) {
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		const reached = "quiclife: limit of streams of the group reached: 1 of 1"
		_, err = e.server.OpenStream()
		require.EqualError(t, err, reached)
		_, err = guard.Dial(t.Context(), nil, nil, nil, nil)
		require.EqualError(t, err, reached, "a connection has room for no stream")
		s.Release()
		s, err = e.server.OpenStream()
		require.NoError(t, err)
		s.Release()
	})
}

// TestFailedOpensKeepGroupCount: an open that fails, for whatever reason, neither
// keeps a place of MaxStreams nor makes one.
func TestFailedOpensKeepGroupCount(t *testing.T) {
	const places, tries = 20, 10
	for i, o := range openers {
		peersLimit := &quic.Config{MaxIncomingStreams: 1, MaxIncomingUniStreams: 1}
		for _, c := range []struct {
			name string
			own  int64 // limit of this side
			conf *quic.Config
			fail func(t *testing.T, c *quiclife.Conn) error
		}{
			{"at the peer's limit", 0, peersLimit, func(t *testing.T, c *quiclife.Conn) error {
				_, err := o.open(c)
				return err
			}},
			{"waits at the peer's limit until ctx is done", 0, peersLimit, func(t *testing.T, c *quiclife.Conn) error {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := o.sync(c, ctx)
				return err
			}},
			{"waits at the peer's limit until Shutdown", 0, peersLimit, func(t *testing.T, c *quiclife.Conn) error {
				time.AfterFunc(time.Second, func() { c.Shutdown(t.Context(), 0, "") })
				_, err := o.sync(c, t.Context())
				return err
			}},
			{"waits at the peer's limit until the connection ends", 0, peersLimit, func(t *testing.T, c *quiclife.Conn) error {
				time.AfterFunc(time.Second, func() { c.CloseWithError(1, "") })
				_, err := o.sync(c, t.Context())
				return err
			}},
			{"at our limit", 1, nil, func(t *testing.T, c *quiclife.Conn) error {
				_, err := o.open(c)
				return err
			}},
			{"waits at our limit until ctx is done", 1, nil, func(t *testing.T, c *quiclife.Conn) error {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := o.sync(c, ctx)
				return err
			}},
			{"waits at our limit until Shutdown", 1, nil, func(t *testing.T, c *quiclife.Conn) error {
				time.AfterFunc(time.Second, func() { c.Shutdown(t.Context(), 0, "") })
				_, err := o.sync(c, t.Context())
				return err
			}},
			{"waits at our limit until the connection ends", 1, nil, func(t *testing.T, c *quiclife.Conn) error {
				time.AfterFunc(time.Second, func() { c.CloseWithError(1, "") })
				_, err := o.sync(c, t.Context())
				return err
			}},
			{"after the connection's end", 0, nil, func(t *testing.T, c *quiclife.Conn) error {
				c.CloseWithError(1, "")
				_, err := o.open(c)
				return err
			}},
			{"after the connection's end, waiting", 0, nil, func(t *testing.T, c *quiclife.Conn) error {
				c.CloseWithError(1, "")
				_, err := o.sync(c, t.Context())
				return err
			}},
		} {
			guard := &quiclife.Guard{MaxStreams: places}
			o.limit(guard, c.own)
			setup{guard: guard, serverConf: c.conf}.in(t, func(t *testing.T, e ends) {
				name := o.name + ", " + c.name
				held, err := o.open(e.client)
				require.NoError(t, err, name)
				var waiting sync.WaitGroup
				for range tries {
					waiting.Go(func() {
						if err := c.fail(t, e.client); err == nil {
							t.Error(name, "did not fail")
						}
					})
				}
				go func() {
					time.Sleep(2 * time.Second)
					held.Release()
				}()
				waiting.Wait()
				settled()
				settled()

				rc, _ := quictest.Net{}.Pair(t, nil, nil)
				probe, opened := guard.Wrap(rc, nil), 0 // of the same group
				for err = nil; err == nil; opened++ {
					_, err = openers[1-i].open(probe) // the kind without a limit of ours
				}
				limit := new(quiclife.LimitError)
				require.ErrorAs(t, err, &limit, name)
				require.Equal(t, quiclife.GroupLimit, limit.Scope, name)
				opened--
				require.Equal(t, places, opened, name)
			})
		}
	}
}

// TestMaxHeap: above it nothing new begins, and what runs goes on.
func TestMaxHeap(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	server := &quiclife.Guard{MaxHeap: int64(m.HeapAlloc) + 64<<20, Logger: slog.New(slog.DiscardHandler)}
	ln, err := server.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	defer ln.Close()
	c, err := quiclife.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
	require.NoError(t, err)
	defer c.CloseWithError(0, "")
	sc, err := ln.Accept(t.Context())
	require.NoError(t, err)
	running, err := c.OpenStream()
	require.NoError(t, err)
	write(t, running, "x")
	served, err := sc.AcceptStream(t.Context())
	require.NoError(t, err)
	expect(t, served, "x")

	ballast := make([]byte, 128<<20)
	runtime.GC()
	time.Sleep(150 * time.Millisecond) // the gauge is read every 100 ms
	_, err = quiclife.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
	require.ErrorIs(t, err, &quiclife.TransportError{ErrorCode: quiclife.ConnectionRefused, Remote: true})
	_, err = sc.OpenStream()
	limit, ok := errors.AsType[*quiclife.LimitError](err)
	require.True(t, ok)
	require.Equal(t, quiclife.HeapLimit, limit.Scope)
	require.Greater(t, limit.Open, limit.Limit)
	write(t, served, "still running")
	expect(t, running, "still running")
	another, err := c.OpenStream() // the peer may
	require.NoError(t, err)
	write(t, another, "x")
	s, err := sc.AcceptStream(t.Context())
	require.NoError(t, err)
	runtime.KeepAlive(ballast)

	ballast = nil
	quiclife.ForgetHeapTries() // of other tests
	var mine *quiclife.Stream
	eventually(t, func() bool { // those that are refused have asked for a collection
		mine, err = sc.OpenStream()
		return err == nil
	})
	// Such collections help, so they do not become rare.
	for range 4 {
		ballast = make([]byte, 128<<20)
		runtime.GC()
		time.Sleep(150 * time.Millisecond)
		_, err = sc.OpenStream()
		require.Error(t, err)
		runtime.KeepAlive(ballast)
		ballast = nil
		start := time.Now()
		eventually(t, func() bool {
			s, err := sc.OpenStream()
			if err == nil {
				s.Release()
			}
			return err == nil
		})
		require.Less(t, time.Since(start), 4*time.Second)
	}
	c2, err := quiclife.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
	require.NoError(t, err)
	c2.CloseWithError(0, "")
	for _, s := range []*quiclife.Stream{running, served, another, s, mine} {
		s.Release()
	}
}

// TestMaxHeapWithoutConnections: whoever is refused asks for a collection, so
// that garbage does not shut everybody out.
func TestMaxHeapWithoutConnections(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	ln, err := quiclife.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	defer ln.Close()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	guard := &quiclife.Guard{MaxHeap: int64(m.HeapAlloc) + 64<<20, Logger: slog.New(slog.DiscardHandler)}
	dial := func() error {
		c, err := guard.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
		if err == nil {
			c.CloseWithError(0, "")
		}
		return err
	}
	quiclife.ForgetHeapTries() // of other tests
	for range 4 {              // such collections help, so they do not become rare
		ballast := make([]byte, 128<<20)
		runtime.GC()
		time.Sleep(150 * time.Millisecond) // the gauge is read every 100 ms
		require.ErrorAs(t, dial(), new(*quiclife.LimitError))
		runtime.KeepAlive(ballast)
		ballast = nil
		start := time.Now()
		eventually(t, func() bool { return dial() == nil })
		require.Less(t, time.Since(start), 4*time.Second)
	}
}

// TestConns: the connections of a group, from the handshake to the end.
func TestConns(t *testing.T) {
	require.Empty(t, conns(&quiclife.Guard{}))
	guard := &quiclife.Guard{}
	setup{guard: guard}.in(t, func(t *testing.T, e ends) {
		require.ElementsMatch(t, []*quiclife.Conn{e.client, e.server}, conns(guard))
		for c := range guard.Conns() { // may be left at any time, and end what it yields
			require.NoError(t, c.CloseWithError(0, ""))
			break
		}
		settled()
		require.Empty(t, conns(guard))
	})
}

// A Guard without connections can go.
func TestEdgeGuardGone(t *testing.T) {
	var guard weak.Pointer[quiclife.Guard]
	func() {
		g := &quiclife.Guard{}
		guard = weak.Make(g)
		e := setup{guard: g}.onLoopback(t)
		e.client.CloseWithError(0, "")
		e.server.CloseWithError(0, "")
	}()
	for range 500 {
		runtime.GC()
		if guard.Value() == nil {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	require.Nil(t, guard.Value())
}
