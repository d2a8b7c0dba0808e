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

// A flood dials from an address that hears no answer, as if it were forged,
// while a good client dials from another.
type flood struct {
	addr         net.Addr
	good, forger *quiclife.Transport
	clientTLS    *tls.Config
	listener     *quiclife.Listener
	verified     []bool // of the connections that asked for admission; read after settled
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

// TestWrappedConnsCountAgainstMaxConns: while they last, as others do.
func TestWrappedConnsCountAgainstMaxConns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		guard := &quiclife.Guard{MaxConns: 2, Logger: slog.New(slog.DiscardHandler)}
		for range 3 {
			a, b := quictest.Net{}.Pair(t, nil, nil)
			client, server := guard.Wrap(a, nil), guard.Wrap(b, nil)
			_, err := guard.Dial(t.Context(), nil, nil, nil, nil)
			require.EqualError(t, err, "quiclife: limit of connections of the group reached: 2 of 2")
			client.CloseWithError(0, "")
			server.CloseWithError(0, "")
		}
	})
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
