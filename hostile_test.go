package quiclife_test

import (
	"bytes"
	"context"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

var kilobyte = make([]byte, 1000)

// TestHostilePeer: whatever a peer on plain quic-go does for two seconds, the
// wrapped server stays within its limits in streams, goroutines and heap, and
// serves another connection meanwhile; when the peer is gone, nothing is left.
func TestHostilePeer(t *testing.T) {
	const limit = 16
	for _, c := range []struct {
		name  string
		peer  func(ctx context.Context, c *quic.Conn)
		close bool // it ends the connection itself
	}{
		{"opens to the limit and never reads", func(ctx context.Context, c *quic.Conn) {
			for {
				s, err := c.OpenStreamSync(ctx)
				if err != nil {
					return
				}
				s.Write(kilobyte)
				s.Close()
			}
		}, false},
		{"never writes", func(ctx context.Context, c *quic.Conn) {
			for {
				s, err := c.OpenStreamSync(ctx)
				if err != nil {
					return
				}
				s.Write([]byte("x")) // to be seen, and then no more
				s.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
				s.Read(make([]byte, 10))
			}
		}, false},
		{"resets at once in a loop", func(ctx context.Context, c *quic.Conn) {
			for {
				s, err := c.OpenStreamSync(ctx)
				if err != nil {
					return
				}
				s.CancelWrite(1)
				s.CancelRead(1)
			}
		}, false},
		{"sends a byte now and then", func(ctx context.Context, c *quic.Conn) {
			var wg sync.WaitGroup
			defer wg.Wait()
			for {
				s, err := c.OpenStreamSync(ctx)
				if err != nil {
					return
				}
				wg.Go(func() {
					for ctx.Err() == nil {
						s.Write([]byte("x"))
						time.Sleep(200 * time.Millisecond)
					}
				})
			}
		}, false},
		{"opens without using", func(ctx context.Context, c *quic.Conn) {
			var last *quic.Stream
			for {
				s, err := c.OpenStream()
				if err != nil {
					break
				}
				last = s
			}
			last.Write([]byte("x")) // which opens them all
			<-ctx.Done()
		}, false},
		{"stops sending on everything", func(ctx context.Context, c *quic.Conn) {
			for {
				s, err := c.OpenStreamSync(ctx)
				if err != nil {
					return
				}
				s.CancelRead(1)
				s.Write([]byte("x"))
			}
		}, false},
		{"opens unidirectional streams and never ends them", func(ctx context.Context, c *quic.Conn) {
			for {
				s, err := c.OpenUniStreamSync(ctx)
				if err != nil {
					return
				}
				s.Write(kilobyte)
			}
		}, false},
		{"ends the connection in the middle", func(ctx context.Context, c *quic.Conn) {
			for range 10 {
				s, err := c.OpenStreamSync(ctx)
				if err != nil {
					return
				}
				s.Write([]byte("x"))
			}
			c.CloseWithError(1, "gone")
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			serverTLS, clientTLS := quictest.TLS()
			guard := &quiclife.Guard{IdleTimeout: 300 * time.Millisecond}
			guard.Logger = new(logged).logger()
			conf := &quic.Config{
				MaxIncomingStreams:             limit,
				MaxIncomingUniStreams:          limit,
				InitialStreamReceiveWindow:     32 << 10,
				MaxStreamReceiveWindow:         32 << 10,
				InitialConnectionReceiveWindow: 256 << 10,
				MaxConnectionReceiveWindow:     256 << 10,
			}
			ln, err := guard.ListenAddr("127.0.0.1:0", serverTLS, conf)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			served := make(chan error, 1)
			// The handlers' buffers are made beforehand, or they would count as heap:
			// what is allocated while a collection runs is live to it.
			buffers := make(chan []byte, 4*limit)
			for range cap(buffers) {
				buffers <- make([]byte, 4096)
			}
			copyTo := func(w io.Writer, r io.Reader) error {
				b := <-buffers
				defer func() { buffers <- b }()
				_, err := io.CopyBuffer(struct{ io.Writer }{w}, r, b) // not ReadFrom, which brings a buffer of its own
				return err
			}
			go func() {
				served <- ln.Serve(ctx, quiclife.Handler{
					Stream:    func(ctx context.Context, s *quiclife.Stream) error { return copyTo(s, s) },
					UniStream: func(ctx context.Context, s *quiclife.ReceiveStream) error { return copyTo(io.Discard, s) },
				})
			}()
			good, err := quiclife.DialAddr(t.Context(), ln.Addr().String(), clientTLS, nil)
			require.NoError(t, err)
			defer good.CloseWithError(0, "")
			ask := func() {
				t.Helper()
				err := good.Do(t.Context(), func(s *quiclife.Stream) error {
					message := randomBytes(10_000)
					s.SetDeadline(time.Now().Add(10 * time.Second))
					go func() { s.Write(message); s.Close() }()
					b, err := io.ReadAll(s)
					if !bytes.Equal(message, b) {
						t.Errorf("%d bytes, %v", len(b), err)
					}
					return err
				})
				require.NoError(t, err)
			}
			ask()

			bad, err := quic.DialAddr(t.Context(), ln.Addr().String(), clientTLS, &quic.Config{InitialStreamReceiveWindow: 1000, MaxStreamReceiveWindow: 1000})
			require.NoError(t, err)
			// What is kept shows in each of three collections. Streams that come and
			// go while one runs are live to that one only.
			kept := func() int64 {
				return int64(min(quictest.HeapAlloc(), quictest.HeapAlloc(), quictest.HeapAlloc()))
			}
			heap, goroutines := kept(), runtime.NumGoroutine()
			attack, stop := context.WithTimeout(t.Context(), 2*time.Second)
			defer stop()
			var attacking sync.WaitGroup
			attacking.Go(func() { c.peer(attack, bad) })
			var mostHeap, mostGoroutines, mostStreams int64
			for attack.Err() == nil && !c.close {
				ask()
				attacker := int64(quictest.Held(bad) * 16 << 10) // it leaks too, in this process
				mostHeap = max(mostHeap, kept()-heap-attacker)
				mostGoroutines = max(mostGoroutines, int64(runtime.NumGoroutine()-goroutines))
				for conn := range guard.Conns() {
					stats := conn.Stats()
					mostStreams = max(mostStreams, stats.Incoming.Open, stats.IncomingUni.Open)
				}
				time.Sleep(10 * time.Millisecond)
			}
			attacking.Wait()
			ask()
			t.Logf("at most %d streams, %d more goroutines, %d more kB of heap", mostStreams, mostGoroutines, mostHeap>>10)
			require.LessOrEqual(t, mostStreams, int64(limit))
			// a handler for each stream, on the attacker's side a goroutine for each, and the good client's own
			require.Less(t, mostGoroutines, int64(2*limit+2*limit+20))
			require.Less(t, mostHeap, int64(4<<20))

			// Once its streams have timed out, nothing is kept of all that came and went.
			var opened int64
			eventually(t, func() bool {
				open := int64(0)
				opened = 0
				for conn := range guard.Conns() {
					stats := conn.Stats()
					open += stats.Open()
					opened += stats.Incoming.Opened + stats.IncomingUni.Opened
				}
				return open == 0
			})
			rest := kept() - heap - int64(quictest.Held(bad)*16<<10)
			require.Less(t, rest, int64(512<<10), "bytes of heap after %d streams", opened)

			bad.CloseWithError(0, "")
			eventually(t, func() bool {
				for conn := range guard.Conns() {
					if conn.Stats().Open() > 0 {
						return false
					}
				}
				return len(conns(guard)) == 1 // the good one
			})
			cancel()
			<-served
			require.Empty(t, conns(guard))
		})
	}
}
