package quiclife_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// TestStalledWindowIsDrained: dropped streams whose unread data has filled the
// connection's window do not stop other streams. No slot is short, and the
// program would not collect garbage by itself.
func TestStalledWindowIsDrained(t *testing.T) {
	percent := debug.SetGCPercent(2000)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	for _, uni := range []bool{false, true} {
		t.Run(fmt.Sprintf("unidirectional %v", uni), func(t *testing.T) {
			t.Parallel() // in parallel with the other
			const window = 64 << 10
			conf := &quic.Config{InitialStreamReceiveWindow: window / 4, MaxStreamReceiveWindow: window / 4, InitialConnectionReceiveWindow: window, MaxConnectionReceiveWindow: window}
			e := setup{guard: quiclife.OwnCollector(&quiclife.Guard{}), serverConf: conf}.onLoopback(t)
			runtime.GC()
			var held []io.Writer // the opener does not leak
			open := func(size int) {
				var w io.Writer
				var err error
				if uni {
					w, err = e.client.OpenUniStream()
				} else {
					w, err = e.client.OpenStream()
				}
				require.NoError(t, err)
				held = append(held, w)
				go w.Write(make([]byte, size))
			}
			accept := func() interface {
				io.Reader
				SetReadDeadline(time.Time) error
			} {
				if uni {
					s, err := e.server.AcceptUniStream(t.Context())
					require.NoError(t, err)
					return s
				}
				s, err := e.server.AcceptStream(t.Context())
				require.NoError(t, err)
				return s
			}
			for range 4 {
				open(window / 4)
				accept()
			}
			open(1)
			start := time.Now()
			last := accept()
			last.SetReadDeadline(start.Add(20 * time.Second))
			_, err := io.ReadFull(last, make([]byte, 1))
			require.NoError(t, err, "the connection has stalled")
			t.Log(time.Since(start))
			e.client.CloseWithError(0, "")
			runtime.KeepAlive(held)
		})
	}
}

// TestStallIsSeenWhoeverWaits: after a long rest, dropped streams with unread
// data have filled the connection's window. They are drained, unless ReportOnly
// is set.
func TestStallIsSeenWhoeverWaits(t *testing.T) {
	const window = 64 << 10
	for _, c := range []struct {
		name  string
		wait  func(*quiclife.Conn, *quiclife.Stream)
		guard *quiclife.Guard
	}{
		{"Read", func(_ *quiclife.Conn, s *quiclife.Stream) { s.Read(make([]byte, 1)) }, &quiclife.Guard{}},
		{"Write", func(_ *quiclife.Conn, s *quiclife.Stream) { s.Write(make([]byte, 4<<20)) }, &quiclife.Guard{}},
		{"Accept", func(c *quiclife.Conn, _ *quiclife.Stream) { c.AcceptStream(context.Background()) }, &quiclife.Guard{}},
		{"ReportOnly", func(_ *quiclife.Conn, s *quiclife.Stream) { s.Read(make([]byte, 1)) }, &quiclife.Guard{ReportOnly: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := &quic.Config{InitialConnectionReceiveWindow: window, MaxConnectionReceiveWindow: window, MaxIdleTimeout: time.Hour, KeepAlivePeriod: time.Minute}
			setup{serverConf: conf, clientConf: &quic.Config{MaxIdleTimeout: time.Hour}, guard: c.guard}.in(t, func(t *testing.T, e ends) {
				client, server := e.stream(t)
				keep(t, client)
				keep(t, server)
				go c.wait(e.server, server)
				time.Sleep(10 * time.Minute)
				for range 4 {
					s, err := e.client.OpenUniStream()
					require.NoError(t, err)
					keep(t, s)
					go s.Write(make([]byte, window/4))
					_, err = e.server.AcceptUniStream(t.Context())
					require.NoError(t, err)
				}
				written := make(chan error, 1)
				go func() {
					s, err := e.client.OpenUniStream()
					if err == nil {
						_, err = s.Write(make([]byte, window/4))
					}
					written <- err
				}()
				select {
				case err := <-written:
					require.NoError(t, err)
					require.False(t, c.guard.ReportOnly, "drained, though leaks are only to be reported")
				case <-time.After(5 * time.Second):
					require.True(t, c.guard.ReportOnly, "the connection has stalled")
				}
				e.client.CloseWithError(0, "")
				e.server.CloseWithError(0, "")
			})
		})
	}
}

// TestStallIsSeenThoughWhatBlocksBeganLongBefore: one call has waited for
// seconds when another returns and its stream is dropped with unread data.
func TestStallIsSeenThoughWhatBlocksBeganLongBefore(t *testing.T) {
	const window = 64 << 10
	for _, way := range []string{"Read", "Peek", "Accept", "Open"} {
		t.Run(way, func(t *testing.T) {
			conf := &quic.Config{InitialConnectionReceiveWindow: window, MaxConnectionReceiveWindow: window, MaxIdleTimeout: time.Hour}
			setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
				filler, victim := e.stream(t)
				other, last := e.stream(t)
				read := make(chan struct{})
				go func() {
					defer close(read)
					last.Read(make([]byte, 1)) // it waits from the start
				}()
				switch way {
				case "Read":
					go victim.Read(make([]byte, 10))
				case "Peek":
					go victim.Peek(make([]byte, 10))
				case "Accept":
					go e.server.AcceptStream(t.Context())
				}
				time.Sleep(5 * time.Second)
				switch way {
				case "Accept":
					victim.Release()
					filler.Release()
					s, err := e.client.OpenStream()
					require.NoError(t, err)
					filler = s
				case "Open":
					victim.Release()
					filler.Release()
					func() {
						s, err := e.server.OpenStream()
						require.NoError(t, err)
						write(t, s, "x")
					}()
					s, err := e.client.AcceptStream(t.Context())
					require.NoError(t, err)
					filler = s
				}
				victim = nil
				go filler.Write(make([]byte, 2*window))
				time.Sleep(100 * time.Millisecond)
				go other.Write([]byte("x"))
				select {
				case <-read:
				case <-time.After(5 * time.Second):
					t.Error("the connection has stalled")
				}
				runtime.KeepAlive(last)
				e.client.CloseWithError(0, "")
			})
		})
	}
}

// TestIdleConnectionsAskForFewCollections: a connection at rest, with calls
// that wait and halves that nobody reads, looks like a stalled one.
func TestIdleConnectionsAskForFewCollections(t *testing.T) {
	setup{serverConf: &quic.Config{MaxIdleTimeout: time.Hour, KeepAlivePeriod: time.Minute}, guard: &quiclife.Guard{HalfCloseTimeout: -1}}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		go e.server.AcceptStream(t.Context())
		go client.Read(make([]byte, 1))
		asked := quiclife.CollectionsAsked(e.server)
		time.Sleep(10 * time.Minute)
		n := quiclife.CollectionsAsked(e.server) - asked
		require.Positive(t, n)
		require.LessOrEqual(t, n, 12, "after 1, 2, 4 ... 120 s")
		runtime.KeepAlive(server)
		e.server.CloseWithError(0, "")
	})
}
