package quiclife_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
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

// NextConnection does no harm if 0-RTT was accepted.
func TestAccepted0RTTDataArrives(t *testing.T) {
	bubble(t, func(t *testing.T) {
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
		expectAll(t, inUni, "too")

		next, err := c.NextConnection(t.Context())
		require.NoError(t, err)
		require.Same(t, c, next)
		require.True(t, c.ConnectionState().Used0RTT, "the client's end has not used 0-RTT")
		require.True(t, s.ConnectionState().Used0RTT, "the server's end has not used 0-RTT")
		require.Equal(t, int64(1), c.Stats().Open(), "NextConnection ended the stream, or the unidirectional one is open")
		write(t, early, " bird")
		require.NoError(t, early.Close())
		expect(t, in, " bird")
		in.Release()
		early.Release()
		settled()
		ends{c, s, c.Unwrap(), s.Unwrap()}.requireNothingLeft(t)
	})
}

// TestOpenAtOwnLimitLearnsOf0RTTRejection: the streams opened before the
// rejection hold all slots until NextConnection. So an open fails as in
// quic-go, whether it already waits when the rejection comes or starts after
// it.
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

// earlyStreams opens streams of both kinds: the first is untouched, the second
// is written to, the third is closed too.
func earlyStreams(t *testing.T, c *quiclife.Conn) (strs []*quiclife.Stream, unis []*quiclife.SendStream) {
	for i := range 3 {
		str, err := c.OpenStream()
		require.NoError(t, err)
		uni, err := c.OpenUniStream()
		require.NoError(t, err)
		if i > 0 {
			write(t, str, "lost")
			write(t, uni, "lost")
		}
		if i > 1 {
			require.NoError(t, str.Close())
			require.NoError(t, uni.Close())
		}
		strs, unis = append(strs, str), append(unis, uni)
	}
	return strs, unis
}

// When 0-RTT is rejected, its streams are gone. Until NextConnection, calls
// fail as in quic-go. NextConnection takes the streams out of the counts.
func TestNextConnectionEndsStreamsOfRejected0RTT(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, accept := dialEarly(t, true)
		strs, unis := earlyStreams(t, c)
		read, err := c.OpenStream()
		require.NoError(t, err)
		readErr := make(chan error, 1)
		go func() {
			_, err := read.Read(make([]byte, 1))
			readErr <- err
		}()
		require.Equal(t, int64(4+2), c.Stats().Open())

		accept()
		<-c.HandshakeComplete()
		require.Equal(t, quiclife.Err0RTTRejected, <-readErr)
		synctest.Wait()
		stats := c.Stats()
		require.Equal(t, int64(4), stats.Outgoing.Open, "the send half of the one that was read is open")
		requireBalance(t, stats)
		_, err = c.OpenStream()
		require.Equal(t, quiclife.Err0RTTRejected, err)
		_, err = c.OpenUniStreamSync(t.Context())
		require.Equal(t, quiclife.Err0RTTRejected, err)
		_, err = c.AcceptStream(t.Context())
		require.Equal(t, quiclife.Err0RTTRejected, err)

		next, err := c.NextConnection(t.Context())
		require.NoError(t, err)
		require.Same(t, c, next)
		require.False(t, c.ConnectionState().Used0RTT, "0-RTT was used after all")
		stats = c.Stats()
		require.Zero(t, stats.Open())
		require.Equal(t, int64(4), stats.Outgoing.Reset)
		require.Equal(t, int64(2), stats.OutgoingUni.Reset)
		require.Equal(t, int64(1), stats.OutgoingUni.Finished)
		requireBalance(t, stats)
		keep(t, strs)
		keep(t, unis)
	})
}

// New streams have the same IDs as those opened before the rejection. Calls on
// the old streams must not reach the new ones.
func TestStreamsOfRejected0RTTDoNotTouchThoseAfterIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, accept := dialEarly(t, true)
		strs, unis := earlyStreams(t, c)
		s := accept()
		_, err := c.NextConnection(t.Context())
		require.NoError(t, err)

		e := ends{c, s, c.Unwrap(), s.Unwrap()}
		for i, old := range strs { // each has the ID of a new one
			str, in := e.stream(t)
			require.Equal(t, old.StreamID(), str.StreamID())
			uni, err := c.OpenUniStreamSync(t.Context())
			require.NoError(t, err)
			require.Equal(t, unis[i].StreamID(), uni.StreamID())

			_, err = old.Read(make([]byte, 1))
			require.Equal(t, quiclife.Err0RTTRejected, err)
			_, err = old.Write([]byte("x"))
			require.Error(t, err)
			old.CancelRead(1)
			old.CancelWrite(1)
			require.NoError(t, old.Close())
			old.Release()
			old.Reset(1)
			_, err = unis[i].Write([]byte("x"))
			require.Error(t, err)
			require.NoError(t, unis[i].Close())
			unis[i].Release()
			unis[i].Reset(1)
			settled()
			require.Equal(t, int64(2), c.Stats().Open(), "the old handles ended new streams")

			write(t, uni, "new")
			require.NoError(t, uni.Close())
			inUni, err := s.AcceptUniStream(t.Context())
			require.NoError(t, err)
			expectAll(t, inUni, "new")
			write(t, str, "new")
			require.NoError(t, str.Close())
			expectAll(t, in, "new")
			in.Release()
			str.Release()
			settled()
		}

		out, err := s.OpenStream() // the server's streams are accepted as well
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

func TestNextConnectionWithoutRejectionEndsNothing(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		str, in := e.stream(t)
		for _, c := range []*quiclife.Conn{e.client, e.server} {
			next, err := c.NextConnection(t.Context())
			require.NoError(t, err)
			require.Same(t, c, next)
			require.Equal(t, int64(1), c.Stats().Open())
			require.Equal(t, int64(1), c.Stats().Outgoing.Opened+c.Stats().Incoming.Opened, "it opened a stream")
		}
		write(t, str, "alive")
		expect(t, in, "alive")
		str.Release()
		in.Release()
		settled()
		e.requireNothingLeft(t)
	})
}

func TestNextConnectionFailsWithItsContextOrTheConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := dialEarly(t, false)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := c.NextConnection(ctx) // during the handshake
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, c.CloseWithError(3, ""))
		_, err = c.NextConnection(t.Context())
		require.ErrorIs(t, err, &quiclife.ApplicationError{ErrorCode: 3})
	})
}

type trace struct{}

func (trace) AddProducer() qlogwriter.Recorder { return recorder{} }

// Calls that the wrapper only passes on reach quic-go.
func TestConnPassesOtherCallsToQUICGo(t *testing.T) {
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
			name string
			c    *quiclife.Conn
			raw  *quic.Conn
		}{{"client", e.client, e.rawClient}, {"server", e.server, e.rawServer}} {
			require.Same(t, end.raw, end.c.Unwrap(), end.name)
			state := end.c.ConnectionState()
			require.True(t, state.TLS.HandshakeComplete, end.name)
			require.Equal(t, "rig", state.TLS.NegotiatedProtocol, end.name)
			require.True(t, state.SupportsDatagrams.Remote, end.name)
			require.NotZero(t, end.c.ConnectionStats().PacketsSent, end.name)
			require.Equal(t, end.raw.ConnectionStats(), end.c.ConnectionStats(), end.name)
			require.Equal(t, trace{}, end.c.QlogTrace(), end.name)
			<-end.c.HandshakeComplete()
			require.Equal(t, end.raw.Context(), end.c.Context(), end.name)
			require.Equal(t, end.raw.LocalAddr(), end.c.LocalAddr(), end.name)
			require.Equal(t, end.raw.RemoteAddr(), end.c.RemoteAddr(), end.name)
		}
		require.Equal(t, e.client.LocalAddr(), e.server.RemoteAddr())
		require.Equal(t, e.server.LocalAddr(), e.client.RemoteAddr())
		require.NotEqual(t, e.client.LocalAddr(), e.client.RemoteAddr())
	})
}

// A connection moves to another Transport, and its streams move with it.
func TestAddPathMovesConnectionWithItsStreams(t *testing.T) {
	bubble(t, func(t *testing.T) {
		serverTLS, clientTLS := quictest.TLS()
		clients, sc, addr := quictest.Net{}.Star(t, 2)
		server := &quiclife.Transport{Conn: sc}
		first, second := &quiclife.Transport{Conn: clients[0]}, &quiclife.Transport{Conn: clients[1]}
		for _, tr := range []*quiclife.Transport{server, first, second} {
			t.Cleanup(func() { tr.Close() })
		}
		ln, err := server.Listen(serverTLS, nil)
		require.NoError(t, err)
		c, err := first.Dial(t.Context(), addr, clientTLS, nil)
		require.NoError(t, err)
		s, err := ln.Accept(t.Context())
		require.NoError(t, err)
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
		settled()
		require.Equal(t, second.Conn.LocalAddr(), c.LocalAddr())
		require.Equal(t, second.Conn.LocalAddr().String(), s.RemoteAddr().String())

		_, err = s.AddPath(second)
		require.ErrorContains(t, err, "server", "it is for clients")
	})
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

// After CloseWithError no stream is counted as open, nor at the peer once the
// close has arrived there. Calls return the error that ended the connection,
// and blocked calls return at once. Calls that end something return no error.
func TestCloseWithErrorEndsStreamsAndCalls(t *testing.T) {
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
		require.Empty(t, blocked, "a call returned before the end")

		require.NoError(t, e.client.CloseWithError(7, "enough"))
		local := &quiclife.ApplicationError{ErrorCode: 7, ErrorMessage: "enough"}
		for range cap(blocked) {
			require.Equal(t, local, <-blocked)
		}
		synctest.Wait()
		for range 2 { // CloseWithError may be called again
			stats := e.client.Stats()
			require.Zero(t, stats.Open())
			require.Equal(t, []int64{2, 1, 1}, []int64{stats.Outgoing.Reset, stats.OutgoingUni.Reset, stats.IncomingUni.Reset},
				"reset of outgoing, outgoing and incoming unidirectional streams")
			requireBalance(t, stats)
			for info := range e.client.Streams() {
				require.Fail(t, "a stream is still listed", "%v", info)
			}
			for name, call := range calls(e.client, str, send, received) {
				require.Equal(t, local, call(), name)
			}
			require.NoError(t, e.client.CloseWithError(8, "again"))
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
		}
		requireHalves(t, str, quiclife.HalfAborted, quiclife.HalfAborted)
		requireHalves(t, in, quiclife.HalfAborted, quiclife.HalfAborted)
		requireHalves(t, half, quiclife.HalfFinished, quiclife.HalfAborted)
		require.NoError(t, send.Close())
		receive.Release()
		requireBalance(t, e.client.Stats())
		requireBalance(t, e.server.Stats())
	})
}

func TestWrapOfEndedConnectionFailsAsThatDoes(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		require.NoError(t, e.rawClient.CloseWithError(7, ""))
		c := quiclife.Wrap(e.rawClient, nil)
		for range 2 { // before and after the end is noticed
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

func TestWrapOfNilPanics(t *testing.T) {
	require.PanicsWithValue(t, "quiclife: Wrap of a nil connection", func() { quiclife.Wrap(nil, nil) })
}

func TestTwoWrappersOfOneConnectionCountTheirOwnStreams(t *testing.T) {
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
		require.Zero(t, other.Stats().Open(), "it is the connection that has ended")
		requireBalance(t, other.Stats())
	})
}

// The Guard forgets a connection that has ended, even if nobody calls it.
func TestEndedConnIsForgotten(t *testing.T) {
	guard := &quiclife.Guard{}
	e := setup{guard: guard}.onLoopback(t)
	e.stream(t)
	forgotten := map[string]weak.Pointer[quiclife.Conn]{"client": weak.Make(e.client), "server": weak.Make(e.server)}
	rc, rs := e.rawClient, e.rawServer
	e = ends{}
	require.NoError(t, rc.CloseWithError(0, ""))
	<-rs.Context().Done()
	for end, c := range forgotten {
		eventually(t, func() bool { runtime.GC(); return c.Value() == nil }, end)
	}
	runtime.KeepAlive(rc)
	runtime.KeepAlive(rs)
	runtime.KeepAlive(guard)
}

// A stream that is opened or accepted just when the connection ends does not
// stay in the counts: Conn.end and register may come in any order.
func TestStreamThatComesAsConnectionEndsStaysOpen(t *testing.T) {
	type stream interface{ Info() quiclife.StreamInfo }
	const goroutines, each = 8, 40
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	conf := &quiclife.Config{MaxIncomingStreams: 1000, MaxIncomingUniStreams: 1000}
	// With more threads than cores, goroutines are interrupted anywhere.
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
								if _, ok := errors.AsType[*quiclife.ApplicationError](err); !ok {
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
			for s := range streams { // before Stats is called, which would end them too
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

// A ConnContext may return a context that is done before the connection ends,
// such as one derived from the server's. As in quic-go, that ends nothing.
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
				e := onTransports(t, tr)
				client, server := e.stream(t)
				served := e.serve(t.Context(), quiclife.Handlers{Stream: func(_ context.Context, s *quiclife.Stream) error {
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

// CloseWithError ends the connection even if its context was done before.
func TestCloseWithErrorAfterConnContextEnded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		early, endEarly := context.WithCancel(context.Background())
		guard := &quiclife.Guard{}
		tr := &quiclife.Transport{Guard: guard, ConnContext: func(context.Context, *quiclife.ClientInfo) (context.Context, error) {
			return early, nil
		}}
		e := onTransports(t, tr)
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

// The counts also no longer have a stream that another call is just ending.
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

// As in quic-go, a queued stream is returned first, and then the context's
// error.
func TestAcceptStreamWithDoneContextReturnsWhatIsQueued(t *testing.T) {
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

// Nor does a timer that is still pending keep it alive.
func TestEndedConnIsForgottenByItsTimer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		guard := &quiclife.Guard{HalfCloseTimeout: time.Hour, Logger: slog.New(slog.DiscardHandler)}
		rc, _ := quictest.Net{}.Pair(t, nil, nil)
		conn := func() weak.Pointer[quiclife.Conn] {
			c := guard.Wrap(rc, nil)
			s, err := c.OpenStream()
			require.NoError(t, err)
			s.Close() // sets the timer
			c.CloseWithError(0, "")
			return weak.Make(c)
		}()
		time.Sleep(time.Second / 2) // less than any timer waits
		for range 3 {
			runtime.GC()
		}
		require.True(t, conn.Value() == nil, "something holds the connection")
		runtime.KeepAlive(guard)
	})
}

// When CloseWithError returns, the connection has left its group, whether
// CloseWithError or quic-go's goroutine took it out.
func TestCloseWithErrorReturnsBeforeGroupForgetsConn(t *testing.T) {
	const each = 40
	bubble(t, func(t *testing.T) {
		guard := &quiclife.Guard{}
		site := newSite(t, &quiclife.Transport{Guard: guard}, nil)
		var all []*quiclife.Conn
		for range each {
			all = append(all, site.connect(t).server)
		}
		var closing sync.WaitGroup
		for _, c := range all {
			closing.Go(func() {
				c.CloseWithError(1, "")
				if slices.Contains(conns(guard), c) {
					t.Error("the connection is still listed")
				}
			})
		}
		closing.Wait()
	})
}
