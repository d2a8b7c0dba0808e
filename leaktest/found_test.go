package leaktest_test

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/leaktest"
)

// Tests that the table of ways to leak does not cover.

func TestLeakOfHandlerIsNamedByIt(t *testing.T) {
	for _, closed := range []bool{false, true} {
		message := failure(t, func(t *testing.T, client, server *quiclife.Conn) {
			go handlersThatLeak(server)
			for range 3 {
				s := open(t, client)
				write(t, s, "request")
				s.Close()
				settled()
				s.Release()
			}
			if closed {
				client.CloseWithError(0, "")
			}
		})
		p := paragraph(t, message, "3 streams accepted at\n    github.com/quiclife/quiclife/leaktest_test.handlersThatLeak ")
		requireWords(t, p, "send half open, receive half finished", "0 bytes written and 7 read", "Close when all is written")
		requireWords(t, message, "3 streams leaked, of 6 that were opened.")
	}
}

// handlersThatLeak read the request and do not answer.
func handlersThatLeak(c *quiclife.Conn) {
	for {
		s, err := c.AcceptStream(context.Background())
		if err != nil {
			return
		}
		go io.ReadAll(s)
	}
}

func TestUnidirectionalStreamsThatLeakAreNamed(t *testing.T) {
	for _, end := range []string{"held", "dropped", "closed"} {
		var held []any
		message := failure(t, func(t *testing.T, client, server *quiclife.Conn) {
			s, err := client.OpenUniStream()
			require.NoError(t, err)
			write(t, s, "settings")
			r, err := server.AcceptUniStream(t.Context())
			require.NoError(t, err)
			read(t, r, "set")
			switch end {
			case "held":
				held = append(held, s, r)
			case "closed":
				client.CloseWithError(0, "")
				settled()
			}
		})
		fate := map[string]string{"held": "Still held by the program", "dropped": "Dropped by the program", "closed": "Open when the connection ended"}[end]
		requireWords(t, paragraph(t, message, "1 unidirectional stream opened at"), fate, "send half open.", "8 bytes written", "Close, or defer Release. If it is a control stream, use leaktest.Allow.")
		if end != "closed" { // else the FIN may have been on its way
			requireWords(t, paragraph(t, message, "1 unidirectional stream accepted at"), fate, "receive half open.", "3 read", "read to io.EOF, or defer Release.")
		}
		runtime.KeepAlive(held)
	}
}

func TestControlStreamsCanBeAllowed(t *testing.T) {
	uni := leaktest.Allow(func(s quiclife.StreamInfo) bool { return s.Unidirectional })
	for _, closed := range []bool{false, true} {
		message := failure(t, func(t *testing.T, client, server *quiclife.Conn) {
			_, err := client.OpenUniStream()
			require.NoError(t, err)
			s, err := client.OpenUniStream()
			require.NoError(t, err)
			write(t, s, "settings")
			open(t, client)
			if closed {
				client.CloseWithError(0, "")
			}
		}, leaktest.Allow(func(quiclife.StreamInfo) bool { return false }), uni)
		requireWords(t, message, "1 stream leaked, of 3 that were opened.")
		require.NotContains(t, message, "unidirectional")
	}
}

func TestCreditThatWasNotReturnedIsALeak(t *testing.T) {
	conf := &quiclife.Config{RequireStreamCreditRelease: true}
	for _, end := range []string{"held", "dropped", "closed"} {
		var held *quiclife.Stream
		body := func(release bool) func(t *testing.T, client, server *quiclife.Conn) {
			return func(t *testing.T, client, server *quiclife.Conn) {
				s := open(t, client)
				write(t, s, "x")
				s.Close()
				h := accept(t, server)
				_, err := io.ReadAll(h)
				require.NoError(t, err)
				h.Close()
				_, err = io.ReadAll(s)
				require.NoError(t, err)
				switch end {
				case "held":
					held = h
				case "closed":
					client.CloseWithError(0, "")
					settled()
				}
				if release {
					h.Release()
				}
			}
		}
		message := failureWith(t, conf, body(false))
		requireWords(t, paragraph(t, message, "1 stream accepted at"), "Ended, but the credit was not returned: send half finished, receive half finished.", "To do: Release, because")
		requireWords(t, message, "1 stream leaked, of 2 that were opened.")
		require.Empty(t, failureWith(t, conf, body(true)), end)
		runtime.KeepAlive(held)
	}
}

func TestStreamsThatNobodyAcceptsAreALeak(t *testing.T) {
	message := failure(t, func(t *testing.T, client, server *quiclife.Conn) {
		for range 2 {
			s := open(t, client)
			write(t, s, "x")
			s.Reset(1)
		}
		s, err := client.OpenUniStream()
		require.NoError(t, err)
		write(t, s, "x")
		require.NoError(t, s.Close())
	})
	requireWords(t, message, "3 streams leaked")
	requireWords(t, paragraph(t, message, "2 streams that the peer opened and nobody has accepted"), "The first is stream 0.", "call AcceptStream in a loop, or Serve")
	requireWords(t, paragraph(t, message, "1 unidirectional stream that the peer opened and nobody has accepted"), "The first is stream 2.", "call AcceptUniStream in a loop, or Serve")

	require.Empty(t, failure(t, func(t *testing.T, client, server *quiclife.Conn) {
		s := open(t, client)
		write(t, s, "x")
		s.Release()
	}, leaktest.Allow(func(s quiclife.StreamInfo) bool { return s.Opened.IsZero() })), "allowed")
	require.Empty(t, failure(t, func(t *testing.T, client, server *quiclife.Conn) {
		client.Unwrap()
		server.Unwrap() // quic-go's connection, where the program may accept them
		s := open(t, client)
		write(t, s, "x")
		s.Release()
	}), "unwrapped")
}

// guarded runs a user's test with a Guard and connections that the user closes.
func guarded(t *testing.T, set func(g *quiclife.Guard), f func(t *testing.T, u *testOfAUser, g *quiclife.Guard, client, server *quiclife.Conn), opts ...leaktest.Option) (message string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		user := &testOfAUser{TB: t}
		g := leaktest.New(user, opts...)
		if set != nil {
			set(g)
		}
		client, server := pairUnder(t, g)
		f(t, user, g, client, server)
		message = user.end()
	})
	return message
}

func TestStreamsThatTimedOutAreALeak(t *testing.T) {
	closing := func(t *testing.T, u *testOfAUser, g *quiclife.Guard, client, server *quiclife.Conn) {
		u.Cleanup(func() { client.CloseWithError(0, "") })
		go handlersThatLeak(server)
		s := open(t, client)
		write(t, s, "x")
		s.Close()
		time.Sleep(time.Minute / 2)
		s.Release()
	}
	conf := func(g *quiclife.Guard) { g.HalfCloseTimeout = 10 * time.Second }
	message := guarded(t, conf, closing)
	requireWords(t, paragraph(t, message, "1 stream opened at"), "Cancelled after Guard.HalfCloseTimeout: send half finished, receive half open")
	conf = func(g *quiclife.Guard) { g.IdleTimeout = 10 * time.Second }
	message = guarded(t, conf, closing)
	requireWords(t, paragraph(t, message, "1 stream accepted at"), "Reset after Guard.IdleTimeout: send half open, receive half finished")
}

func TestConnectionsThatAreOpenFailTheTest(t *testing.T) {
	body := func(t *testing.T, u *testOfAUser, g *quiclife.Guard, client, server *quiclife.Conn) {
		u.Cleanup(func() { go answering(server) }) // no stream is left, but both connections are
	}
	message := guarded(t, nil, body)
	requireWords(t, message, "2 connections still open:", "from 1.0.0.1:1000 to 1.0.0.2:443", "CloseWithError or Shutdown")
	require.Empty(t, guarded(t, nil, body, leaktest.AllowConns()))
}

// TestVerdictWaitsForConnections: a leak is certain, but the open connection
// may still be closed.
func TestVerdictWaitsForConnections(t *testing.T) {
	message := guarded(t, nil, func(t *testing.T, u *testOfAUser, g *quiclife.Guard, client, server *quiclife.Conn) {
		openDeep(t, client, 0)
		time.AfterFunc(3*time.Second, func() { client.CloseWithError(0, "") })
	})
	requireWords(t, message, "1 stream leaked")
	require.NotContains(t, message, "still open")
}

func TestStreamsThatShutdownCutAreALeak(t *testing.T) {
	for _, noStopSending := range []bool{false, true} {
		var held []*quiclife.Stream
		message := guarded(t, func(g *quiclife.Guard) { g.NoStopSending = noStopSending },
			func(t *testing.T, u *testOfAUser, g *quiclife.Guard, client, server *quiclife.Conn) {
				s := open(t, client)
				write(t, s, "x")
				released := open(t, client)
				write(t, released, "x")
				held = append(held, s, accept(t, server), accept(t, server))
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				require.Error(t, client.Shutdown(ctx, 0, ""))
				released.Release()
			})
		requireWords(t, paragraph(t, message, "1 stream opened at"), "Open when the connection ended, and not ended since: send half open, receive half open")
		requireWords(t, paragraph(t, message, "2 streams accepted at"), "Open when the connection ended, and not ended since: send half open, receive half open")
		runtime.KeepAlive(held)
	}
}

func TestHalfThatIsEndedAfterItsConnectionIsNotNamed(t *testing.T) {
	message := failure(t, func(t *testing.T, client, server *quiclife.Conn) {
		s := open(t, client)
		write(t, s, "x")
		client.CloseWithError(0, "")
		s.Close()
	})
	requireWords(t, paragraph(t, message, "1 stream opened at"), "send half aborted, receive half open", "CancelRead, or defer Release")
}

// TestCheckSparesWhatWasThere: for a Guard that other tests have used before.
func TestCheckSparesWhatWasThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &quiclife.Guard{Logger: slog.New(slog.DiscardHandler)}
		client, server := pairUnder(t, g)
		go answering(server)
		before := open(t, client)
		write(t, before, "x")
		s, err := server.OpenUniStream() // which nobody accepts
		require.NoError(t, err)
		write(t, s, "x")
		require.NoError(t, s.Close())
		settled()

		user := &testOfAUser{TB: t}
		leaktest.Check(user, g)
		require.NoError(t, request(client))
		require.Empty(t, user.end())

		user = &testOfAUser{TB: t}
		leaktest.Check(user, g)
		write(t, open(t, client), "x")
		message := user.end()
		requireWords(t, message, "1 stream leaked, of 2 that were opened.", "1 stream opened somewhere (set Guard.CaptureStacks to see where)")
		client.CloseWithError(0, "")

		user = &testOfAUser{TB: t}
		leaktest.Check(user, g)
		require.Empty(t, user.end(), "the leaks of the test before")
		before.Release()
	})
}

// TestGuardMadeOutsideOfBubble: its check runs after the bubble has ended.
func TestGuardMadeOutsideOfBubble(t *testing.T) {
	user := &testOfAUser{TB: t}
	g := leaktest.New(user)
	synctest.Test(t, func(t *testing.T) {
		client, server := pairUnder(t, g)
		go answering(server)
		require.NoError(t, request(client))
		write(t, open(t, client), "x")
		settled()
	})
	start := time.Now()
	requireWords(t, paragraph(t, user.end(), "1 stream opened at"), "Open when the connection ended")
	require.Less(t, time.Since(start), 10*time.Second)
}

func TestNoCheckAfterFailure(t *testing.T) {
	leaking := func(t *testing.T, _ *testOfAUser, _ *quiclife.Guard, client, _ *quiclife.Conn) {
		write(t, open(t, client), "x")
	}
	for _, end := range []func(u *testOfAUser){
		func(u *testOfAUser) { u.failed = true },
		func(u *testOfAUser) { u.skipped = true },
	} {
		var took time.Duration
		message := guarded(t, nil, func(t *testing.T, u *testOfAUser, g *quiclife.Guard, client, server *quiclife.Conn) {
			leaking(t, u, g, client, server)
			end(u)
			start := time.Now()
			u.end()
			took = time.Since(start)
		})
		require.Empty(t, message)
		require.Zero(t, took)
	}
	require.NotEmpty(t, guarded(t, nil, leaking))
}

// TestVerdictComesEarlyIfNothingCanChangeIt: dropped streams are certain after
// a collection. leaktest waits only for streams that the program still refers
// to.
func TestVerdictComesEarlyIfNothingCanChangeIt(t *testing.T) {
	took := func(keep, closed bool, opts ...leaktest.Option) (d time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			user := &testOfAUser{TB: t}
			client, server := leaktest.Simulated(user, nil, nil, opts...)
			go answering(server)
			var s *quiclife.Stream
			if keep {
				s = open(t, client)
			} else {
				openDeep(t, client, 0)
			}
			if closed {
				client.CloseWithError(0, "")
			}
			start := time.Now()
			require.NotEmpty(t, user.end())
			d = time.Since(start) - time.Second // the wait for packets in flight
			runtime.KeepAlive(s)
		})
		return d
	}
	require.Less(t, took(false, false), time.Second)
	require.Less(t, took(false, true), time.Second)
	require.Equal(t, 5*time.Second, took(true, false).Truncate(100*time.Millisecond))
	require.Equal(t, 5*time.Second, took(true, true).Truncate(100*time.Millisecond))
	require.Equal(t, 2*time.Second, took(true, false, leaktest.Within(2*time.Second)).Truncate(100*time.Millisecond))
}

func TestGuardLogsToTheTestUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		user := &testOfAUser{TB: t}
		g := leaktest.New(user)
		client, server := pairUnder(t, g)
		go answering(server)
		write(t, open(t, client), "x")
		settled()
		runtime.GC()
		client.Stats()
		runtime.GC()
		client.Stats()
		time.Sleep(10 * time.Second)
		user.end()
		require.NotEmpty(t, user.logs)
		require.True(t, strings.HasPrefix(user.logs[0], `level=WARN msg="quiclife: stream leaked" remote=1.0.0.2:443 reason=dropped stream=0`), user.logs[0])
		g.Logger.Warn("after the end") // t.Log would panic now
	})
}

// TestManyKindsOfLeaksAreNotAllListed: a report must be short enough to read.
func TestManyKindsOfLeaksAreNotAllListed(t *testing.T) {
	message := failure(t, func(t *testing.T, client, server *quiclife.Conn) {
		for n := range 12 {
			openDeep(t, client, n)
		}
	})
	requireWords(t, message, "12 streams leaked.", "And 2 more groups of streams.")
	require.Equal(t, 10, strings.Count(message, "1 stream opened at"))
}

// openDeep opens a stream n calls deeper, and drops it.
//
//go:noinline
func openDeep(t *testing.T, c *quiclife.Conn, n int) {
	if n == 0 {
		open(t, c)
		return
	}
	openDeep(t, c, n-1)
}

func TestSimulatedIsForBubbles(t *testing.T) {
	user := &fatal{testOfAUser: testOfAUser{TB: t}}
	func() {
		defer func() { recover() }()
		leaktest.Simulated(user, nil, nil)
	}()
	require.Contains(t, user.with, "inside a synctest bubble")
}

// A fatal panics where a test would end.
type fatal struct {
	testOfAUser
	with string
}

func (f *fatal) Fatal(args ...any) {
	f.with, _ = args[0].(string)
	panic(f)
}

// TestStreamOnItsWayAtTheEndIsFound: the last stream reaches a handler that
// leaks after the body of the test has returned.
func TestStreamOnItsWayAtTheEndIsFound(t *testing.T) {
	var held *quiclife.ReceiveStream
	message := failure(t, func(t *testing.T, client, server *quiclife.Conn) {
		go func() {
			held, _ = server.AcceptUniStream(context.Background())
		}()
		s, err := client.OpenUniStream()
		require.NoError(t, err)
		write(t, s, "x")
		require.NoError(t, s.Close())
	})
	requireWords(t, paragraph(t, message, "1 unidirectional stream accepted at"), "receive half open", "0 read")
	runtime.KeepAlive(held)
}
