package leaktest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/leaktest"
)

// request is a request as a program should make it.
func request(c *quiclife.Conn) error {
	s, err := c.OpenStream()
	if err != nil {
		return err
	}
	defer s.Release()
	io.WriteString(s, "request")
	s.Close()
	_, err = io.ReadAll(s)
	return err
}

// The ways to leak nothing.
var clean = []struct {
	name string
	body func(t *testing.T, client, server *quiclife.Conn)
}{
	{"requests", func(t *testing.T, client, server *quiclife.Conn) {
		go answering(server)
		for range 3 {
			require.NoError(t, request(client))
		}
	}},
	{"the connection is closed right after a request", func(t *testing.T, client, server *quiclife.Conn) {
		go answering(server)
		require.NoError(t, request(client))
		client.CloseWithError(0, "")
	}},
	{"the connection is closed right after an exact read", func(t *testing.T, client, server *quiclife.Conn) {
		go func() {
			for {
				s, err := server.AcceptStream(t.Context())
				if err != nil {
					return
				}
				defer s.Close()
				io.ReadFull(s, make([]byte, 7))
				s.Write([]byte("answer"))
				time.Sleep(time.Millisecond) // so that the FIN is in a separate packet
				s.Close()
			}
		}()
		s := open(t, client)
		write(t, s, "request")
		s.Close()
		read(t, s, "answer")
		client.CloseWithError(0, "")
	}},
	{"a handler outlives the connection", func(t *testing.T, client, server *quiclife.Conn) {
		s := open(t, client)
		write(t, s, "x")
		h := accept(t, server)
		go func() {
			time.Sleep(3 * time.Second)
			h.Close()
			h.CancelRead(1)
		}()
		client.CloseWithError(0, "")
		s.Release()
	}},
	{"a blocked Read learns of the end of the connection", func(t *testing.T, client, server *quiclife.Conn) {
		s := open(t, client)
		write(t, s, "x")
		h := accept(t, server)
		go io.ReadAll(h)
		synctest.Wait()
		client.CloseWithError(0, "")
		s.Release()
	}},
	{"a Write learns of the end of the connection", func(t *testing.T, client, server *quiclife.Conn) {
		s := open(t, client)
		write(t, s, "x")
		h := accept(t, server)
		client.CloseWithError(0, "")
		settled()
		_, err := h.Write([]byte("x"))
		require.Error(t, err)
		s.Release()
	}},
	{"a blocked Read learns of a Shutdown", func(t *testing.T, client, server *quiclife.Conn) {
		s := open(t, client)
		write(t, s, "x")
		h := accept(t, server)
		read(t, h, "x")
		go io.ReadAll(h)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Error(t, server.Shutdown(ctx, 0, ""))
		s.Release()
	}},
	{"Serve, Do and DoUni", func(t *testing.T, client, server *quiclife.Conn) {
		go server.Serve(t.Context(), quiclife.Handlers{
			Stream:    func(_ context.Context, s *quiclife.Stream) error { _, err := io.Copy(s, s); return err },
			UniStream: func(_ context.Context, s *quiclife.ReceiveStream) error { return nil },
			Error:     func(*quiclife.Conn, quiclife.StreamInfo, error) {},
		})
		require.NoError(t, client.Do(t.Context(), func(s *quiclife.Stream) error {
			s.Write([]byte("x"))
			return nil
		}))
		require.Error(t, client.Do(t.Context(), func(*quiclife.Stream) error { return errors.New("no") }))
		require.NoError(t, client.DoUni(t.Context(), func(s *quiclife.SendStream) error {
			s.Write([]byte("x"))
			return nil
		}))
	}},
	{"net.Conns", func(t *testing.T, client, server *quiclife.Conn) {
		ln := server.NetListener()
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					io.Copy(c, c)
				}()
			}
		}()
		c, err := client.DialContext(t.Context(), "", "")
		require.NoError(t, err)
		defer c.Close()
		write(t, c, "x")
		read(t, c, "x")
	}},
	{"a context ends the stream, before and after its connection", func(t *testing.T, client, server *quiclife.Conn) {
		go answering(server)
		until, cancel := context.WithTimeout(t.Context(), time.Hour)
		s := open(t, client)
		s.BindContext(until)
		cancel()
		until, cancel = context.WithTimeout(t.Context(), 2*time.Second)
		t.Cleanup(cancel)
		s = open(t, client)
		s.BindContext(until)
		write(t, s, "x")
		client.CloseWithError(0, "")
	}},
	{"unidirectional streams", func(t *testing.T, client, server *quiclife.Conn) {
		s, err := client.OpenUniStream()
		require.NoError(t, err)
		write(t, s, "x")
		require.NoError(t, s.Close())
		r, err := server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		read(t, r, "x") // and the FIN comes
	}},
	{"an exact read whose FIN comes after the test", func(t *testing.T, client, server *quiclife.Conn) {
		s := open(t, client)
		write(t, s, "x")
		h := accept(t, server)
		read(t, h, "x")
		h.Close()
		raw := s.Detach()
		go func() {
			time.Sleep(1500 * time.Millisecond)
			raw.Close()
			io.ReadAll(raw)
		}()
	}},
	{"detached streams", func(t *testing.T, client, server *quiclife.Conn) {
		go answering(server)
		raw := open(t, client).Detach()
		raw.Write([]byte("x"))
		raw.Close()
	}},
	{"something else goes on in the background", func(t *testing.T, client, server *quiclife.Conn) {
		go answering(server)
		go func() {
			for request(client) == nil {
			}
		}()
	}},
}

func TestNoFalseAlarm(t *testing.T) {
	for _, c := range clean {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			require.Empty(t, failure(t, c.body))
		})
	}
}

var cleanTests = 1000

// TestParallelTestsThatAreClean looks for false alarms that come by chance. It
// runs many clean tests in parallel, as a user would. QUICLIFE_LEAKTESTS sets
// their number.
func TestParallelTestsThatAreClean(t *testing.T) {
	n := cleanTests
	if testing.Short() {
		n /= 10
	}
	if s := os.Getenv("QUICLIFE_LEAKTESTS"); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		require.NoError(t, err)
	}
	for i := range n {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client, server := leaktest.Simulated(t, nil, nil)
				clean[i%len(clean)].body(t, client, server)
			})
		})
	}
}

// TestNoGoroutineIsLeftByPair: goleak's cleanup runs after Pair's.
func TestNoGoroutineIsLeftByPair(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	client, server := leaktest.Pair(t, nil, nil)
	go answering(server)
	require.NoError(t, request(client))
}

// TestParallelTestsOverLoopback is the same in real time.
func TestParallelTestsOverLoopback(t *testing.T) {
	n := 50
	if testing.Short() {
		n = 10
	}
	for i := range n {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			client, server := leaktest.Pair(t, nil, nil)
			go answering(server)
			for range 3 {
				require.NoError(t, request(client))
			}
			s := open(t, client)
			write(t, s, "x")
			s.Release()
			if i%2 == 0 {
				client.CloseWithError(0, "")
			}
		})
	}
}
