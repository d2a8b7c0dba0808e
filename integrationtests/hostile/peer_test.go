package hostile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
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

// hostilePeers are what peers do until ctx ends.
var hostilePeers = []struct {
	name string
	do   func(ctx context.Context, c *quic.Conn)
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
	}},
	{"never writes", func(ctx context.Context, c *quic.Conn) {
		for {
			s, err := c.OpenStreamSync(ctx)
			if err != nil {
				return
			}
			s.Write([]byte("x")) // so that the server sees the stream
			s.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			s.Read(make([]byte, 10))
		}
	}},
	{"resets at once in a loop", func(ctx context.Context, c *quic.Conn) {
		for {
			s, err := c.OpenStreamSync(ctx)
			if err != nil {
				return
			}
			s.CancelWrite(1)
			s.CancelRead(1)
		}
	}},
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
	}},
	{"opens without using", func(ctx context.Context, c *quic.Conn) {
		var last *quic.Stream
		for {
			s, err := c.OpenStream()
			if err != nil {
				break
			}
			last = s
		}
		last.Write([]byte("x")) // opens the earlier ones, too
		<-ctx.Done()
	}},
	{"stops sending on everything", func(ctx context.Context, c *quic.Conn) {
		for {
			s, err := c.OpenStreamSync(ctx)
			if err != nil {
				return
			}
			s.CancelRead(1)
			s.Write([]byte("x"))
		}
	}},
	{"opens unidirectional streams and never ends them", func(ctx context.Context, c *quic.Conn) {
		for {
			s, err := c.OpenUniStreamSync(ctx)
			if err != nil {
				return
			}
			s.Write(kilobyte)
		}
	}},
	{"ends the connection in the middle", func(ctx context.Context, c *quic.Conn) {
		for range 10 {
			s, err := c.OpenStreamSync(ctx)
			if err != nil {
				return
			}
			s.Write([]byte("x"))
		}
		c.CloseWithError(1, "gone")
	}},
}

const (
	streamLimit = 16 // of each kind, on each connection
	idleCode    = 77
)

// TestServerOfHostilePeerStaysWithinItsBounds: whatever a peer on plain quic-go
// does, the wrapped server keeps its limits of streams, goroutines and heap. It
// serves another connection meanwhile. Once the peer's streams have timed out, the
// server keeps nothing of them. When the peer is gone, it keeps nothing of the
// peer. Each peer goes on for 600 ms, or for QUICLIFE_HOSTILE_FOR.
func TestServerOfHostilePeerStaysWithinItsBounds(t *testing.T) {
	duration := 600 * time.Millisecond
	if s := os.Getenv("QUICLIFE_HOSTILE_FOR"); s != "" {
		var err error
		duration, err = time.ParseDuration(s)
		require.NoError(t, err)
	}
	for _, peer := range hostilePeers {
		t.Run(peer.name, func(t *testing.T) { testHostilePeer(t, peer.do, duration) })
	}
}

func testHostilePeer(t *testing.T, do func(ctx context.Context, c *quic.Conn), duration time.Duration) {
	guard := &quiclife.Guard{
		IdleTimeout: 300 * time.Millisecond,
		Codes:       quiclife.Codes{Idle: idleCode},
		Logger:      slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	addr, stop := serveEcho(t, guard)
	defer stop()
	_, clientTLS := quictest.TLS()
	good, err := quiclife.DialAddr(t.Context(), addr, clientTLS, nil)
	require.NoError(t, err)
	defer good.CloseWithError(0, "")
	require.NoError(t, ask(t.Context(), good))

	bad, err := quic.DialAddr(t.Context(), addr, clientTLS, &quic.Config{InitialStreamReceiveWindow: 1000, MaxStreamReceiveWindow: 1000})
	require.NoError(t, err)
	// The attacker leaks too, and is in this process.
	ofAttacker := func() int64 { return int64(quictest.Held(bad)) * 16 << 10 }
	heap, goroutines := liveHeap(), runtime.NumGoroutine()
	attack, stopAttack := context.WithTimeout(t.Context(), duration)
	defer stopAttack()
	var attacking sync.WaitGroup
	attacking.Go(func() { do(attack, bad) })
	var mostHeap, mostStreams int64
	mostGoroutines := 0
	for attack.Err() == nil && bad.Context().Err() == nil {
		require.NoError(t, ask(t.Context(), good), "the good client")
		mostHeap = max(mostHeap, liveHeap()-heap-ofAttacker())
		mostGoroutines = max(mostGoroutines, runtime.NumGoroutine()-goroutines)
		for conn := range guard.Conns() {
			stats := conn.Stats()
			mostStreams = max(mostStreams, stats.Incoming.Open, stats.IncomingUni.Open)
		}
		time.Sleep(10 * time.Millisecond)
	}
	attacking.Wait()
	require.NoError(t, ask(t.Context(), good), "the good client")
	t.Logf("at most %d streams, %d more goroutines, %d kB more heap", mostStreams, mostGoroutines, mostHeap>>10)
	require.LessOrEqual(t, mostStreams, int64(streamLimit), "streams of a kind on one connection")
	// a handler for each stream, on the attacker's side a goroutine for each, and the good client's own
	require.Less(t, mostGoroutines, 2*streamLimit+2*streamLimit+20, "goroutines")
	require.Less(t, mostHeap, int64(4<<20), "bytes of heap")

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
	}, "streams that have not timed out")
	require.Less(t, liveHeap()-heap-ofAttacker(), int64(512<<10), "bytes of heap after %d streams", opened)

	bad.CloseWithError(0, "")
	eventually(t, func() bool {
		conns, open := 0, int64(0)
		for conn := range guard.Conns() {
			conns++
			open += conn.Stats().Open()
		}
		return open == 0 && conns == 1 // the good client's
	}, "the hostile peer's connection is still there")
}

// serveEcho serves echoes under g until stop is called.
func serveEcho(t *testing.T, g *quiclife.Guard) (addr string, stop func()) {
	serverTLS, _ := quictest.TLS()
	ln, err := g.ListenAddr("127.0.0.1:0", serverTLS, &quic.Config{
		MaxIncomingStreams:             streamLimit,
		MaxIncomingUniStreams:          streamLimit,
		InitialStreamReceiveWindow:     32 << 10,
		MaxStreamReceiveWindow:         32 << 10,
		InitialConnectionReceiveWindow: 256 << 10,
		MaxConnectionReceiveWindow:     256 << 10,
	})
	require.NoError(t, err)
	// The handlers' buffers are made beforehand. Otherwise they would count as
	// heap: a collection takes what is allocated while it runs for live.
	buffers := make(chan []byte, 4*streamLimit)
	for range cap(buffers) {
		buffers <- make([]byte, 4096)
	}
	copyTo := func(w io.Writer, r io.Reader) error {
		b := <-buffers
		defer func() { buffers <- b }()
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, r, b) // without ReadFrom, which allocates a buffer
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- ln.Serve(ctx, quiclife.Handlers{
			Stream:    func(_ context.Context, s *quiclife.Stream) error { return copyTo(s, s) },
			UniStream: func(_ context.Context, s *quiclife.ReceiveStream) error { return copyTo(io.Discard, s) },
		})
	}()
	return ln.Addr().String(), func() {
		cancel()
		<-served
		for conn := range g.Conns() {
			t.Error("a connection is left after Serve:", conn.RemoteAddr())
		}
	}
}

var message = bytes.Repeat([]byte("good"), 2500)

// ask asks c's server to echo a message. On a busy machine a stream may time out
// between two bytes. Then ask tries again.
func ask(ctx context.Context, c *quiclife.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		err := c.Do(ctx, func(s *quiclife.Stream) error {
			s.SetDeadline(time.Now().Add(20 * time.Second))
			go func() { s.Write(message); s.Close() }()
			b, err := io.ReadAll(s)
			if err == nil && !bytes.Equal(message, b) {
				err = fmt.Errorf("%d bytes of %d came back, or not the same", len(b), len(message))
			}
			return err
		})
		if timedOut, ok := errors.AsType[*quiclife.StreamError](err); !ok || timedOut.ErrorCode != idleCode {
			return err
		}
	}
}

// liveHeap is the least that three collections find live. Streams that come and
// go while one of them runs are live to that one only.
func liveHeap() int64 {
	return int64(min(quictest.HeapAlloc(), quictest.HeapAlloc(), quictest.HeapAlloc()))
}
