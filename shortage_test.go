package quiclife_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// dropUni opens a unidirectional stream, writes to it, and forgets it.
//
//go:noinline
func dropUni(ctx context.Context, c *quiclife.Conn) error {
	s, err := c.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	_, err = io.WriteString(s, "settings")
	return err
}

// acceptOnce accepts a unidirectional stream, reads its first message, and
// forgets it.
//
//go:noinline
func acceptOnce(ctx context.Context, c *quiclife.Conn) error {
	s, err := c.AcceptUniStream(ctx)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(s, make([]byte, len("settings")))
	return err
}

// readToTheError is a peer whose application does as it should.
func readToTheError(c *quiclife.Conn) {
	for {
		s, err := c.AcceptUniStream(context.Background())
		if err != nil {
			return
		}
		go func() {
			io.Copy(io.Discard, s)
			s.Release()
		}()
	}
}

// TestLeakedUniStreamsNeverBlockOpens: a program that opens, writes and drops
// unidirectional streams at a limit of 100 goes on.
func TestLeakedUniStreamsNeverBlockOpens(t *testing.T) {
	e := setup{guard: &quiclife.Guard{}}.onLoopback(t)
	quiclife.ForgetCollections()
	go readToTheError(e.server)
	n := 10_000
	if testing.Short() {
		n = 1000
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	start := time.Now()
	for i := range n {
		require.NoError(t, dropUni(ctx, e.client), "stream %d", i)
	}
	t.Logf("%.0f streams a second", float64(n)/time.Since(start).Seconds())
	stats := e.client.Stats().OutgoingUni
	require.LessOrEqual(t, stats.Open, int64(100))
	require.Equal(t, stats.Opened-stats.Open, stats.Reclaimed)
	e.client.CloseWithError(0, "")
}

// TestServerThatDropsEveryStreamServesOn: a server that answers and forgets
// each stream, at a limit of 100.
func TestServerThatDropsEveryStreamServesOn(t *testing.T) {
	e := setup{guard: &quiclife.Guard{}}.onLoopback(t)
	quiclife.ForgetCollections()
	go func() {
		for {
			s, err := e.server.AcceptStream(context.Background())
			if err != nil {
				return
			}
			go func() {
				io.ReadAll(s)
				s.Write([]byte("answer"))
			}()
		}
	}()
	n := 5000
	if testing.Short() {
		n = 1000
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	start := time.Now()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for range n / 100 {
				s, err := e.client.OpenStreamSync(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				s.Write([]byte("request"))
				s.Close()
				if _, err := io.ReadFull(s, make([]byte, len("answer"))); err != nil {
					t.Error(err)
				}
				s.Release()
			}
		})
	}
	wg.Wait()
	t.Logf("%.0f streams a second", float64(n)/time.Since(start).Seconds())
	e.client.CloseWithError(0, "")
}

// TestStalledWindowIsDrained: dropped streams whose unread data has filled the
// connection's window do not stop the others, though no slot is short and the
// program would not collect garbage by itself.
func TestStalledWindowIsDrained(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(2000))
	for _, uni := range []bool{false, true} {
		t.Run(fmt.Sprintf("unidirectional %v", uni), func(t *testing.T) {
			const window = 64 << 10
			conf := &quic.Config{InitialStreamReceiveWindow: window / 4, MaxStreamReceiveWindow: window / 4, InitialConnectionReceiveWindow: window, MaxConnectionReceiveWindow: window}
			e := setup{guard: &quiclife.Guard{}, serverConf: conf}.onLoopback(t)
			quiclife.ForgetCollections()
			runtime.GC()
			var held []io.Writer // the opener is no leaker
			open := func() io.Writer {
				if uni {
					s, err := e.client.OpenUniStream()
					require.NoError(t, err)
					return s
				}
				s, err := e.client.OpenStream()
				require.NoError(t, err)
				return s
			}
			accept := func() io.Reader {
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
				w := open()
				held = append(held, w)
				go w.Write(make([]byte, window/4))
				accept()
			}
			w := open()
			go w.Write([]byte("x"))
			start := time.Now()
			_, err := io.ReadFull(accept(), make([]byte, 1))
			require.NoError(t, err)
			require.Less(t, time.Since(start), 3*time.Second)
			t.Log(time.Since(start))
			e.client.CloseWithError(0, "")
			runtime.KeepAlive(held)
		})
	}
}
