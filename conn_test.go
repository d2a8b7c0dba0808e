package quiclife_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// Accepted 0-RTT data arrives, and NextConnection harms nothing.
func Test0RTT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, accept := dialEarly(t, false)
		early, err := c.OpenStream()
		require.NoError(t, err)
		uni, err := c.OpenUniStream()
		require.NoError(t, err)
		write(t, early, "early")
		write(t, uni, "too")
		require.NoError(t, uni.Close())

		s := accept()
		in, err := s.AcceptStream(t.Context())
		require.NoError(t, err)
		expect(t, in, "early")
		inUni, err := s.AcceptUniStream(t.Context())
		require.NoError(t, err)
		b, err := io.ReadAll(inUni)
		require.NoError(t, err)
		require.Equal(t, "too", string(b))

		next, err := c.NextConnection(t.Context())
		require.NoError(t, err)
		require.Same(t, c, next)
		require.True(t, c.ConnectionState().Used0RTT)
		require.True(t, s.ConnectionState().Used0RTT)
		require.Equal(t, int64(1), c.Stats().Open())
		write(t, early, " bird")
		require.NoError(t, early.Close())
		expect(t, in, " bird")
		in.Release()
		early.Release()
		settled()
		for _, end := range []*quiclife.Conn{c, s} {
			require.Zero(t, end.Stats().Open())
			require.Zero(t, quictest.Held(end.Unwrap()))
			requireBalance(t, end.Stats())
		}
	})
}

// TestOpenAtOwnLimitLearnsOf0RTTRejection: the streams of a rejected phase hold
// all slots, and will not end, so an open fails as quic-go's does, whether it
// waits already when the rejection comes or starts after it.
func TestOpenAtOwnLimitLearnsOf0RTTRejection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := dialEarlyUnder(t, &quiclife.Guard{MaxOutgoingStreams: 1, MaxOutgoingUniStreams: 1}, true)
		str, err := c.OpenStream()
		require.NoError(t, err)
		uni, err := c.OpenUniStream()
		require.NoError(t, err)

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, when := range []string{"before the rejection", "after it"} {
			_, err = c.OpenStreamSync(ctx)
			require.ErrorIs(t, err, quiclife.Err0RTTRejected, when)
			_, err = c.OpenUniStreamSync(ctx)
			require.ErrorIs(t, err, quiclife.Err0RTTRejected, when)
			settled()
		}
		_, err = c.OpenStream()
		require.ErrorIs(t, err, quiclife.Err0RTTRejected)
		_, err = c.OpenUniStream()
		require.ErrorIs(t, err, quiclife.Err0RTTRejected)

		_, err = c.NextConnection(ctx)
		require.NoError(t, err)
		next, err := c.OpenStream()
		require.NoError(t, err, "the slot of the dead stream is free")
		next.Release()
		str.Release()
		uni.Release()
	})
}

// When 0-RTT is rejected its streams are gone. NextConnection takes them out of
// the counts, and the connection is as good as new.
func Test0RTTRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, accept := dialEarly(t, true)
		var strs []*quiclife.Stream // untouched, written to, closed, being read
		for range 4 {
			str, err := c.OpenStream()
			require.NoError(t, err)
			strs = append(strs, str)
		}
		var unis []*quiclife.SendStream // untouched, written to, closed
		for range 3 {
			uni, err := c.OpenUniStream()
			require.NoError(t, err)
			unis = append(unis, uni)
		}
		readErr := make(chan error, 1)
		go func() {
			_, err := strs[3].Read(make([]byte, 1))
			readErr <- err
		}()
		for i := range 2 {
			write(t, strs[1+i], "lost")
			write(t, unis[1+i], "lost")
		}
		require.NoError(t, strs[2].Close())
		require.NoError(t, unis[2].Close())
		require.Equal(t, int64(4+2), c.Stats().Open())

		s := accept()
		<-c.HandshakeComplete()
		require.Equal(t, quiclife.Err0RTTRejected, <-readErr)
		synctest.Wait()
		stats := c.Stats()
		require.Equal(t, int64(4), stats.Outgoing.Open) // the one that was read: its send half is open
		requireBalance(t, stats)
		_, err := c.OpenStream()
		require.Equal(t, quiclife.Err0RTTRejected, err)
		_, err = c.OpenUniStreamSync(t.Context())
		require.Equal(t, quiclife.Err0RTTRejected, err)
		_, err = c.AcceptStream(t.Context())
		require.Equal(t, quiclife.Err0RTTRejected, err)

		next, err := c.NextConnection(t.Context())
		require.NoError(t, err)
		require.Same(t, c, next)
		require.False(t, c.ConnectionState().Used0RTT)
		stats = c.Stats()
		require.Zero(t, stats.Open())
		require.Equal(t, int64(4), stats.Outgoing.Reset)
		require.Equal(t, int64(2), stats.OutgoingUni.Reset)
		require.Equal(t, int64(1), stats.OutgoingUni.Finished)
		requireBalance(t, stats)

		// New streams have the IDs of the old ones, whose handles do them no harm.
		e := ends{c, s, c.Unwrap(), s.Unwrap()}
		str, in := e.stream(t)
		require.Equal(t, strs[0].StreamID(), str.StreamID())
		uni, err := c.OpenUniStreamSync(t.Context())
		require.NoError(t, err)
		for _, old := range strs {
			_, err := old.Read(make([]byte, 1))
			require.Equal(t, quiclife.Err0RTTRejected, err)
			_, err = old.Write([]byte("x"))
			require.Error(t, err)
			old.CancelRead(1)
			require.NoError(t, old.Close())
			old.Release()
		}
		for _, old := range unis {
			_, err = old.Write([]byte("x"))
			require.Error(t, err)
			require.NoError(t, old.Close())
			old.Release()
		}
		require.NoError(t, strs[0].Close())
		settled()
		require.Equal(t, int64(2), c.Stats().Open())

		write(t, uni, "new")
		require.NoError(t, uni.Close())
		inUni, err := s.AcceptUniStream(t.Context())
		require.NoError(t, err)
		b, err := io.ReadAll(inUni)
		require.NoError(t, err)
		require.Equal(t, "new", string(b))
		write(t, str, "new")
		require.NoError(t, str.Close())
		b, err = io.ReadAll(in)
		require.NoError(t, err)
		require.Equal(t, "new", string(b))
		in.Release()
		str.Release()

		// The server's streams are accepted as well.
		out, err := s.OpenStream()
		require.NoError(t, err)
		write(t, out, "x")
		back, err := c.AcceptStream(t.Context())
		require.NoError(t, err)
		back.Release()
		out.Release()
		settled()
		e.requireNothingLeft(t)
	})
}

// Without a rejection NextConnection ends nothing, and fails as quic-go's does.
func TestNextConnection(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		str, in := e.stream(t)
		for _, c := range []*quiclife.Conn{e.client, e.server} {
			next, err := c.NextConnection(t.Context())
			require.NoError(t, err)
			require.Same(t, c, next)
			require.Equal(t, int64(1), c.Stats().Open())
			require.Equal(t, int64(1), c.Stats().Outgoing.Opened+c.Stats().Incoming.Opened) // nor does it open anything
		}
		write(t, str, "alive")
		expect(t, in, "alive")
		str.Release()
		in.Release()
		settled()
		e.requireNothingLeft(t)
	})
	synctest.Test(t, func(t *testing.T) {
		c, _ := dialEarly(t, false)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := c.NextConnection(ctx) // while the handshake is under way
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, c.CloseWithError(3, ""))
		_, err = c.NextConnection(t.Context())
		require.ErrorIs(t, err, &quiclife.ApplicationError{ErrorCode: 3})
	})
}

type trace struct{}

func (trace) AddProducer() qlogwriter.Recorder { return recorder{} }

// What the wrapper does not deal with reaches quic-go.
func TestConnDelegates(t *testing.T) {
	conf := &quiclife.Config{
		EnableDatagrams: true,
		Tracer:          func(context.Context, bool, quiclife.ConnectionID) qlogwriter.Trace { return trace{} },
	}
	setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		require.NoError(t, e.client.SendDatagram([]byte("datagram")))
		b, err := e.server.ReceiveDatagram(t.Context())
		require.NoError(t, err)
		require.Equal(t, "datagram", string(b))
		require.ErrorAs(t, e.client.SendDatagram(make([]byte, 1<<16)), new(*quiclife.DatagramTooLargeError))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = e.server.ReceiveDatagram(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)

		settled()
		for _, end := range []struct {
			c   *quiclife.Conn
			raw *quic.Conn
		}{{e.client, e.rawClient}, {e.server, e.rawServer}} {
			require.Same(t, end.raw, end.c.Unwrap())
			require.True(t, end.c.ConnectionState().TLS.HandshakeComplete)
			require.Equal(t, "rig", end.c.ConnectionState().TLS.NegotiatedProtocol)
			require.True(t, end.c.ConnectionState().SupportsDatagrams.Remote)
			require.NotZero(t, end.c.ConnectionStats().PacketsSent)
			require.Equal(t, end.raw.ConnectionStats(), end.c.ConnectionStats())
			require.Equal(t, trace{}, end.c.QlogTrace())
			<-end.c.HandshakeComplete()
			require.Equal(t, end.raw.Context(), end.c.Context())
			require.Equal(t, end.raw.LocalAddr(), end.c.LocalAddr())
			require.Equal(t, end.raw.RemoteAddr(), end.c.RemoteAddr())
		}
		require.Equal(t, e.client.LocalAddr(), e.server.RemoteAddr())
		require.Equal(t, e.server.LocalAddr(), e.client.RemoteAddr())
		require.NotEqual(t, e.client.LocalAddr(), e.client.RemoteAddr())
	})
}

// A connection moves to another of our transports, with its streams.
func TestAddPath(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	ln, err := quiclife.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	defer ln.Close()
	first, second := &quiclife.Transport{Conn: udpSocket(t)}, &quiclife.Transport{Conn: udpSocket(t)}
	defer first.Close()
	defer second.Close()
	c, err := first.Dial(t.Context(), ln.Addr(), clientTLS, nil)
	require.NoError(t, err)
	defer c.CloseWithError(0, "")
	s, err := ln.Accept(t.Context())
	require.NoError(t, err)
	defer s.CloseWithError(0, "")
	str, in := ends{client: c, server: s}.stream(t)
	require.Equal(t, first.Conn.LocalAddr(), c.LocalAddr())

	path, err := c.AddPath(second)
	require.NoError(t, err)
	require.ErrorIs(t, path.Switch(), quiclife.ErrPathNotValidated)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, path.Probe(ctx))
	require.NoError(t, path.Switch())
	write(t, str, "moved")
	expect(t, in, "moved")
	write(t, in, "so it has")
	expect(t, str, "so it has")
	require.Equal(t, second.Conn.LocalAddr(), c.LocalAddr())
	eventually(t, func() bool { return s.RemoteAddr().String() == second.Conn.LocalAddr().String() })

	_, err = s.AddPath(second)
	require.Error(t, err) // it is for clients
}

// calls are the calls that fail when the connection has ended.
func calls(c *quiclife.Conn, str *quiclife.Stream, send *quiclife.SendStream, receive *quiclife.ReceiveStream) map[string]func() error {
	ctx := context.Background()
	b := make([]byte, 1)
	return map[string]func() error{
		"OpenStream":         func() error { _, err := c.OpenStream(); return err },
		"OpenStreamSync":     func() error { _, err := c.OpenStreamSync(ctx); return err },
		"OpenUniStream":      func() error { _, err := c.OpenUniStream(); return err },
		"OpenUniStreamSync":  func() error { _, err := c.OpenUniStreamSync(ctx); return err },
		"AcceptStream":       func() error { _, err := c.AcceptStream(ctx); return err },
		"AcceptUniStream":    func() error { _, err := c.AcceptUniStream(ctx); return err },
		"Read":               func() error { _, err := str.Read(b); return err },
		"Peek":               func() error { _, err := str.Peek(b); return err },
		"Write":              func() error { _, err := str.Write(b); return err },
		"large Write":        func() error { _, err := str.Write(make([]byte, 1<<20)); return err },
		"empty Write":        func() error { _, err := str.Write(nil); return err },
		"WriteWithLimit":     func() error { _, err := str.WriteWithLimit(b, func(n int) int { return n }); return err },
		"TryWriteAll":        func() error { return str.TryWriteAll(b) },
		"Context":            func() error { return context.Cause(str.Context()) },
		"SendStream.Write":   func() error { _, err := send.Write(b); return err },
		"SendStream.Context": func() error { return context.Cause(send.Context()) },
		"ReceiveStream.Read": func() error { _, err := receive.Read(b); return err },
		"ReceiveStream.Peek": func() error { _, err := receive.Peek(b); return err },
		"Conn.Context":       func() error { return context.Cause(c.Context()) },
	}
}

// After CloseWithError all streams are counted down, on the peer's end too
// once it has arrived there. Calls return what ended the connection, those
// that are blocked at once; calls that end something are quiet.
func TestCloseWithError(t *testing.T) {
	setup{serverConf: &quiclife.Config{MaxIncomingUniStreams: 1}}.in(t, func(t *testing.T, e ends) {
		str, in := e.stream(t)
		send, err := e.client.OpenUniStreamSync(t.Context())
		require.NoError(t, err)
		write(t, send, "x")
		receive, err := e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		expect(t, receive, "x")
		back, err := e.server.OpenUniStream()
		require.NoError(t, err)
		write(t, back, "x")
		received, err := e.client.AcceptUniStream(t.Context())
		require.NoError(t, err)
		expect(t, received, "x")
		half, _ := e.stream(t)
		require.NoError(t, half.Close())
		require.Equal(t, int64(4), e.client.Stats().Open())

		blocked := make(chan error, 5)
		for _, call := range []func() error{
			func() error { _, err := str.Read(make([]byte, 1)); return err },
			func() error { _, err := send.Write(make([]byte, 10<<20)); return err },
			func() error { _, err := e.client.AcceptStream(t.Context()); return err },
			func() error { _, err := e.client.OpenUniStreamSync(t.Context()); return err },
			func() error { _, err := half.Read(make([]byte, 1)); return err },
		} {
			go func() { blocked <- call() }()
		}
		synctest.Wait()
		require.Empty(t, blocked)

		require.NoError(t, e.client.CloseWithError(7, "enough"))
		local := &quiclife.ApplicationError{ErrorCode: 7, ErrorMessage: "enough"}
		for range cap(blocked) {
			require.Equal(t, local, <-blocked)
		}
		synctest.Wait()
		for i := range 2 {
			stats := e.client.Stats()
			require.Zero(t, stats.Open())
			require.Equal(t, []int64{2, 1, 1}, []int64{stats.Outgoing.Reset, stats.OutgoingUni.Reset, stats.IncomingUni.Reset})
			requireBalance(t, stats)
			for range e.client.Streams() {
				require.Fail(t, "no stream is open")
			}
			for name, call := range calls(e.client, str, send, received) {
				require.Equal(t, local, call(), name)
			}
			require.NoError(t, e.client.CloseWithError(8, "again"), i)
		}
		settled()
		remote := &quiclife.ApplicationError{Remote: true, ErrorCode: 7, ErrorMessage: "enough"}
		require.Zero(t, e.server.Stats().Open())
		requireBalance(t, e.server.Stats())
		for name, call := range calls(e.server, in, back, receive) {
			require.Equal(t, remote, call(), name)
		}
		require.NoError(t, e.server.CloseWithError(9, ""))
		require.Equal(t, remote, context.Cause(e.server.Context()))

		for _, s := range []*quiclife.Stream{str, in, half} {
			s.CancelRead(1)
			s.CancelWrite(1)
			require.NoError(t, s.Close())
			s.Release()
			s.Reset(1)
			require.NoError(t, s.SetDeadline(time.Now()))
			require.Equal(t, quiclife.HalfAborted, s.Info().Receive)
		}
		require.Equal(t, quiclife.HalfAborted, str.Info().Send)
		require.Equal(t, quiclife.HalfFinished, half.Info().Send)
		require.NoError(t, send.Close())
		receive.Release()
		requireBalance(t, e.client.Stats())
		requireBalance(t, e.server.Stats())
	})
}

func TestWrapClosed(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		require.NoError(t, e.rawClient.CloseWithError(7, ""))
		c := quiclife.Wrap(e.rawClient, nil)
		for range 2 {
			for name, call := range map[string]func() error{
				"OpenStream":     func() error { _, err := c.OpenStream(); return err },
				"OpenStreamSync": func() error { _, err := c.OpenStreamSync(t.Context()); return err },
				"AcceptStream":   func() error { _, err := c.AcceptStream(t.Context()); return err },
			} {
				require.Equal(t, &quiclife.ApplicationError{ErrorCode: 7}, call(), name)
			}
			require.Zero(t, c.Stats().Open())
			require.Zero(t, c.Stats().Outgoing.Opened)
			require.NoError(t, c.CloseWithError(8, ""))
			synctest.Wait()
		}
	})
}

func TestWrapNil(t *testing.T) {
	require.PanicsWithValue(t, "quiclife: Wrap of a nil connection", func() { quiclife.Wrap(nil, nil) })
}

// Two wrappers of one connection have each its own streams.
func TestWrapTwice(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		other := quiclife.Wrap(e.rawClient, nil)
		str, in := e.stream(t)
		str2, in2 := ends{client: other, server: e.server}.stream(t)
		require.Equal(t, int64(1), e.client.Stats().Outgoing.Opened)
		require.Equal(t, int64(1), other.Stats().Outgoing.Opened)
		for _, s := range []*quiclife.Stream{str, in} {
			s.Release()
		}
		require.Zero(t, e.client.Stats().Open())
		require.Equal(t, int64(1), other.Stats().Open())
		write(t, str2, "y")
		expect(t, in2, "y")
		require.NoError(t, e.client.CloseWithError(7, ""))
		synctest.Wait()
		require.Zero(t, other.Stats().Open()) // it is the connection that has ended
		requireBalance(t, other.Stats())
	})
}

// The Guard forgets a connection that has ended, if nobody asks it anything.
func TestEndedConnIsForgotten(t *testing.T) {
	guard := &quiclife.Guard{}
	e := setup{guard: guard}.onLoopback(t)
	e.stream(t)
	forgotten := []weak.Pointer[quiclife.Conn]{weak.Make(e.client), weak.Make(e.server)}
	rc, rs := e.rawClient, e.rawServer
	e = ends{}
	require.NoError(t, rc.CloseWithError(0, ""))
	<-rs.Context().Done()
	for _, c := range forgotten {
		eventually(t, func() bool { runtime.GC(); return c.Value() == nil })
	}
	runtime.KeepAlive(rc)
	runtime.KeepAlive(rs)
	runtime.KeepAlive(guard)
}

// A stream that is opened or accepted just when the connection ends has ended
// with it, and does not stay in the counts: Conn.end and register may come in
// any order.
func TestStreamsRaceWithEnd(t *testing.T) {
	type stream interface{ Info() quiclife.StreamInfo }
	const rounds, goroutines, each = 60, 8, 40
	conf := &quiclife.Config{MaxIncomingStreams: 1000, MaxIncomingUniStreams: 1000}
	// With more threads than cores goroutines are interrupted anywhere.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8 * runtime.NumCPU()))
	for round := range rounds {
		opens := round%2 > 0 // the client closes while it opens; else the server while it accepts
		setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
			var racing sync.WaitGroup
			streams := make(chan stream, 1<<16)
			var accepted atomic.Int64
			someAccepted := make(chan struct{})
			for range goroutines {
				for _, call := range []func() (stream, error){
					func() (stream, error) {
						if accepted.Add(1) == 100 {
							close(someAccepted)
						}
						return e.server.AcceptStream(t.Context())
					},
					func() (stream, error) { return e.server.AcceptUniStream(t.Context()) },
					func() (stream, error) { return e.client.OpenStream() },
					func() (stream, error) { return e.client.OpenUniStream() },
					func() (stream, error) {
						s, err := e.client.OpenStreamSync(t.Context())
						if err == nil {
							s.Write([]byte("x")) // the peer accepts it, and those before
						}
						return s, err
					},
				} {
					racing.Go(func() {
						for range each {
							s, err := call()
							if err != nil {
								if !errors.As(err, new(*quiclife.ApplicationError)) {
									t.Error(err)
								}
								return
							}
							streams <- s
							runtime.Gosched()
						}
					})
				}
			}
			if opens {
				for range rand.IntN(100) {
					runtime.Gosched()
				}
				require.NoError(t, e.client.CloseWithError(1, ""))
			} else {
				<-someAccepted
				require.NoError(t, e.server.CloseWithError(1, ""))
			}
			racing.Wait()
			settled()
			close(streams)
			for s := range streams { // before Stats is asked, which sees to it too
				if info := s.Info(); info.Send == quiclife.HalfOpen || info.Receive == quiclife.HalfOpen {
					require.Fail(t, "not ended", "round %d: %v", round, info)
				}
			}
			for _, c := range []*quiclife.Conn{e.client, e.server} {
				require.Zero(t, c.Stats().Open(), "round %d: %+v", round, c.Stats())
				requireBalance(t, c.Stats())
			}
		})
	}
}

// A ConnContext may return a context that ends before the connection, as one
// that it derives from the server's own. That ends nothing, as in quic-go.
func TestConnContextThatEndsEarlyEndsNothing(t *testing.T) {
	type key struct{}
	for _, derived := range []bool{true, false} {
		t.Run(fmt.Sprintf("derived=%t", derived), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				early, endEarly := context.WithCancel(context.Background())
				tr := &quiclife.Transport{ConnContext: func(ctx context.Context, _ *quiclife.ClientInfo) (context.Context, error) {
					if !derived {
						ctx = early
					}
					ctx, cancel := context.WithCancel(context.WithValue(ctx, key{}, "mine"))
					context.AfterFunc(early, cancel)
					return ctx, nil
				}}
				e := onTransports(t, tr, nil)
				client, server := e.stream(t)
				served := e.serve(t.Context(), quiclife.Handler{Stream: func(_ context.Context, s *quiclife.Stream) error {
					_, err := io.Copy(s, s)
					return err
				}})
				require.NoError(t, context.Cause(e.server.Context()))
				endEarly()
				settled()
				require.ErrorIs(t, e.server.Context().Err(), context.Canceled, "it is quic-go's")
				require.Equal(t, "mine", e.server.Context().Value(key{}))

				require.EqualValues(t, 1, e.server.Stats().Open())
				write(t, server, "answer")
				require.NoError(t, server.Close())
				b, err := io.ReadAll(client)
				require.NoError(t, err)
				require.Equal(t, "answer", string(b))
				require.NoError(t, client.Close())
				require.NoError(t, e.client.Do(t.Context(), func(s *quiclife.Stream) error {
					write(t, s, "x")
					expect(t, s, "x")
					return nil
				}))
				select {
				case err := <-served:
					t.Fatalf("Serve returned: %v", err)
				default:
				}

				out, err := e.server.OpenUniStream()
				require.NoError(t, err)
				write(t, out, "last")
				time.AfterFunc(time.Second, func() { out.Close() })
				in, err := e.client.AcceptUniStream(t.Context())
				require.NoError(t, err)
				read := make(chan string, 1)
				go func() {
					b, _ := io.ReadAll(in)
					read <- string(b)
				}()
				_, err = server.Read(make([]byte, 1))
				require.Equal(t, io.EOF, err)
				require.NoError(t, e.server.Shutdown(t.Context(), 7, "bye"))
				require.Equal(t, quiclife.ErrShutdown, <-served)
				require.Equal(t, "last", <-read)
				settled()
				require.ErrorIs(t, context.Cause(e.client.Context()), &quiclife.ApplicationError{Remote: true, ErrorCode: 7, ErrorMessage: "bye"})
				require.Zero(t, e.server.Stats().Open())
			})
		})
	}
}

// The same, with CloseWithError.
func TestCloseWithErrorAfterConnContextEnded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		early, endEarly := context.WithCancel(context.Background())
		guard := &quiclife.Guard{}
		tr := &quiclife.Transport{Guard: guard, ConnContext: func(context.Context, *quiclife.ClientInfo) (context.Context, error) {
			return early, nil
		}}
		e := onTransports(t, tr, nil)
		_, server := e.stream(t)
		endEarly()
		require.NotEmpty(t, conns(guard))
		require.NoError(t, e.server.CloseWithError(7, ""))
		require.Zero(t, e.server.Stats().Open())
		require.Empty(t, conns(guard))
		_, err := e.server.OpenStream()
		require.ErrorIs(t, err, &quiclife.ApplicationError{ErrorCode: 7}, "the connection has really ended")
		_, err = server.Read(make([]byte, 1))
		require.ErrorIs(t, err, &quiclife.ApplicationError{ErrorCode: 7})
		settled()
		require.ErrorIs(t, context.Cause(e.client.Context()), &quiclife.ApplicationError{Remote: true, ErrorCode: 7})
	})
}

// TestCloseWithErrorReturnsBeforeStreamIsEnded: the counts are down also of a
// stream that another call is just ending.
func TestCloseWithErrorReturnsBeforeStreamIsEnded(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		s, err := e.client.OpenUniStream()
		require.NoError(t, err)
		quiclife.AfterClose(s, func() { time.Sleep(time.Second) })
		go s.Close()
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, e.client.CloseWithError(1, ""))
		require.Zero(t, e.client.Stats().Open())
	})
}

// TestAcceptStreamWithDoneContext: a stream that is queued is returned, as
// quic-go does, and then the context's error.
func TestAcceptStreamWithDoneContext(t *testing.T) {
	done, cancel := context.WithCancel(context.Background())
	cancel()
	for name, accept := range map[string]func(e ends) error{
		"AcceptStream":            func(e ends) error { _, err := e.server.AcceptStream(done); return err },
		"AcceptUniStream":         func(e ends) error { _, err := e.server.AcceptUniStream(done); return err },
		"quic-go AcceptStream":    func(e ends) error { _, err := e.rawServer.AcceptStream(done); return err },
		"quic-go AcceptUniStream": func(e ends) error { _, err := e.rawServer.AcceptUniStream(done); return err },
	} {
		setup{}.in(t, func(t *testing.T, e ends) {
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			defer s.Release()
			write(t, s, "x")
			uni, err := e.client.OpenUniStream()
			require.NoError(t, err)
			defer uni.Release()
			write(t, uni, "x")
			settled()
			require.NoError(t, accept(e), name)
			require.Equal(t, context.Canceled, accept(e), name)
		})
	}
}

// Nothing holds a connection that has ended.
func TestEdgeConnGone(t *testing.T) {
	guard := &quiclife.Guard{}
	var conn weak.Pointer[quiclife.Conn]
	func() {
		conf := &quic.Config{MaxIncomingStreams: 1}
		e := setup{guard: guard, serverConf: conf}.onLoopback(t)
		conn = weak.Make(e.client)
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		_, err = e.client.OpenStream() // arms the retry
		require.Error(t, err)
		s.Close() // arms the sweep
		e.client.CloseWithError(0, "")
		e.server.CloseWithError(0, "")
	}()
	for range 500 {
		runtime.GC()
		if conn.Value() == nil {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	require.Nil(t, conn.Value())
	runtime.KeepAlive(guard)
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
