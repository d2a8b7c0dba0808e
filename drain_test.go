package quiclife_test

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// TestNoStopSendingDrainsWhatIsForgotten: dropped streams are drained, and the
// peer sees no STOP_SENDING.
func TestNoStopSendingDrainsWhatIsForgotten(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(t *testing.T, e ends, server *quiclife.Stream) // makes the server's stream end
	}{
		{"dropped", func(t *testing.T, e ends, server *quiclife.Stream) {
			server.Close()
		}},
		{"half-closed", func(t *testing.T, e ends, server *quiclife.Stream) {
			server.Close()
			time.Sleep(3 * time.Second)
			_, err := server.Read(make([]byte, 1))
			require.ErrorIs(t, err, &quiclife.StreamError{StreamID: server.StreamID(), ErrorCode: 7})
			require.NoError(t, server.SetReadDeadline(time.Time{}))
		}},
		{"idle while a Read waits", func(t *testing.T, e ends, server *quiclife.Stream) {
			_, err := server.Read(make([]byte, 1))
			require.ErrorIs(t, err, &quiclife.StreamError{StreamID: server.StreamID(), ErrorCode: 8})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			guard := &quiclife.Guard{NoStopSending: true, HalfCloseTimeout: 2 * time.Second, Codes: quiclife.Codes{HalfClosed: 7, Idle: 8}}
			if c.name == "idle while a Read waits" {
				guard.IdleTimeout = 2 * time.Second
			}
			clientGuard := &quiclife.Guard{HalfCloseTimeout: -1}
			setup{guard: guard}.in(t, func(t *testing.T, e ends) {
				e.client = clientGuard.Wrap(e.rawClient, nil)
				client, server := e.stream(t)
				func() { c.end(t, e, server) }()
				server = nil
				for range 5 {
					collectAndLook(e.server)
					settled()
				}
				write(t, client, string(make([]byte, 100_000))) // more than a window, which only draining makes possible
				for range 3 {
					write(t, client, string(make([]byte, 400_000)))
				}
				require.EqualValues(t, 1, e.server.Stats().Incoming.Open)
				require.NoError(t, client.Close())
				io.ReadAll(client)
				settled()
				settled()
				stats := e.server.Stats().Incoming
				require.Zero(t, stats.Open)
				require.EqualValues(t, 1, stats.Reclaimed)
				e.requireNothingLeft(t)
			})
		})
	}
}

// TestReadAndPeekOfDrainedStreamFail: they return the code that the stream was
// ended with, and no data.
func TestReadAndPeekOfDrainedStreamFail(t *testing.T) {
	guard := &quiclife.Guard{NoStopSending: true, IdleTimeout: 2 * time.Second, Codes: quiclife.Codes{Idle: 8}}
	setup{}.in(t, func(t *testing.T, e ends) {
		e.server = guard.Wrap(e.rawServer, nil)
		client, server := e.stream(t)
		uni, err := e.client.OpenUniStream()
		require.NoError(t, err)
		write(t, uni, "x")
		serverUni, err := e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		time.Sleep(3 * time.Second)
		write(t, client, "late")
		write(t, uni, "late")
		settled()
		for name, read := range map[string]func([]byte) (int, error){
			"Stream.Read": server.Read, "Stream.Peek": server.Peek,
			"ReceiveStream.Read": serverUni.Read, "ReceiveStream.Peek": serverUni.Peek,
		} {
			n, err := read(make([]byte, 1))
			stream, ok := errors.AsType[*quiclife.StreamError](err)
			require.True(t, ok, "%s: expected the stream's error, got %v", name, err)
			require.Zero(t, n, name)
			require.EqualValues(t, 8, stream.ErrorCode, name)
		}
	})
}

// TestNoStopSendingReturnsCredit: a stream that is drained after a timeout
// holds no slot once it has ended, even if the program still refers to it.
func TestNoStopSendingReturnsCredit(t *testing.T) {
	guard := &quiclife.Guard{NoStopSending: true, HalfCloseTimeout: 2 * time.Second}
	clientGuard := &quiclife.Guard{HalfCloseTimeout: -1}
	conf := &quic.Config{MaxIncomingStreams: 1, RequireStreamCreditRelease: true}
	setup{guard: guard, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		e.client = clientGuard.Wrap(e.rawClient, nil)
		client, server := e.stream(t)
		keep(t, server)
		server.Close()
		time.Sleep(3 * time.Second)
		client.Close()
		io.ReadAll(client)
		settled()
		settled()
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		s.Release()
	})
}

// TestDrainedStreamsAreEndedInAShortage: streams drained because of a stall may
// hold slots that are short later.
func TestDrainedStreamsAreEndedInAShortage(t *testing.T) {
	const window = 64 << 10
	conf := &quic.Config{MaxIncomingUniStreams: 8, InitialConnectionReceiveWindow: window, MaxConnectionReceiveWindow: window}
	setup{guard: &quiclife.Guard{}, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		open := func(size int) *quiclife.SendStream {
			s, err := e.client.OpenUniStreamSync(t.Context())
			require.NoError(t, err)
			go s.Write(make([]byte, size))
			_, err = e.server.AcceptUniStream(t.Context())
			require.NoError(t, err)
			return s
		}
		var held []*quiclife.SendStream
		for range 4 {
			held = append(held, open(window/4))
		}
		go e.server.AcceptStream(t.Context()) // somebody who waits
		time.Sleep(5 * time.Second)
		for range 4 {
			held = append(held, open(1))
		}
		time.Sleep(5 * time.Second)
		for info := range e.server.Streams() {
			require.NotEqual(t, 3, int(info.ID>>2), "the first that is no control stream: %v", info)
		}
		for _, s := range held {
			s.Release()
		}
		e.server.CloseWithError(0, "")
	})
}

// TestShutdownDrainsDroppedStreams: while Shutdown waits for other streams.
func TestShutdownDrainsDroppedStreams(t *testing.T) {
	const window = 16 << 10
	conf := &quic.Config{InitialStreamReceiveWindow: window, MaxStreamReceiveWindow: window}
	setup{serverConf: conf}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		uni, err := e.client.OpenUniStream()
		require.NoError(t, err)
		written := make(chan error, 1)
		go func() {
			_, err := uni.Write(make([]byte, 2*window))
			written <- err
		}()
		_, err = e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		down := make(chan error, 1)
		go func() { down <- shutdown(e.server, time.Minute) }()
		time.Sleep(5 * time.Second)
		require.NotEmpty(t, written)
		require.NoError(t, <-written)
		uni.Release()
		client.Release()
		server.Release()
		require.NoError(t, <-down)
	})
}

// TestIdleDrainedStreamsCostNothing: a connection at rest with dropped control
// streams looks as if it had stalled.
func TestIdleDrainedStreamsCostNothing(t *testing.T) {
	conf := &quic.Config{MaxIdleTimeout: 2 * time.Hour}
	setup{clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
		var reads atomic.Int64
		func() {
			require.NoError(t, dropUni(t.Context(), e.client))
			s, err := e.server.AcceptUniStream(t.Context())
			require.NoError(t, err)
			expect(t, s, "settings")
			quiclife.AroundDrainedReads(s, func(read func()) { reads.Add(1); read() })
		}()
		go e.server.AcceptStream(t.Context())
		time.Sleep(time.Minute)
		require.Positive(t, reads.Load())
		reads.Store(0)
		time.Sleep(time.Hour)
		require.LessOrEqual(t, reads.Load(), int64(200))
		e.server.CloseWithError(0, "")
	})
}

// TestTrickleOnDrainedStreamHoldsUpNoOther: if the peer sends all the time on
// one drained stream, the others are still drained.
func TestTrickleOnDrainedStreamHoldsUpNoOther(t *testing.T) {
	guard := &quiclife.Guard{NoStopSending: true, HalfCloseTimeout: -1}
	setup{}.in(t, func(t *testing.T, e ends) {
		e.server = guard.Wrap(e.rawServer, nil)
		var trickle, bulk *quiclife.SendStream
		var reading, most atomic.Int64
		for _, to := range []**quiclife.SendStream{&trickle, &bulk} {
			s, err := e.client.OpenUniStream()
			require.NoError(t, err)
			write(t, s, "x")
			func() {
				r, err := e.server.AcceptUniStream(t.Context())
				require.NoError(t, err)
				quiclife.AroundDrainedReads(r, func(read func()) {
					raise(&most, reading.Add(1))
					read()
					reading.Add(-1)
				})
			}()
			*to = s
		}
		go e.server.AcceptStream(t.Context()) // somebody who waits
		collectAndLook(e.server)
		var wg sync.WaitGroup
		wg.Go(func() {
			for trickle.TryWriteAll([]byte("x")) == nil {
				time.Sleep(500 * time.Microsecond) // the Read of a drain waits for a millisecond
			}
		})
		wg.Go(func() {
			bulk.Write(make([]byte, 768<<10))
			bulk.Close()
		})
		time.Sleep(4 * time.Second)
		require.Equal(t, quiclife.HalfFinished.String(), bulk.Info().Send.String(), "the send half of the bulk stream: %v", bulk.Info())
		require.LessOrEqual(t, most.Load(), int64(1), "drained by several at once")
		trickle.Release()
		e.client.CloseWithError(0, "")
		wg.Wait()
	})
}
