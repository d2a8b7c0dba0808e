package quiclife_test

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// onListener is a listener with clients that have dialed it, in fake time.
type onListener struct {
	guard   *quiclife.Guard
	ln      *quiclife.Listener
	clients []*quiclife.Conn
	sockets []net.PacketConn // of the clients
}

// listening makes an onListener inside a bubble. What it makes is closed at the
// end of the test.
func listening(t *testing.T, guard *quiclife.Guard, conf *quic.Config, clients int) onListener {
	t.Helper()
	serverTLS, clientTLS := quictest.TLS()
	// Acknowledgements change the RTT, as in real networks. Shutdown needs that
	// to notice them.
	jitter := func() time.Duration { return rand.N(time.Millisecond) }
	sockets, socket, addr := quictest.Net{Jitter: jitter}.Star(t, clients)
	guard.Logger = slog.New(slog.DiscardHandler)
	server := &quiclife.Transport{Conn: socket, Guard: guard}
	ln, err := server.Listen(serverTLS, conf)
	require.NoError(t, err)
	t.Cleanup(func() { server.Close() })
	l := onListener{guard: guard, ln: ln, sockets: sockets}
	for _, socket := range sockets {
		client := &quiclife.Transport{Conn: socket, Guard: &quiclife.Guard{Logger: guard.Logger}}
		t.Cleanup(func() { client.Close() })
		c, err := client.Dial(t.Context(), addr, clientTLS, conf)
		require.NoError(t, err)
		l.clients = append(l.clients, c)
	}
	return l
}

// dial opens a stream on a client's connection, and writes s on it.
func (l onListener) dial(t *testing.T, client int, s string) *quiclife.NetConn {
	t.Helper()
	c, err := l.clients[client].DialContext(t.Context(), "tcp", "ignored:80")
	require.NoError(t, err)
	write(t, c, s)
	return c.(*quiclife.NetConn)
}

// accept accepts a stream, and requires that its first bytes are s.
func accept(t *testing.T, ln net.Listener, s string) *quiclife.NetConn {
	t.Helper()
	c, err := ln.Accept()
	require.NoError(t, err)
	expect(t, c, s)
	return c.(*quiclife.NetConn)
}

// requirePeersReset requires that the peer has reset c with code.
func requirePeersReset(t *testing.T, c *quiclife.NetConn, code quiclife.StreamErrorCode) {
	t.Helper()
	_, err := c.Read(make([]byte, 1))
	var reset *quiclife.StreamError
	require.ErrorAs(t, err, &reset)
	require.Equal(t, code, reset.ErrorCode)
	require.True(t, reset.Remote)
}

// requireClosedByPeer requires that c has been closed with code 0.
func requireClosedByPeer(t *testing.T, c *quiclife.Conn) {
	t.Helper()
	var closed *quiclife.ApplicationError
	require.ErrorAs(t, context.Cause(c.Context()), &closed)
	require.True(t, closed.Remote)
	require.Zero(t, closed.ErrorCode)
}

// acceptLater calls Accept in a goroutine, and returns a channel for its error.
func acceptLater(ln net.Listener) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := ln.Accept()
		done <- err
	}()
	return done
}

// TestNetListenerHasStreamsOfAllConns: each stream knows its connection.
func TestNetListenerHasStreamsOfAllConns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := listening(t, &quiclife.Guard{}, nil, 3)
		ln := l.ln.NetListener()
		require.Equal(t, l.ln.Addr(), ln.Addr())
		for range 5 {
			for i, client := range l.clients {
				c := l.dial(t, i, "question")
				served := accept(t, ln, "question")
				require.Equal(t, client.LocalAddr().String(), served.Stream().Conn().RemoteAddr().String())
				require.Equal(t, served.RemoteAddr(), served.Stream().Conn().RemoteAddr())
				require.Same(t, client, c.Stream().Conn())
				write(t, served, "answer")
				require.NoError(t, served.Close())
				got, err := io.ReadAll(c)
				require.NoError(t, err)
				require.Equal(t, "answer", string(got))
				require.NoError(t, c.Close())
			}
		}
		settled()
		for c := range l.guard.Conns() {
			require.Zero(t, c.Stats().Open())
			require.EqualValues(t, 5, c.Stats().Incoming.Opened)
		}
		require.NoError(t, ln.Close())
		settled()
	})
}

// TestListenerHasOneUserAtATime: Accept, Serve or NetListener. The others fail
// at once, and their errors name the user.
func TestListenerHasOneUserAtATime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		begin := func(l onListener, name string) (end func()) {
			done := make(chan error, 1)
			if name == "NetListener" {
				ln := l.ln.NetListener()
				go func() { _, err := ln.Accept(); done <- err }()
				return func() {
					require.NoError(t, ln.Close())
					require.Equal(t, net.ErrClosed, <-done)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			switch name {
			case "Accept":
				go func() {
					for { // including the connections that the clients have dialed
						if _, err := l.ln.Accept(ctx); err != nil {
							done <- err
							return
						}
					}
				}()
			case "Serve":
				go func() { done <- l.ln.Serve(ctx, quiclife.Handlers{}) }()
			}
			settled()
			return func() {
				cancel()
				require.Equal(t, context.Canceled, <-done, name)
			}
		}
		for _, first := range []string{"Accept", "Serve", "NetListener"} {
			l := listening(t, &quiclife.Guard{}, nil, 1)
			end := begin(l, first)
			settled()
			inUse := ": the listener is in use by " + first
			if first != "Accept" {
				_, err := l.ln.Accept(t.Context())
				require.EqualError(t, err, "quiclife: Accept"+inUse)
			} else {
				done, cancel := context.WithCancel(t.Context())
				cancel()
				_, err := l.ln.Accept(done)
				require.Equal(t, context.Canceled, err, "Accepts go together")
			}
			require.EqualError(t, l.ln.Serve(t.Context(), quiclife.Handlers{}), "quiclife: Serve"+inUse)
			second := l.ln.NetListener()
			_, err := second.Accept()
			require.EqualError(t, err, "quiclife: NetListener"+inUse)
			require.NoError(t, second.Close())
			require.Equal(t, net.ErrClosed, second.Close())
			end()
			if first == "Accept" { // none of them has closed the listener
				end = begin(l, "Serve")
				end()
			}
			settled()
			_, err = l.ln.Accept(t.Context())
			require.Equal(t, quiclife.ErrServerClosed, err)
			_, err = l.ln.NetListener().Accept()
			require.Equal(t, quiclife.ErrServerClosed, err)
			require.Equal(t, quiclife.ErrServerClosed, l.ln.Serve(t.Context(), quiclife.Handlers{}))
			l.clients[0].CloseWithError(0, "")
			settled()
		}
	})
}

// TestNetListenerCloseLetsStreamsLiveOn: Close refuses new streams, and each
// connection is closed when the last of its streams has ended.
func TestNetListenerCloseLetsStreamsLiveOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		conf := &quic.Config{MaxIncomingStreams: 10}
		l := listening(t, &quiclife.Guard{Codes: quiclife.Codes{Refused: 4}}, conf, 2)
		ln := l.ln.NetListener()
		c := l.dial(t, 0, "question")
		served := accept(t, ln, "question")
		blocked := acceptLater(ln)
		settled()
		require.NoError(t, ln.Close())
		require.Equal(t, net.ErrClosed, <-blocked)
		require.Equal(t, net.ErrClosed, ln.Close())
		_, err := ln.Accept()
		require.Equal(t, net.ErrClosed, err)
		settled()
		requireClosedByPeer(t, l.clients[1]) // it had no stream

		for range 30 { // refused, and their slots come back
			refused := l.dial(t, 0, "late")
			requirePeersReset(t, refused, 4)
			refused.Close()
		}
		require.NoError(t, context.Cause(l.clients[0].Context()))
		write(t, c, "more")
		expect(t, served, "more")
		write(t, served, "answer")
		require.NoError(t, served.Close())
		got, err := io.ReadAll(c)
		require.NoError(t, err, "what was written last arrives")
		require.Equal(t, "answer", string(got))
		c.Close()
		ended := time.Now()
		<-l.clients[0].Context().Done()
		require.Less(t, time.Since(ended), 10*time.Second, "DrainTimeout has closed it")
		requireClosedByPeer(t, l.clients[0])
	})
}

// TestNetListenerCloseLosesNoAnswer: the stream has ended here, but not
// everything that was written was sent.
func TestNetListenerCloseLosesNoAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := listening(t, &quiclife.Guard{}, nil, 1)
		ln := l.ln.NetListener()
		c := l.dial(t, 0, "question")
		served := accept(t, ln, "question")
		require.NoError(t, c.CloseWrite())
		expectAll(t, served, "")
		require.NoError(t, ln.Close())
		read := make(chan int, 1)
		go func() {
			b, _ := io.ReadAll(c)
			read <- len(b)
		}()
		for _, size := range []int{200_000, 10_000} { // the second is only queued
			write(t, served, string(make([]byte, size)))
		}
		require.NoError(t, served.Close())
		require.Equal(t, 210_000, <-read, "bytes of the answer that arrived")
		c.Close()
	})
}

// TestNetListenerCloseRefusesWhatNobodyAccepted: a stream that waits to be
// handed out, the streams behind it, and connections.
func TestNetListenerCloseRefusesWhatNobodyAccepted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := listening(t, &quiclife.Guard{Codes: quiclife.Codes{Refused: 4}}, nil, 2)
		ln := l.ln.NetListener()
		first := l.dial(t, 0, "first")
		accept(t, ln, "first")
		var late []*quiclife.NetConn
		for range 3 {
			late = append(late, l.dial(t, 0, "late"))
		}
		settled()
		require.NoError(t, ln.Close())
		for _, c := range late {
			requirePeersReset(t, c, 4)
			c.Close()
		}
		first.Close()

		l = listening(t, &quiclife.Guard{}, nil, 1)
		settled()
		require.NoError(t, l.ln.NetListener().Close()) // its Accept was never called
		settled()
		requireClosedByPeer(t, l.clients[0])
	})
}

// TestNetListenerEndsWithListener: after the listener's own Close, and after
// Guard.Shutdown, Accept returns an error that ends a server's loop.
func TestNetListenerEndsWithListener(t *testing.T) {
	for name, end := range map[string]func(*testing.T, onListener) <-chan error{
		"Listener.Close": func(t *testing.T, l onListener) <-chan error {
			done := make(chan error, 1)
			done <- l.ln.Close()
			return done
		},
		"Guard.Shutdown": func(t *testing.T, l onListener) <-chan error {
			done := make(chan error, 1)
			go func() { done <- l.guard.Shutdown(t.Context()) }()
			return done
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				l := listening(t, &quiclife.Guard{}, nil, 2)
				ln := l.ln.NetListener()
				c := l.dial(t, 0, "question")
				served := accept(t, ln, "question")
				blocked := acceptLater(ln)
				settled()
				ended := end(t, l)
				err := <-blocked
				require.ErrorIs(t, err, quiclife.ErrServerClosed)
				require.ErrorIs(t, err, net.ErrClosed)
				_, temporary := err.(interface{ Temporary() bool })
				require.False(t, temporary, "http.Server.Serve would try again")
				_, err = ln.Accept()
				require.ErrorIs(t, err, net.ErrClosed)
				settled()
				requireClosedByPeer(t, l.clients[1])
				late := l.dial(t, 0, "late")
				requirePeersReset(t, late, 0)
				write(t, served, "answer")
				served.Close()
				got, err := io.ReadAll(c)
				require.NoError(t, err)
				require.Equal(t, "answer", string(got))
				c.Close()
				late.Close()
				require.NoError(t, <-ended)
				settled()
				requireClosedByPeer(t, l.clients[0])
				require.NoError(t, ln.Close(), "the first Close")
				require.Equal(t, net.ErrClosed, ln.Close())
			})
		})
	}
}

// TestEndOfOneConnDoesNotEndNetListener: however the connection ends, even if a
// stream of it is about to be handed out.
func TestEndOfOneConnDoesNotEndNetListener(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const count = 5
		l := listening(t, &quiclife.Guard{Codes: quiclife.Codes{Shutdown: 8}}, nil, count)
		ln := l.ln.NetListener()
		var served []*quiclife.Conn
		for i := range count {
			l.dial(t, i, "hello").Close()
			c := accept(t, ln, "hello")
			served = append(served, c.Stream().Conn())
			c.Close()
		}
		inHand := l.dial(t, 0, "in hand")
		settled()
		served[0].CloseWithError(1, "")
		inHand.Close()

		inHand = l.dial(t, 1, "in hand")
		settled()
		require.NoError(t, served[1].Shutdown(t.Context(), 1, ""))
		requirePeersReset(t, inHand, 8)

		l.dial(t, 2, "in hand")
		settled()
		l.clients[2].CloseWithError(1, "")
		settled()

		blocked := acceptLater(ln)
		settled()
		served[3].CloseWithError(1, "") // with no stream to hand out
		settled()
		select {
		case err := <-blocked:
			require.NoError(t, err)
		default:
		}
		c := l.dial(t, 4, "still here")
		require.NoError(t, <-blocked)
		c.Close()
		settled()
		for range l.guard.Conns() {
			served = served[1:]
		}
		require.Len(t, served, count-1, "one connection is left")
		ln.Close()
		settled()
	})
}

// TestNetListenerRefusesUniStreams: they take no slot and no part of the
// window.
func TestNetListenerRefusesUniStreams(t *testing.T) {
	bubble(t, func(t *testing.T) {
		conf := &quic.Config{MaxIncomingUniStreams: 1}
		l := listening(t, &quiclife.Guard{Codes: quiclife.Codes{Refused: 4}}, conf, 1)
		ln := l.ln.NetListener()
		l.dial(t, 0, "hello").Close()
		c := accept(t, ln, "hello")
		for range 100 {
			s, err := l.clients[0].OpenUniStreamSync(t.Context())
			require.NoError(t, err)
			for err == nil {
				_, err = s.Write([]byte("nobody reads this"))
				time.Sleep(time.Millisecond)
			}
			var reset *quiclife.StreamError
			require.ErrorAs(t, err, &reset)
			require.EqualValues(t, 4, reset.ErrorCode)
		}
		c.Close()
		ln.Close()
		settled()
	})
}

// TestNetListenerTakesTurns: a connection with many streams does not keep
// another's from being accepted.
func TestNetListenerTakesTurns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := listening(t, &quiclife.Guard{}, nil, 2)
		ln := l.ln.NetListener()
		l.dial(t, 0, "x").Close()
		accept(t, ln, "x").Close()
		for range 50 {
			defer l.dial(t, 0, "of many").Close()
		}
		settled()
		c := l.dial(t, 1, "of one")
		settled()
		first := accept(t, ln, "of ")
		second := accept(t, ln, "of ")
		expect(t, first, "many")
		expect(t, second, "one")
		c.Close()
		ln.Close()
		settled()
	})
}

// TestServerThatDropsNetConnIsToldOfIt: the NetListener does not keep net.Conns
// alive that it has handed out.
func TestServerThatDropsNetConnIsToldOfIt(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	var found leaks
	guard := &quiclife.Guard{OnLeak: found.add, Logger: slog.New(slog.DiscardHandler)}
	ln, err := guard.ListenAddr("127.0.0.1:0", serverTLS, nil)
	require.NoError(t, err)
	streams := ln.NetListener()
	client, err := guard.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
	require.NoError(t, err)
	c, err := client.DialContext(t.Context(), "", "")
	require.NoError(t, err)
	write(t, c, "x")
	_, err = streams.Accept()
	require.NoError(t, err)
	eventually(t, func() bool {
		runtime.GC()
		return len(found.list()) == 1
	}, "leaks found")
	require.True(t, found.list()[0].Stream.Incoming)
	require.NoError(t, c.Close())
	require.NoError(t, streams.Close())
	require.NoError(t, guard.Shutdown(t.Context()))
}

// TestNetListenerLeavesNothing: no goroutine and no socket is left once it is
// closed and the last connection has ended.
func TestNetListenerLeavesNothing(t *testing.T) {
	serverTLS, clientTLS := quictest.TLS()
	guard := &quiclife.Guard{}
	for range 3 {
		ln, err := guard.ListenAddr("127.0.0.1:0", serverTLS, nil)
		require.NoError(t, err)
		streams := ln.NetListener()
		client, err := quiclife.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
		require.NoError(t, err)
		c, err := client.DialContext(t.Context(), "", "")
		require.NoError(t, err)
		write(t, c, "x")
		served, err := streams.Accept()
		require.NoError(t, err)
		expect(t, served, "x")
		require.NoError(t, streams.Close())
		require.NoError(t, served.Close())
		require.NoError(t, c.Close())
		<-client.Context().Done()
	}
	quictest.RequireNoGoroutines(t)
	require.Empty(t, conns(guard))
}

// TestDialContextFails: as OpenStreamSync does. Then it returns no net.Conn.
func TestDialContextFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := listening(t, &quiclife.Guard{}, &quic.Config{MaxIncomingStreams: 1}, 1)
		ln := l.ln.NetListener()
		client := l.clients[0]
		c, err := client.DialContext(noContext, "", "")
		require.EqualError(t, err, "quiclife: nil context")
		require.True(t, c == nil)

		held := l.dial(t, 0, "x")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c, err = client.DialContext(ctx, "", "")
		require.True(t, c == nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var limit *quiclife.LimitError
		require.ErrorAs(t, err, &limit)

		waiting := make(chan error, 1)
		go func() {
			c, err := client.DialContext(t.Context(), "", "")
			if err == nil {
				c.Close()
			}
			waiting <- err
		}()
		settled()
		served := accept(t, ln, "x")
		served.Close()
		held.Close()
		require.NoError(t, <-waiting, "it waits for a slot")

		client.CloseWithError(0, "")
		c, err = client.DialContext(t.Context(), "", "")
		require.True(t, c == nil)
		require.Error(t, err)
		ln.Close()
		settled()
	})
}

// TestClosedListenerSaysSo: even while its last user is still ending.
func TestClosedListenerSaysSo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := listening(t, &quiclife.Guard{}, nil, 1)
		release := make(chan struct{})
		served := make(chan error, 1)
		go func() {
			served <- l.ln.Serve(t.Context(), quiclife.Handlers{Stream: func(context.Context, *quiclife.Stream) error {
				<-release
				return nil
			}})
		}()
		c := l.dial(t, 0, "x")
		settled()
		require.NoError(t, l.ln.Close())
		settled()
		_, err := l.ln.Accept(t.Context())
		require.Equal(t, quiclife.ErrServerClosed, err)
		_, err = l.ln.NetListener().Accept()
		require.Equal(t, quiclife.ErrServerClosed, err)
		close(release)
		c.Close()
		require.Equal(t, quiclife.ErrServerClosed, <-served)
		settled()
	})
}

// TestTransportsEndEndsNetListener: then the listener has no user, and its
// Accept returns the error.
func TestTransportsEndEndsNetListener(t *testing.T) {
	bubble(t, func(t *testing.T) {
		serverTLS, _ := quictest.TLS()
		_, socket, _ := quictest.Net{}.Endpoints(t)
		server := &quiclife.Transport{Conn: socket}
		ln, err := server.Listen(serverTLS, nil)
		require.NoError(t, err)
		streams := ln.NetListener()
		blocked := acceptLater(streams)
		settled()
		require.NoError(t, server.Close())
		err = <-blocked
		require.ErrorIs(t, err, quiclife.ErrTransportClosed)
		settled()
		_, again := ln.Accept(t.Context())
		require.Equal(t, err, again)
		require.NoError(t, streams.Close())
	})
}

// TestNetListenerLeavesShutdownItsTime: DrainTimeout does not limit a Shutdown
// that the program has called.
func TestNetListenerLeavesShutdownItsTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := listening(t, &quiclife.Guard{DrainTimeout: time.Second}, nil, 1)
		ln := l.ln.NetListener()
		keep(t, l.dial(t, 0, "x"))
		c := accept(t, ln, "x")
		l.sockets[0].Close() // nothing is acknowledged from now on
		write(t, c, "answer")
		require.NoError(t, c.Close())
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		require.ErrorIs(t, c.Stream().Conn().Shutdown(ctx, 0, ""), context.DeadlineExceeded)
		require.Equal(t, 10*time.Second, time.Since(start))
		ln.Close()
		settled()
	})
}

// TestUnusedNetListenerClosesConnsWithItsListener: its Accept was never called,
// and nobody else can accept the connections.
func TestUnusedNetListenerClosesConnsWithItsListener(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := listening(t, &quiclife.Guard{}, longConf, 1)
		_ = l.ln.NetListener()
		settled() // the server has the connection
		require.NoError(t, l.ln.Close())
		time.Sleep(10 * time.Second)
		requireClosedByPeer(t, l.clients[0])
	})
}
