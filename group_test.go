package quiclife_test

import (
	"context"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/heap"
	"github.com/quiclife/quiclife/internal/quictest"
)

// All connections of a group share its streams: at the limit none opens, and
// new connections are refused. What the peers open is counted, and goes on.
func TestMaxStreamsCountsAllConnections(t *testing.T) {
	_, clientTLS := quictest.TLS()
	bubble(t, func(t *testing.T) {
		var log logged
		transport := &quiclife.Transport{Guard: &quiclife.Guard{MaxStreams: 3, Logger: log.logger()}}
		site := newSite(t, transport, nil)
		a, b := site.connect(t), site.connect(t)

		s1, err := a.server.OpenStream()
		require.NoError(t, err)
		s2, err := b.server.OpenUniStream()
		require.NoError(t, err)
		c, s3 := a.stream(t)
		for name, open := range map[string]func() error{
			"OpenStream":     func() error { _, err := a.server.OpenStream(); return err },
			"OpenStreamSync": func() error { _, err := b.server.OpenStreamSync(t.Context()); return err },
			"OpenUniStream":  func() error { _, err := b.server.OpenUniStream(); return err },
			"Dial": func() error {
				_, err := transport.Dial(t.Context(), transport.Conn.LocalAddr(), clientTLS, nil)
				return err
			},
		} {
			err := open()
			limit := requireLimitError(t, err, name)
			require.Equal(t, quiclife.LimitError{Scope: quiclife.GroupLimit, Open: 3, Limit: 3}, *limit, name)
			require.EqualError(t, err, "quiclife: limit of streams of the group reached: 3 of 3", name)
		}
		site.requireRefused(t)
		synctest.Wait()
		require.Equal(t, 1, strings.Count(log.String(), "limit reached"), "one record for all")
		c2, s4 := a.stream(t)
		s1.Release()
		s2.Release()
		s, err := b.server.OpenStream()
		require.NoError(t, err)
		_, err = b.server.OpenStream()
		requireLimitError(t, err)
		for _, s := range []*quiclife.Stream{s, s3, s4, c, c2} {
			s.Release()
		}
		_, err = site.dial(t.Context())
		require.NoError(t, err)
	})
}

// An open that fails, for whatever reason, neither
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
				require.Equal(t, quiclife.GroupLimit, requireLimitError(t, err, name).Scope, name)
				opened--
				require.Equal(t, places, opened, name)
			})
		}
	}
}

// Above MaxHeap nothing of this side's begins, and what runs goes on.
func TestMaxHeapRefusesWhatIsNew(t *testing.T) {
	const limit = 1 << 40 // a collection that is asked for finds less
	var live atomic.Int64
	defer quiclife.SetLiveHeap(live.Load)()
	bubble(t, func(t *testing.T) {
		site := newSite(t, &quiclife.Transport{Guard: &quiclife.Guard{MaxHeap: limit, Logger: slog.New(slog.DiscardHandler)}}, nil)
		e := site.connect(t)
		client, server := e.stream(t)

		live.Store(limit + 1)
		settled() // the gauge is read every 100 ms
		site.requireRefused(t)
		_, err := e.server.OpenStream()
		refused := requireLimitError(t, err)
		require.Equal(t, quiclife.LimitError{Scope: quiclife.HeapLimit, Open: limit + 1, Limit: limit}, *refused)
		write(t, server, "still running")
		expect(t, client, "still running")
		e.stream(t) // the peer may

		live.Store(limit)
		settled()
		_, err = e.server.OpenStream()
		require.NoError(t, err)
		_, err = site.dial(t.Context())
		require.NoError(t, err)
	})
}

// Whoever is refused asks for a collection, so that garbage does not shut
// everybody out.
func TestMaxHeapAsksForCollections(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	ln, err := quiclife.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	defer ln.Close()
	runtime.GC()
	guard := &quiclife.Guard{MaxHeap: heap.Live() + 64<<20, Logger: slog.New(slog.DiscardHandler)}
	dial := func() error {
		c, err := guard.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
		if err == nil {
			c.CloseWithError(0, "")
		}
		return err
	}
	quiclife.ForgetHeapTries() // of other tests
	ballast := make([]byte, 128<<20)
	runtime.GC()
	eventually(t, func() bool { return dial() != nil }, "the gauge is read every 100 ms")
	requireLimitError(t, dial())
	runtime.KeepAlive(ballast)
	ballast = nil
	eventually(t, func() bool { return dial() == nil }, "no collection was asked for")
}

// synctestPair is a pair of which only the client has the guard.
func synctestPair(t *testing.T, conf *quic.Config, guard *quiclife.Guard, f func(t *testing.T, e ends)) {
	setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		e.client = guard.Wrap(e.rawClient, conf)
		f(t, e)
	})
}

func TestConnsListsWhatHasNotEnded(t *testing.T) {
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

func TestGuardWithoutConnectionsIsForgotten(t *testing.T) {
	var guard weak.Pointer[quiclife.Guard]
	func() {
		g := &quiclife.Guard{}
		guard = weak.Make(g)
		e := setup{guard: g}.onLoopback(t)
		e.client.CloseWithError(0, "")
		e.server.CloseWithError(0, "")
	}()
	eventually(t, func() bool { runtime.GC(); return guard.Value() == nil }, "something holds the Guard")
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
