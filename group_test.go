package quiclife_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"
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

// TestMaxConns: a storm of 500 connections at a limit of 20. Those that are
// refused see it at once, those that are accepted all finish.
func TestMaxConns(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	var log logged
	server := &quiclife.Guard{MaxConns: 20, Logger: log.logger()}
	ln, err := server.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- ln.Serve(ctx, quiclife.Handler{Stream: func(ctx context.Context, s *quiclife.Stream) error {
			_, err := io.Copy(s, s)
			return err
		}})
	}()
	storm(t, ln.Addr().String(), func(c *quiclife.Conn) {
		time.Sleep(20 * time.Millisecond) // holds its place for a while
	})
	cancel()
	require.Equal(t, context.Canceled, <-served)
	records := strings.Count(log.String(), "limit of connections of the group reached: ")
	require.Positive(t, records)
	require.Less(t, records, 30, "one a second")

	// The same for what the group dials itself.
	ln, err = quiclife.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	defer ln.Close()
	client := &quiclife.Guard{MaxConns: 1, Logger: slog.New(slog.DiscardHandler)}
	c, err := client.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
	require.NoError(t, err)
	_, err = client.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
	require.EqualError(t, err, "quiclife: limit of connections of the group reached: 1 of 1")
	c.CloseWithError(0, "")
	_, err = client.DialAddr(t.Context(), "127.0.0.1", clientTLS, nil) // a failure frees its place
	require.Error(t, err)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = client.DialAddr(cancelled, ln.Addr().String(), clientTLS, nil)
	require.ErrorIs(t, err, context.Canceled)
	c, err = client.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
	require.NoError(t, err)
	c.CloseWithError(0, "")
	sc, err := ln.Accept(t.Context())
	require.NoError(t, err)
	sc.CloseWithError(0, "")
}

// storm has 500 connections made, 100 at a time, that each ask once.
func storm(t *testing.T, addr string, meanwhile func(*quiclife.Conn)) {
	_, clientTLS := quictest.TLS()
	var wg sync.WaitGroup
	var refused, answered atomic.Int64
	slots := make(chan struct{}, 100)
	for range 500 {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			start := time.Now()
			c, err := quiclife.DialAddr(t.Context(), addr, clientTLS, &quic.Config{HandshakeIdleTimeout: time.Minute})
			if err != nil {
				// A packet that the loaded server drops is sent again after a second or
				// so. The token of a Retry holds for ten.
				late := errors.Is(err, &quiclife.TransportError{ErrorCode: quiclife.InvalidToken, Remote: true})
				if !late && !errors.Is(err, &quiclife.TransportError{ErrorCode: quiclife.ConnectionRefused, Remote: true}) || time.Since(start) > 30*time.Second {
					t.Error(err, time.Since(start))
				}
				refused.Add(1)
				return
			}
			defer c.CloseWithError(0, "")
			err = c.Do(t.Context(), func(s *quiclife.Stream) error {
				s.Write([]byte("request"))
				meanwhile(c)
				s.Close()
				b, err := io.ReadAll(s)
				if string(b) != "request" {
					t.Error(string(b), err)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
			answered.Add(1)
		})
	}
	wg.Wait()
	t.Logf("%d answered, %d refused", answered.Load(), refused.Load())
	require.Positive(t, answered.Load())
	require.Positive(t, refused.Load())
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
	quiclife.ForgetCollections() // of other tests
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
	quiclife.ForgetCollections() // of other tests
	for range 4 {                // such collections help, so they do not become rare
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

// A flood dials from an address that hears no answer, as if it were forged,
// while a good client dials from another.
type flood struct {
	addr         net.Addr
	good, forger *quiclife.Transport
	clientTLS    *tls.Config
	listener     *quiclife.Listener
	verified     []bool // of the connections that asked for admission; read after settled
}

func newFlood(t *testing.T, guard *quiclife.Guard) *flood {
	t.Helper()
	serverTLS, clientTLS := quictest.TLS()
	unheard := func(p simnet.Packet) bool { return p.To.(*net.UDPAddr).Port == 1001 }
	clients, sc, addr := quictest.Net{Drop: unheard}.Star(t, 2)
	f := &flood{addr: addr, clientTLS: clientTLS,
		good:   &quiclife.Transport{Conn: clients[0], Guard: &quiclife.Guard{}},
		forger: &quiclife.Transport{Conn: clients[1], Guard: &quiclife.Guard{}},
	}
	server := &quiclife.Transport{Conn: sc, Guard: guard, ConnContext: func(ctx context.Context, info *quiclife.ClientInfo) (context.Context, error) {
		f.verified = append(f.verified, info.AddrVerified)
		return ctx, nil
	}}
	ln, err := server.Listen(serverTLS, nil)
	require.NoError(t, err)
	f.listener = ln
	t.Cleanup(func() {
		ln.Close()
		f.good.Close()
		f.forger.Close()
		server.Close()
	})
	return f
}

// forge sends first packets.
func (f *flood) forge(t *testing.T, packets int) {
	for range packets {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel) // before the packet is repeated
		go f.forger.Dial(ctx, f.addr, f.clientTLS, nil)
	}
}

// connect has the good client connect.
func (f *flood) connect(t *testing.T) (client, server *quiclife.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	client, err := f.good.Dial(ctx, f.addr, f.clientTLS, nil)
	require.NoError(t, err)
	server, err = f.listener.Accept(ctx)
	require.NoError(t, err)
	return client, server
}

// Forged packets begin handshakes that fail seconds later. Until then they held
// all places of MaxConns, and every good client was refused.
func TestForgedPacketsShutNobodyOut(t *testing.T) {
	for _, maxConns := range []int64{1, 2, 3, 7, 8, 50} {
		t.Run(fmt.Sprint(maxConns), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFlood(t, &quiclife.Guard{MaxConns: maxConns, Logger: slog.New(slog.DiscardHandler)})
				f.forge(t, 100)
				time.Sleep(100 * time.Millisecond)
				for range 20 {
					for range 10 {
						f.forge(t, 1)
						time.Sleep(100 * time.Millisecond)
					}
					c, s := f.connect(t)
					c.CloseWithError(0, "")
					<-s.Context().Done()
				}
				settled()
				require.Contains(t, f.verified, true, "the good client was asked for another round trip")
			})
		})
	}
}

// All places can be taken by good clients, and without pressure nobody is asked
// for another round trip.
func TestMaxConnsWithoutPressure(t *testing.T) {
	for _, maxConns := range []int64{1, 2, 3, 7, 8, 50} {
		t.Run(fmt.Sprint(maxConns), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFlood(t, &quiclife.Guard{MaxConns: maxConns, Logger: slog.New(slog.DiscardHandler)})
				for range maxConns {
					f.connect(t)
				}
				settled()
				for i, verified := range f.verified {
					require.Equal(t, maxConns < 8, verified, "connection %d", i)
				}
				_, err := f.good.Dial(t.Context(), f.addr, f.clientTLS, nil)
				require.ErrorIs(t, err, &quiclife.TransportError{ErrorCode: quiclife.ConnectionRefused, Remote: true})
			})
		})
	}
}

// Connections that nobody accepts leave half of the places to others.
func TestUnacceptedConnsTakeHalfOfMaxConns(t *testing.T) {
	for _, unwrapped := range []bool{false, true} {
		t.Run(fmt.Sprintf("unwrapped=%t", unwrapped), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var log logged
				f := newFlood(t, &quiclife.Guard{MaxConns: 5, Logger: log.logger()})
				room := 3
				if unwrapped { // then they may be accepted where we do not see it
					f.listener.Unwrap()
					room = 5
				}
				dial := func() error {
					_, err := f.good.Dial(t.Context(), f.addr, f.clientTLS, nil)
					return err
				}
				for range room {
					require.NoError(t, dial())
				}
				require.ErrorIs(t, dial(), &quiclife.TransportError{ErrorCode: quiclife.ConnectionRefused, Remote: true})
				synctest.Wait()
				if unwrapped {
					require.Contains(t, log.String(), "limit of connections of the group reached: 5 of 5\"")
					return
				}
				require.Contains(t, log.String(), "limit of connections of the group reached: 3 of 5: too many of them are not accepted yet")
				_, err := f.listener.Accept(t.Context())
				require.NoError(t, err)
				require.NoError(t, dial())
				require.Error(t, dial())
			})
		})
	}
}

// failingIDs is a ConnectionIDGenerator that fails while fail is set.
type failingIDs struct {
	fail atomic.Bool
	last atomic.Uint32
}

func (f *failingIDs) ConnectionIDLen() int { return 8 }

func (f *failingIDs) GenerateConnectionID() (quiclife.ConnectionID, error) {
	if f.fail.Load() {
		return quiclife.ConnectionID{}, errors.New("no ID")
	}
	return quiclife.ConnectionIDFromBytes(binary.BigEndian.AppendUint64(nil, uint64(f.last.Add(1)))), nil
}

// What quic-go does not let in after all leaves its place in MaxConns, also
// where quic-go does not end its context.
func TestMaxConnsAfterFailedAdmissions(t *testing.T) {
	const maxConns = 3
	for _, fails := range []string{"ConnectionIDGenerator", "ConnContext"} {
		t.Run(fails, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				serverTLS, clientTLS := quictest.TLS()
				cc, sc, addr := quictest.Net{}.Endpoints(t)
				var broken atomic.Bool
				ids := &failingIDs{}
				client := &quiclife.Transport{Conn: cc}
				server := &quiclife.Transport{
					Conn:                  sc,
					Guard:                 &quiclife.Guard{MaxConns: maxConns, Logger: slog.New(slog.DiscardHandler)},
					ConnectionIDGenerator: ids,
					ConnContext: func(ctx context.Context, _ *quiclife.ClientInfo) (context.Context, error) {
						if fails == "ConnContext" && broken.Load() {
							return nil, errors.New("refused")
						}
						ids.fail.Store(broken.Load()) // not for the ID of a Retry
						return ctx, nil
					},
				}
				ln, err := server.Listen(serverTLS, nil)
				require.NoError(t, err)
				defer server.Close()
				defer client.Close()
				connect := func() error {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					_, err := client.Dial(ctx, addr, clientTLS, nil)
					if err != nil {
						return err
					}
					_, err = ln.Accept(ctx)
					return err
				}
				broken.Store(true)
				for range 2 * maxConns {
					require.Error(t, connect())
					ids.fail.Store(false)
				}
				broken.Store(false)
				for i := range maxConns {
					require.NoError(t, connect(), "connection %d", i+1)
				}
				require.ErrorIs(t, connect(), &quiclife.TransportError{ErrorCode: quiclife.ConnectionRefused, Remote: true})
			})
		})
	}
}
