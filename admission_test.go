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

	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// A storm of connections at a limit. The refused ones learn of it at once, the
// accepted ones all finish, and the log does not grow with their number.
func TestMaxConnsInStorm(t *testing.T) {
	const conns, most = 100, 20
	bubble(t, func(t *testing.T) {
		var log logged
		site := newSite(t, &quiclife.Transport{Guard: &quiclife.Guard{MaxConns: most, Logger: log.logger()}}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() {
			served <- site.listener.Serve(ctx, quiclife.Handlers{Stream: func(ctx context.Context, s *quiclife.Stream) error {
				_, err := io.Copy(s, s)
				return err
			}})
		}()
		var storm sync.WaitGroup
		var refused, answered, open, peak atomic.Int64
		for i := range conns {
			storm.Go(func() {
				time.Sleep(time.Duration(i) * 2 * time.Millisecond) // at once, quic-go would drop some
				start := time.Now()
				c, err := site.dial(t.Context())
				if err != nil {
					if !errors.Is(err, &quiclife.TransportError{ErrorCode: quiclife.ConnectionRefused, Remote: true}) || time.Since(start) > time.Second {
						t.Errorf("the dial failed after %v: %v", time.Since(start), err)
					}
					refused.Add(1)
					return
				}
				raise(&peak, open.Add(1))
				err = c.Do(t.Context(), func(s *quiclife.Stream) error {
					s.Write([]byte("request"))
					time.Sleep(50 * time.Millisecond) // holds its place for a while
					s.Close()
					b, err := io.ReadAll(s)
					if string(b) != "request" {
						t.Errorf("the echo of \"request\" is %q", b)
					}
					return err
				})
				if err != nil {
					t.Error("an accepted connection failed:", err)
				}
				open.Add(-1)
				c.CloseWithError(0, "")
				answered.Add(1)
			})
		}
		storm.Wait()
		require.Equal(t, 1, strings.Count(log.String(), "limit of connections reached: "), "lines before the stop")
		cancel()
		require.Equal(t, context.Canceled, <-served)
		t.Logf("%d answered, %d refused, %d at once", answered.Load(), refused.Load(), peak.Load())
		require.LessOrEqual(t, peak.Load(), int64(most))
		require.Greater(t, answered.Load(), int64(most), "no place was used twice")
		require.Positive(t, refused.Load())
		require.Equal(t, 2, strings.Count(log.String(), "limit of connections reached: "), "with the line for those held back")
	})
}

// The limit also counts connections that the group dials. A dial that fails and
// a connection that has ended free their places.
func TestMaxConnsOfDials(t *testing.T) {
	_, clientTLS := quictest.TLS()
	bubble(t, func(t *testing.T) {
		site := newSite(t, &quiclife.Transport{}, nil)
		site.client.Guard = &quiclife.Guard{MaxConns: 1, Logger: slog.New(slog.DiscardHandler)}
		c, err := site.dial(t.Context())
		require.NoError(t, err)
		_, err = site.dial(t.Context())
		require.EqualError(t, err, "quiclife: limit of connections reached: 1 of 1")
		c.CloseWithError(0, "")
		_, err = site.client.Guard.DialAddr(t.Context(), "127.0.0.1", clientTLS, nil)
		require.ErrorContains(t, err, "missing port")
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = site.dial(cancelled)
		require.ErrorIs(t, err, context.Canceled)
		_, err = site.dial(t.Context())
		require.NoError(t, err)
	})
}

// A flood dials from an address that receives no answers, as if it were forged.
// A good client dials from another address.
type flood struct {
	addr         net.Addr
	good, forger *quiclife.Transport
	clientTLS    *tls.Config
	listener     *quiclife.Listener
	verified     []bool // for each connection that asked for admission; read after settled
}

// forge sends first packets of handshakes.
func (f *flood) forge(t *testing.T, packets int) {
	for range packets {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel) // before the packet is repeated
		go f.forger.Dial(ctx, f.addr, f.clientTLS, nil)
	}
}

// connect connects the good client.
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

// Forged packets start handshakes that fail seconds later. Until then they must
// not take all of MaxConns, or every good client would be refused.
func TestForgedPacketsShutNobodyOut(t *testing.T) {
	t.Parallel()
	for _, maxConns := range []int64{1, 3, 8, 24} {
		t.Run(fmt.Sprint(maxConns), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFlood(t, &quiclife.Guard{MaxConns: maxConns, Logger: slog.New(slog.DiscardHandler)})
				f.forge(t, 50)
				time.Sleep(100 * time.Millisecond)
				for range 3 {
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

// A client sends its ClientHello in several packets, and sends them again. If one
// of them was answered with a Retry, the others must not take places that become
// free: nobody would go on with their handshakes.
func TestLatePacketsAfterARetryTakeNoPlace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFlood(t, &quiclife.Guard{MaxConns: 8, Logger: slog.New(slog.DiscardHandler)})
		admitted := func(most int, what string) {
			t.Helper()
			f.forge(t, 1)
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			require.Len(t, f.verified, most, what)
		}
		admitted(1, "the first packet, which takes the only place for clients without a validated address")
		time.Sleep(4400 * time.Millisecond)
		admitted(1, "a packet that has to be answered with a Retry")
		time.Sleep(time.Second) // the first handshake has timed out
		admitted(1, "a packet that is late")
		time.Sleep(3 * time.Second)
		admitted(2, "a packet when nothing presses any more")
	})
}

// Good clients can take all places, and without pressure none of them needs
// another round trip.
func TestMaxConnsWithoutPressure(t *testing.T) {
	t.Parallel()
	for _, maxConns := range []int64{1, 2, 3, 7, 8, 24} {
		t.Run(fmt.Sprint(maxConns), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFlood(t, &quiclife.Guard{MaxConns: maxConns, Logger: slog.New(slog.DiscardHandler)})
				for range maxConns {
					f.connect(t)
				}
				settled()
				for i, verified := range f.verified {
					require.Equal(t, maxConns < 8, verified, "whether connection %d was asked for another round trip", i)
				}
				_, err := f.good.Dial(t.Context(), f.addr, f.clientTLS, nil)
				require.ErrorIs(t, err, &quiclife.TransportError{ErrorCode: quiclife.ConnectionRefused, Remote: true})
			})
		})
	}
}

// Connections that nobody accepts take at most half of the places.
func TestUnacceptedConnsTakeHalfOfMaxConns(t *testing.T) {
	for _, unwrapped := range []bool{false, true} {
		t.Run(fmt.Sprintf("unwrapped=%t", unwrapped), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var log logged
				f := newFlood(t, &quiclife.Guard{MaxConns: 5, Logger: log.logger()})
				room := 3
				if unwrapped { // then we may not see that they are accepted
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
					require.Contains(t, log.String(), "limit of connections reached: 5 of 5\"")
					return
				}
				require.Contains(t, log.String(), "limit of connections reached: 3 of 5: too many of them are not accepted yet")
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

// If quic-go drops a connection after it was admitted, its place in MaxConns is
// free again, even if quic-go does not end its context.
func TestMaxConnsAfterFailedAdmissions(t *testing.T) {
	const maxConns = 3
	for _, fails := range []string{"ConnectionIDGenerator", "ConnContext"} {
		t.Run(fails, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var broken atomic.Bool
				ids := &failingIDs{}
				site := newSite(t, &quiclife.Transport{
					Guard:                 &quiclife.Guard{MaxConns: maxConns, Logger: slog.New(slog.DiscardHandler)},
					ConnectionIDGenerator: ids,
					ConnContext: func(ctx context.Context, _ *quiclife.ClientInfo) (context.Context, error) {
						if fails == "ConnContext" && broken.Load() {
							return nil, errors.New("refused")
						}
						ids.fail.Store(broken.Load()) // not for the ID of a Retry
						return ctx, nil
					},
				}, nil)
				broken.Store(true)
				for range 2 * maxConns {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					_, err := site.dial(ctx)
					cancel()
					require.Error(t, err)
					ids.fail.Store(false)
				}
				broken.Store(false)
				for range maxConns {
					site.connect(t)
				}
				site.requireRefused(t)
			})
		})
	}
}

func TestSlowLoggerHoldsUpNoHandshake(t *testing.T) {
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		guard := &quiclife.Guard{MaxConns: 1, Logger: slog.New(slog.NewTextHandler(blockingWriter{release}, nil))}
		site := newSite(t, &quiclife.Transport{Guard: guard}, nil)
		e := site.connect(t)
		site.requireRefused(t)
		e.client.CloseWithError(0, "")
		settled()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := site.dial(ctx)
		require.NoError(t, err)
	})
}

type blockingWriter struct{ release chan struct{} }

func (w blockingWriter) Write(p []byte) (int, error) { <-w.release; return len(p), nil }

// TestWrappedConnsCountAgainstMaxConns: until they have ended, like other
// connections.
func TestWrappedConnsCountAgainstMaxConns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		guard := &quiclife.Guard{MaxConns: 2, Logger: slog.New(slog.DiscardHandler)}
		for range 3 {
			a, b := quictest.Net{}.Pair(t, nil, nil)
			client, server := guard.Wrap(a, nil), guard.Wrap(b, nil)
			_, clientTLS := quictest.TLS()
			_, err := guard.DialAddr(t.Context(), "127.0.0.1:1", clientTLS, nil)
			require.EqualError(t, err, "quiclife: limit of connections reached: 2 of 2")
			client.CloseWithError(0, "")
			server.CloseWithError(0, "")
		}
	})
}
