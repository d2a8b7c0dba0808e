package leaktest_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
	"github.com/quiclife/quiclife/leaktest"
)

// No ignore list: leaktest leaves no goroutine.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A testOfAUser stands for a user's test, which may fail. Its cleanups run when
// it ends.
type testOfAUser struct {
	testing.TB
	mu       sync.Mutex // guards the fields below
	cleanups []func()
	errors   []string
	logs     []string
	failed   bool
	skipped  bool
	ended    bool
}

func (u *testOfAUser) Helper() {}

func (u *testOfAUser) Cleanup(f func()) { u.cleanups = append(u.cleanups, f) }

func (u *testOfAUser) Failed() bool { return u.failed }

func (u *testOfAUser) Skipped() bool { return u.skipped }

func (u *testOfAUser) Error(args ...any) {
	u.failed = true
	u.errors = append(u.errors, strings.TrimSuffix(fmt.Sprintln(args...), "\n"))
}

func (u *testOfAUser) Log(args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		panic("Log after the end of the test")
	}
	u.logs = append(u.logs, fmt.Sprint(args...))
}

// end runs the cleanups, and returns the failure message.
func (u *testOfAUser) end() string {
	for len(u.cleanups) > 0 {
		last := len(u.cleanups) - 1
		f := u.cleanups[last]
		u.cleanups = u.cleanups[:last]
		f()
	}
	u.mu.Lock()
	u.ended = true
	u.mu.Unlock()
	u.TB.Log(strings.Join(u.errors, "\n"))
	return strings.Join(u.errors, "\n")
}

// failure runs a test with body f on a simulated connection, and returns its
// failure message.
func failure(t *testing.T, f func(t *testing.T, client, server *quiclife.Conn), opts ...leaktest.Option) (message string) {
	t.Helper()
	return failureWith(t, nil, f, opts...)
}

func failureWith(t *testing.T, conf *quiclife.Config, f func(t *testing.T, client, server *quiclife.Conn), opts ...leaktest.Option) (message string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		user := &testOfAUser{TB: t}
		client, server := leaktest.Simulated(user, conf, conf, opts...)
		f(t, client, server)
		message = user.end()
	})
	return message
}

func requireWords(t *testing.T, message string, words ...string) {
	t.Helper()
	for _, w := range words {
		require.Contains(t, message, w)
	}
}

func write(t *testing.T, w io.Writer, s string) {
	t.Helper()
	_, err := io.WriteString(w, s)
	require.NoError(t, err)
}

// read requires that the next bytes to read are s.
func read(t *testing.T, r io.Reader, s string) {
	t.Helper()
	b := make([]byte, len(s))
	_, err := io.ReadFull(r, b)
	require.NoError(t, err)
	require.Equal(t, s, string(b))
}

func open(t *testing.T, c *quiclife.Conn) *quiclife.Stream {
	t.Helper()
	s, err := c.OpenStream()
	require.NoError(t, err)
	return s
}

func accept(t *testing.T, c *quiclife.Conn) *quiclife.Stream {
	t.Helper()
	s, err := c.AcceptStream(t.Context())
	require.NoError(t, err)
	return s
}

// answering makes c answer every request, and end every stream.
func answering(c *quiclife.Conn) {
	for {
		s, err := c.AcceptStream(context.Background())
		if err != nil {
			return
		}
		go func() {
			defer s.Release()
			if b, err := io.ReadAll(s); err == nil {
				s.Write(b)
				s.Close()
			}
		}()
	}
}

// settled waits in fake time until everything in flight has arrived.
func settled() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// The ways to leak a stream. Each is something that one end does. The other end
// is careful.
var ways = []struct {
	name  string
	leak  func(t *testing.T, s *quiclife.Stream)
	serve func(s *quiclife.Stream) // nil: answers as it should
	words []string
	// endsByItself: the stream would end without the program if only the peer's
	// FIN was still to come.
	endsByItself bool
}{
	{
		name: "nobody reads the answer",
		leak: func(t *testing.T, s *quiclife.Stream) {
			write(t, s, "request")
			s.Close()
		},
		words: []string{"send half finished, receive half open", "7 bytes written and 0 read", "read the answer to io.EOF, or defer Release"},
	},
	{
		name: "a part of the answer is read",
		leak: func(t *testing.T, s *quiclife.Stream) {
			write(t, s, "request")
			s.Close()
			read(t, s, "req")
		},
		words: []string{"send half finished, receive half open", "3 read", "read to io.EOF, or defer Release"},
	},
	{
		name: "all of the answer is read, and the peer does not close",
		leak: func(t *testing.T, s *quiclife.Stream) {
			write(t, s, "request")
			s.Close()
			read(t, s, "answer")
		},
		serve: func(s *quiclife.Stream) {
			io.ReadAll(s)
			s.Write([]byte("answer"))
			<-s.Conn().Context().Done()
			s.Release()
		},
		words:        []string{"send half finished, receive half open", "6 read", "the peer has not called Close"},
		endsByItself: true,
	},
	{
		name: "Close is forgotten after the answer",
		leak: func(t *testing.T, s *quiclife.Stream) {
			write(t, s, "r")
			_, err := io.ReadAll(s)
			require.NoError(t, err)
		},
		serve: func(s *quiclife.Stream) {
			defer s.Release()
			s.Read(make([]byte, 1))
			s.Write([]byte("answer"))
			s.Close()
		},
		words: []string{"send half open, receive half finished", "Close when all is written"},
	},
	{
		name:  "an error path forgets the stream",
		leak:  func(*testing.T, *quiclife.Stream) {},
		words: []string{"send half open, receive half open", "0 bytes written and 0 read", "defer Release right after opening or accepting it"},
	},
	{
		name:  "returns after a Write",
		leak:  func(t *testing.T, s *quiclife.Stream) { write(t, s, "request") },
		words: []string{"send half open, receive half open", "7 bytes written", "defer Release for paths that return early"},
	},
	{
		name: "CancelWrite without CancelRead",
		leak: func(t *testing.T, s *quiclife.Stream) {
			write(t, s, "request")
			s.CancelWrite(1)
		},
		serve: func(s *quiclife.Stream) {
			io.ReadAll(s)
			<-s.Conn().Context().Done()
			s.Release()
		},
		words: []string{"send half aborted, receive half open", "CancelRead, or defer Release"},
	},
	{
		name: "the reader's error is returned",
		leak: func(t *testing.T, s *quiclife.Stream) {
			write(t, s, "r")
			_, err := io.ReadAll(s)
			require.Error(t, err)
		},
		serve: func(s *quiclife.Stream) {
			s.Read(make([]byte, 1))
			s.CancelWrite(1)
			<-s.Conn().Context().Done()
			s.Release()
		},
		words: []string{"send half open, receive half aborted", "The receive half has failed"},
	},
	{
		name: "STOP_SENDING that nobody notices",
		leak: func(t *testing.T, s *quiclife.Stream) {
			write(t, s, "r")
			_, err := io.ReadAll(s)
			require.NoError(t, err)
			<-s.Context().Done() // STOP_SENDING has come
		},
		serve: func(s *quiclife.Stream) {
			s.Read(make([]byte, 1))
			s.Close()
			s.CancelRead(1)
		},
		words: []string{"send half open, receive half finished", "Close when all is written"},
	},
}

func serving(c *quiclife.Conn, serve func(*quiclife.Stream)) {
	if serve == nil {
		answering(c)
		return
	}
	for {
		s, err := c.AcceptStream(context.Background())
		if err != nil {
			return
		}
		go serve(s)
	}
}

// paragraph returns the paragraph of a failure message that begins with words.
func paragraph(t *testing.T, message, words string) string {
	t.Helper()
	for p := range strings.SplitSeq(message, "\n\n") {
		if strings.HasPrefix(p, words) {
			return p
		}
	}
	require.Failf(t, "no paragraph of the failure begins so", "%q in:\n%s", words, message)
	return ""
}

func TestEveryWayToLeakIsNamed(t *testing.T) {
	const opener = "    github.com/quiclife/quiclife/leaktest_test.open "
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			// The stream is held or dropped, or its connection is closed.
			var held *quiclife.Stream
			message := failure(t, func(t *testing.T, client, server *quiclife.Conn) {
				go serving(server, way.serve)
				held = open(t, client)
				way.leak(t, held)
			})
			requireWords(t, paragraph(t, message, "1 stream opened at\n"+opener), append(way.words, "Still held by the program")...)
			held.Release()

			message = failure(t, func(t *testing.T, client, server *quiclife.Conn) {
				go serving(server, way.serve)
				for range 2 {
					way.leak(t, open(t, client))
				}
			})
			requireWords(t, paragraph(t, message, "2 streams opened at\n"+opener), append(way.words, "Dropped by the program")...)

			for _, remote := range []bool{false, true} {
				message = failure(t, func(t *testing.T, client, server *quiclife.Conn) {
					go serving(server, way.serve)
					way.leak(t, open(t, client))
					settled()
					if remote {
						server.CloseWithError(0, "")
					} else {
						client.CloseWithError(0, "")
					}
				})
				if way.endsByItself {
					require.Empty(t, message, "the peer's FIN might have been under way")
					continue
				}
				requireWords(t, paragraph(t, message, "1 stream opened at\n"+opener), append(way.words, "Open when the connection ended, and not ended since")...)
			}
		})
	}
}

// pairUnder connects two ends under a Guard, over simnet. Transports and
// sockets are closed at the end of t.
func pairUnder(t *testing.T, g *quiclife.Guard) (client, server *quiclife.Conn) {
	t.Helper()
	serverTLS, clientTLS := quictest.TLS()
	c, s, addr := quictest.Net{}.Endpoints(t)
	clientTransport, serverTransport := &quiclife.Transport{Conn: c, Guard: g}, &quiclife.Transport{Conn: s, Guard: g}
	ln, err := serverTransport.Listen(serverTLS, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		ln.Close()
		clientTransport.Close()
		serverTransport.Close()
	})
	client, err = clientTransport.Dial(t.Context(), addr, clientTLS, nil)
	require.NoError(t, err)
	server, err = ln.Accept(t.Context())
	require.NoError(t, err)
	return client, server
}
