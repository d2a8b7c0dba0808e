package quiclife_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/rpc"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// halfCloser has the methods that proxies look for in a net.Conn.
type halfCloser interface {
	net.Conn
	CloseWrite() error
	CloseRead() error
}

// netConns opens a stream, and returns both of its ends as net.Conns.
func (e ends) netConns(t *testing.T) (client, server halfCloser) {
	t.Helper()
	s, peer := e.stream(t)
	return s.NetConn(), peer.NetConn()
}

// TestNetConnCloseEndsBothHalves: what was written arrives, and later calls
// return net.ErrClosed.
func TestNetConnCloseEndsBothHalves(t *testing.T) {
	t.Parallel()
	setup{serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
		a, b := e.netConns(t)
		require.Equal(t, e.client.LocalAddr(), a.LocalAddr())
		require.Equal(t, e.client.RemoteAddr(), a.RemoteAddr())
		write(t, a, "last words")
		require.NoError(t, a.Close())
		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.Equal(t, "last words", string(got))
		for name, call := range map[string]func() error{
			"Read":             func() error { _, err := a.Read(make([]byte, 1)); return err },
			"Write":            func() error { _, err := a.Write([]byte("x")); return err },
			"Close":            a.Close,
			"CloseRead":        a.CloseRead,
			"CloseWrite":       a.CloseWrite,
			"SetDeadline":      func() error { return a.SetDeadline(time.Now()) },
			"SetReadDeadline":  func() error { return a.SetReadDeadline(time.Now()) },
			"SetWriteDeadline": func() error { return a.SetWriteDeadline(time.Now()) },
		} {
			require.Equal(t, net.ErrClosed, call(), name)
		}
		settled()
		_, err = b.Write([]byte("x"))
		require.Error(t, err, "nobody reads")
		b.Close()
		settled()
		e.requireNothingLeft(t)
	})
}

// TestNetConnCloseUnblocksReadAndWrite: Close also returns an error for the
// Write that was cut.
func TestNetConnCloseUnblocksReadAndWrite(t *testing.T) {
	t.Parallel()
	setup{serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
		a, b := e.netConns(t)
		read, wrote := make(chan error, 1), make(chan error, 1)
		go func() { _, err := a.Read(make([]byte, 1)); read <- err }()
		go func() { _, err := a.Write(large); wrote <- err }()
		settled()
		require.Equal(t, quiclife.ErrWriteCut, a.Close())
		require.Equal(t, net.ErrClosed, <-read)
		require.Equal(t, net.ErrClosed, <-wrote)
		_, err := io.ReadAll(b)
		require.ErrorAs(t, err, new(*quiclife.StreamError))
		b.Close()
		settled()
		e.requireNothingLeft(t)
	})
}

// TestNetConnEndsEachHalfByItself: first with CloseWrite, then with CloseRead.
func TestNetConnEndsEachHalfByItself(t *testing.T) {
	t.Parallel()
	setup{serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
		a, b := e.netConns(t)
		require.NoError(t, a.CloseWrite())
		require.NoError(t, a.CloseWrite())
		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.Empty(t, got)
		_, err = a.Write([]byte("x"))
		require.Equal(t, net.ErrClosed, err)
		write(t, b, "answer")
		expect(t, a, "answer")
		require.NoError(t, a.CloseRead())
		_, err = a.Read(make([]byte, 1))
		require.Equal(t, net.ErrClosed, err)
		settled()
		_, err = b.Write([]byte("x"))
		require.ErrorAs(t, err, new(*quiclife.StreamError))
		settled()
		require.Zero(t, e.client.Stats().Open())
		a.Close()
		b.Close()
	})
}

// TestNetConnDeadlineEndsNothing: the error is a net.Error with Timeout.
func TestNetConnDeadlineEndsNothing(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		a, b := e.netConns(t)
		a.SetDeadline(time.Now().Add(time.Second))
		_, err := a.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout(), "Timeout of %v", err)
		a.SetDeadline(time.Time{})
		write(t, b, "later")
		expect(t, a, "later")
		a.Close()
		b.Close()
		settled()
		e.requireNothingLeft(t)
	})
}

// TestNetListenerAcceptsUntilItIsClosed: or until the connection has ended.
func TestNetListenerAcceptsUntilItIsClosed(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		ln := e.server.NetListener()
		require.Equal(t, e.server.LocalAddr(), ln.Addr())
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		write(t, s, "hello")
		c, err := ln.Accept()
		require.NoError(t, err)
		expect(t, c, "hello")
		c.Close()
		s.Release()
		done := make(chan error)
		go func() { _, err := ln.Accept(); done <- err }()
		settled()
		require.NoError(t, ln.Close())
		require.Equal(t, net.ErrClosed, <-done)
		require.Equal(t, net.ErrClosed, ln.Close())
		_, err = ln.Accept()
		require.Equal(t, net.ErrClosed, err)
		ln = e.server.NetListener() // another
		go func() { _, err := ln.Accept(); done <- err }()
		settled()
		e.requireNothingLeft(t)
		e.client.CloseWithError(0, "")
		require.ErrorIs(t, <-done, net.ErrClosed)
		ln.Close()
	})
}

// TestNetListenerReturnsQueuedStreamAfterClose: if the peer opened a stream
// before Close, an Accept after Close does not return it, but other calls can
// still accept it.
func TestNetListenerReturnsQueuedStreamAfterClose(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		ln := e.server.NetListener()
		for range 3 {
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			defer s.Release()
			write(t, s, "x")
		}
		settled()
		require.NoError(t, ln.Close())
		for range 3 {
			_, err := ln.Accept()
			require.Equal(t, net.ErrClosed, err)
		}
		s, err := e.server.AcceptStream(t.Context())
		require.NoError(t, err, "a queued stream went with the listener")
		expect(t, s, "x")
		s.Release()
	})
}

// dialer returns a function that opens a stream on c as a net.Conn.
func dialer(c *quiclife.Conn) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		s, err := c.OpenStreamSync(ctx)
		if err != nil {
			return nil, err
		}
		return s.NetConn(), nil
	}
}

// TestHTTPOverStreams: net/http on both sides, with a stream for each of its
// connections.
func TestHTTPOverStreams(t *testing.T) {
	e := setup{}.onLoopback(t)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.URL.Path, b)
	})}
	done := make(chan error)
	go func() { done <- server.Serve(e.server.NetListener()) }()
	transport := &http.Transport{DialContext: dialer(e.client), MaxIdleConnsPerHost: 4}
	client := &http.Client{Transport: transport}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				r, err := client.Post("http://quic/path", "text/plain", strings.NewReader(strings.Repeat("x", i*10_000)))
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(r.Body)
				if err != nil || len(b) != len("/path ")+i*10_000 {
					t.Errorf("answer of %d bytes, %v", len(b), err)
				}
				r.Body.Close()
			}
		})
	}
	// Clients that leave in the middle.
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		r, err := http.NewRequestWithContext(ctx, "POST", "http://quic/", bytes.NewReader(make([]byte, 1<<20)))
		require.NoError(t, err)
		if r, err := client.Do(r); err == nil {
			r.Body.Close()
		}
		cancel()
	}
	wg.Wait()
	transport.CloseIdleConnections()
	eventually(t, func() bool { return e.client.Stats().Outgoing.Opened == e.server.Stats().Incoming.Opened }, "nobody accepts after Shutdown")
	require.NoError(t, server.Shutdown(t.Context()))
	require.Equal(t, http.ErrServerClosed, <-done)
	eventually(t, func() bool { return e.client.Stats().Open()+e.server.Stats().Open() == 0 })
	eventually(t, func() bool { return quictest.Held(e.rawClient)+quictest.Held(e.rawServer) == 0 })
	e.requireNothingLeft(t)
	e.client.CloseWithError(0, "")
}

// Arith is the service of TestRPCOverStreams.
type Arith struct{}

func (Arith) Add(args [2]int, sum *int) error { *sum = args[0] + args[1]; return nil }
func (Arith) Fail([2]int, *int) error         { return errors.New("failed") }

// TestRPCOverStreams: net/rpc on a stream.
func TestRPCOverStreams(t *testing.T) {
	e := setup{}.onLoopback(t)
	server := rpc.NewServer()
	require.NoError(t, server.Register(Arith{}))
	ln := e.server.NetListener()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { server.ServeConn(c) })
		}
	})
	s, err := e.client.OpenStream()
	require.NoError(t, err)
	client := rpc.NewClient(s.NetConn())
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			var sum int
			if err := client.Call("Arith.Add", [2]int{i, 1}, &sum); err != nil || sum != i+1 {
				t.Errorf("%d + 1 is %d, %v", i, sum, err)
			}
		})
	}
	wg.Wait()
	require.EqualError(t, client.Call("Arith.Fail", [2]int{}, new(int)), "failed")
	require.NoError(t, client.Close())
	eventually(t, func() bool { return e.client.Stats().Open()+e.server.Stats().Open() == 0 })
	ln.Close()
	serving.Wait()
	eventually(t, func() bool { return quictest.Held(e.rawClient)+quictest.Held(e.rawServer) == 0 })
	e.client.CloseWithError(0, "")
}

// TestTLSOverStreams: crypto/tls inside a stream.
func TestTLSOverStreams(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		serverTLS, clientTLS := quictest.TLS()
		ln := tls.NewListener(e.server.NetListener(), serverTLS)
		done := make(chan error)
		go func() {
			c, err := ln.Accept()
			if err == nil {
				_, err = io.Copy(c, c)
				c.Close()
			}
			done <- err
		}()
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		c := tls.Client(s.NetConn(), clientTLS)
		require.NoError(t, c.HandshakeContext(t.Context()))
		go func() {
			c.Write(large)
			c.CloseWrite()
		}()
		b, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, sha256.Sum256(large), sha256.Sum256(b), "%d of %d bytes", len(b), len(large))
		require.NoError(t, <-done)
		c.Close()
		settled()
		e.requireNothingLeft(t)
		ln.Close()
	})
}

// TestProxyPassesHalfClosesOn: in both directions, with a proxy made for TCP.
func TestProxyPassesHalfClosesOn(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		// client -> proxy (accepts on the server end) -> origin (the client end)
		go func() {
			ln := e.server.NetListener()
			for {
				down, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					s, err := e.server.OpenStream()
					if err != nil {
						t.Error(err)
						return
					}
					up := s.NetConn()
					var both sync.WaitGroup
					for _, way := range [][2]net.Conn{{up, down}, {down, up}} {
						both.Go(func() {
							io.Copy(way[0], way[1])
							way[0].(halfCloser).CloseWrite()
						})
					}
					both.Wait()
					up.Close()
					down.Close()
				}()
			}
		}()
		origin := e.client.NetListener()
		go func() {
			for {
				c, err := origin.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					b, err := io.ReadAll(c) // to the half-close
					if err != nil {
						t.Error(err)
					}
					fmt.Fprintf(c, "%d bytes\n", len(b))
				}()
			}
		}()
		for range 50 {
			s, err := e.client.OpenStreamSync(t.Context())
			require.NoError(t, err)
			c := s.NetConn()
			write(t, c, strings.Repeat("x", 12345))
			require.NoError(t, c.CloseWrite())
			line, err := bufio.NewReader(c).ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "12345 bytes\n", line)
			c.Close()
		}
		settled()
		e.requireNothingLeft(t)
		e.client.CloseWithError(0, "")
	})
}

// TestShutdownUnblocksNetListener: even if a stream is still open.
func TestShutdownUnblocksNetListener(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		s, _ := e.stream(t)
		done := make(chan error)
		go func() { _, err := e.client.NetListener().Accept(); done <- err }()
		settled()
		go shutdown(e.client, time.Minute)
		require.Equal(t, quiclife.ErrShutdown, <-done)
		s.Release()
	})
}

// TestClosedNetConnTakesNoByte: and returns none.
func TestClosedNetConnTakesNoByte(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		a, b := e.netConns(t)
		require.NoError(t, a.Close())
		n, err := a.Write([]byte("x"))
		require.Zero(t, n, "written")
		require.Equal(t, net.ErrClosed, err)
		n, err = a.Read(make([]byte, 1))
		require.Zero(t, n, "read")
		require.Equal(t, net.ErrClosed, err)
		b.Close()
	})
}
