package quiclife_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
	"github.com/quic-go/quic-go/testutils/events"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// What one end may do with each half. A Read or Write that the other end
// leaves hanging ends by its deadline.

type act struct {
	name string
	do   func(*quiclife.Stream)
}

var large = make([]byte, 1<<20) // more than the window of matrixConf

var sendActs = []act{
	{"nothing", func(*quiclife.Stream) {}},
	{"close", func(s *quiclife.Stream) { s.Close() }},
	{"write", func(s *quiclife.Stream) { s.Write([]byte("answer")) }},
	{"write, close", func(s *quiclife.Stream) { s.Write([]byte("answer")); s.Close() }},
	{"cancel", func(s *quiclife.Stream) { s.CancelWrite(1) }},
	{"write, close, cancel", func(s *quiclife.Stream) { s.Write([]byte("answer")); s.Close(); s.CancelWrite(1) }},
	{"large write, close", func(s *quiclife.Stream) { s.Write(large); s.Close() }},
}

var receiveActs = []act{
	{"nothing", func(*quiclife.Stream) {}},
	{"read exactly", func(s *quiclife.Stream) { io.ReadFull(s, make([]byte, 6)) }},
	{"read to EOF", func(s *quiclife.Stream) { io.Copy(io.Discard, s) }},
	{"cancel", func(s *quiclife.Stream) { s.CancelRead(2) }},
}

var matrixConf = &quic.Config{
	InitialStreamReceiveWindow:     10_000,
	MaxStreamReceiveWindow:         10_000,
	InitialConnectionReceiveWindow: 1 << 20,
	MaxIdleTimeout:                 time.Hour,
}

// TestMatrix holds promise 1: whatever both ends do, in both orders, Release
// on each end gives the stream back, and it changes no half that had ended.
func TestMatrix(t *testing.T) {
	for _, receiveFirst := range []bool{false, true} {
		for _, concurrent := range []bool{false, true} {
			t.Run(fmt.Sprintf("receive first %v, concurrent %v", receiveFirst, concurrent), func(t *testing.T) {
				t.Parallel()
				setup{clientConf: matrixConf, serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
					testMatrix(t, e, receiveFirst, concurrent)
				})
			})
		}
	}
}

func testMatrix(t *testing.T, e ends, receiveFirst, concurrent bool) {
	play := func(s *quiclife.Stream, send, receive act) {
		s.SetDeadline(time.Now().Add(50 * time.Millisecond))
		if receiveFirst {
			send, receive = receive, send
		}
		send.do(s)
		receive.do(s)
	}
	for _, cs := range sendActs {
		for _, cr := range receiveActs {
			for _, ss := range sendActs {
				for _, sr := range receiveActs {
					name := fmt.Sprintf("client: %s, %s; server: %s, %s", cs.name, cr.name, ss.name, sr.name)
					client, server := e.stream(t)
					var wg sync.WaitGroup
					wg.Go(func() { play(client, cs, cr) })
					if !concurrent {
						wg.Wait()
					}
					wg.Go(func() { play(server, ss, sr) })
					wg.Wait()
					time.Sleep(20 * time.Millisecond) // a round trip

					for _, s := range []*quiclife.Stream{client, server} {
						before := s.Info()
						s.Release()
						after := s.Info()
						for _, half := range [][2]quiclife.HalfState{{before.Send, after.Send}, {before.Receive, after.Receive}} {
							if half[0] != quiclife.HalfOpen {
								require.Equal(t, half[0], half[1], name)
							} else {
								require.Equal(t, quiclife.HalfAborted, half[1], name)
							}
						}
					}
					time.Sleep(50 * time.Millisecond)
					e.requireNothingLeft(t, name)
				}
			}
		}
	}
}

// TestOwnHalvesSuffice holds promise 1 where the peer does nothing, not even
// accept the stream: once both of our halves have ended, nothing is kept.
func TestOwnHalvesSuffice(t *testing.T) {
	setup{clientConf: matrixConf, serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
		for _, send := range sendActs[1:] {
			for _, receive := range receiveActs {
				client, err := e.client.OpenStream()
				require.NoError(t, err)
				client.SetDeadline(time.Now().Add(50 * time.Millisecond))
				send.do(client)
				receive.do(client)
				if info := client.Info(); info.Send == quiclife.HalfOpen || info.Receive == quiclife.HalfOpen {
					client.Release()
				}
				time.Sleep(100 * time.Millisecond)
				require.Zero(t, quictest.Held(e.rawClient), "%s, %s", send.name, receive.name)
				require.Zero(t, e.client.Stats().Open())
			}
		}
	})
}

// TestHalves goes through each way in which a half ends, and tells how the
// stream is counted then.
func TestHalves(t *testing.T) {
	const (
		open     = quiclife.HalfOpen
		finished = quiclife.HalfFinished
		aborted  = quiclife.HalfAborted
	)
	for _, c := range []struct {
		name          string
		do            func(t *testing.T, s, peer *quiclife.Stream)
		send, receive quiclife.HalfState
		counted       string
	}{
		{"nothing", func(t *testing.T, s, peer *quiclife.Stream) {}, open, open, "open"},
		{"Close", func(t *testing.T, s, peer *quiclife.Stream) { require.NoError(t, s.Close()) }, finished, open, "open"},
		{"CancelWrite", func(t *testing.T, s, peer *quiclife.Stream) { s.CancelWrite(7) }, aborted, open, "open"},
		{"Close, CancelWrite", func(t *testing.T, s, peer *quiclife.Stream) { s.Close(); s.CancelWrite(7) }, finished, open, "open"},
		{"CancelRead", func(t *testing.T, s, peer *quiclife.Stream) { s.CancelRead(7) }, open, aborted, "open"},
		{"EOF read", func(t *testing.T, s, peer *quiclife.Stream) {
			peer.Close()
			_, err := io.ReadAll(s)
			require.NoError(t, err)
		}, open, finished, "open"},
		{"EOF peeked", func(t *testing.T, s, peer *quiclife.Stream) {
			peer.Close()
			n, err := s.Peek(make([]byte, 5))
			require.Zero(t, n)
			require.Equal(t, io.EOF, err)
			_, err = s.Read(make([]byte, 5))
			require.Equal(t, io.EOF, err)
		}, open, finished, "open"},
		{"data and EOF peeked", func(t *testing.T, s, peer *quiclife.Stream) {
			write(t, peer, "abc")
			peer.Close()
			n, err := s.Peek(make([]byte, 5))
			require.Equal(t, 3, n)
			require.Equal(t, io.EOF, err)
		}, open, open, "open"},
		{"reset read", func(t *testing.T, s, peer *quiclife.Stream) {
			peer.CancelWrite(7)
			_, err := s.Read(make([]byte, 5))
			require.ErrorIs(t, err, &quiclife.StreamError{StreamID: s.StreamID(), ErrorCode: 7, Remote: true})
		}, open, aborted, "open"},
		{"reset peeked", func(t *testing.T, s, peer *quiclife.Stream) {
			peer.CancelWrite(7)
			_, err := s.Peek(make([]byte, 5))
			require.ErrorIs(t, err, &quiclife.StreamError{StreamID: s.StreamID(), ErrorCode: 7, Remote: true})
		}, open, aborted, "open"},
		{"deadlines", func(t *testing.T, s, peer *quiclife.Stream) {
			s.SetDeadline(time.Now().Add(time.Millisecond))
			_, err := s.Read(make([]byte, 5))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			_, err = s.Peek(make([]byte, 5))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			_, err = s.Write([]byte("x"))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		}, open, open, "open"},
		{"stop written to", func(t *testing.T, s, peer *quiclife.Stream) {
			peer.CancelRead(7)
			settled()
			_, err := s.Write([]byte("x"))
			require.ErrorIs(t, err, &quiclife.StreamError{StreamID: s.StreamID(), ErrorCode: 7, Remote: true})
		}, aborted, open, "open"},
		{"stop not noticed", func(t *testing.T, s, peer *quiclife.Stream) {
			peer.CancelRead(7)
			settled()
		}, open, open, "open"},
		{"stop closed", func(t *testing.T, s, peer *quiclife.Stream) {
			peer.CancelRead(7)
			settled()
			for range 2 {
				require.ErrorIs(t, s.Close(), &quiclife.StreamError{StreamID: s.StreamID(), ErrorCode: 7, Remote: true})
			}
		}, aborted, open, "open"},
		{"both finished", func(t *testing.T, s, peer *quiclife.Stream) {
			peer.Close()
			io.ReadAll(s)
			s.Close()
		}, finished, finished, "finished"},
		{"exact read, Close, no EOF read", func(t *testing.T, s, peer *quiclife.Stream) {
			s.Close()
			write(t, peer, "abc")
			expect(t, s, "abc")
			require.Equal(t, open, s.Info().Receive)
			peer.Close()
			settled()
		}, finished, finished, "finished"},
		{"exact read, FIN, Close, no EOF read", func(t *testing.T, s, peer *quiclife.Stream) {
			write(t, peer, "abc")
			expect(t, s, "abc")
			peer.Close()
			settled()
			require.Equal(t, open, s.Info().Receive)
			s.Close()
		}, finished, finished, "finished"},
		{"exact read, read deadline passed, FIN", func(t *testing.T, s, peer *quiclife.Stream) {
			s.Close()
			write(t, peer, "abc")
			expect(t, s, "abc")
			s.SetReadDeadline(time.Now())
			settled()
			peer.Close()
			settled()
		}, finished, finished, "finished"},
		{"exact read while the FIN is known", func(t *testing.T, s, peer *quiclife.Stream) {
			s.Close()
			write(t, peer, "abc")
			settled()
			peer.Close()
			settled()
			require.Equal(t, open, s.Info().Receive)
			expect(t, s, "ab")
			require.Equal(t, open, s.Info().Receive)
			expect(t, s, "c")
		}, finished, finished, "finished"},
		{"nothing read, empty FIN", func(t *testing.T, s, peer *quiclife.Stream) {
			s.Close()
			peer.Close()
			settled()
		}, finished, finished, "finished"},
		{"exact read, then a reset", func(t *testing.T, s, peer *quiclife.Stream) {
			s.Close()
			write(t, peer, "abc")
			expect(t, s, "abc")
			peer.CancelWrite(7)
			settled()
		}, finished, aborted, "reset"},
		{"aborted and finished", func(t *testing.T, s, peer *quiclife.Stream) {
			s.CancelRead(7)
			s.Close()
		}, finished, aborted, "reset"},
		{"Release", func(t *testing.T, s, peer *quiclife.Stream) { s.Release() }, aborted, aborted, "reset"},
		{"Close, Release", func(t *testing.T, s, peer *quiclife.Stream) { s.Close(); s.Release() }, finished, aborted, "reset"},
		{"Reset", func(t *testing.T, s, peer *quiclife.Stream) { s.Reset(7) }, aborted, aborted, "reset"},
		{"Close, Reset", func(t *testing.T, s, peer *quiclife.Stream) { s.Close(); s.Reset(7) }, finished, aborted, "reset"},
		{"Detach", func(t *testing.T, s, peer *quiclife.Stream) { s.Detach() }, open, open, "detached"},
		{"Close, Detach", func(t *testing.T, s, peer *quiclife.Stream) { s.Close(); s.Detach(); s.Detach() }, finished, open, "detached"},
		{"Release, Detach", func(t *testing.T, s, peer *quiclife.Stream) { s.Release(); s.Detach() }, aborted, aborted, "reset"},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup{}.in(t, func(t *testing.T, e ends) {
				s, peer := e.stream(t)
				c.do(t, s, peer)
				info := s.Info()
				require.Equal(t, c.send, info.Send, "send half %v", info.Send)
				require.Equal(t, c.receive, info.Receive, "receive half %v", info.Receive)
				stats := e.client.Stats().Outgoing
				require.Equal(t, c.counted, map[quiclife.StreamStats]string{
					{Open: 1, Peak: 1, Opened: 1}:     "open",
					{Finished: 1, Peak: 1, Opened: 1}: "finished",
					{Reset: 1, Peak: 1, Opened: 1}:    "reset",
					{Detached: 1, Peak: 1, Opened: 1}: "detached",
				}[stats], "%+v", stats)
				if c.counted == "detached" {
					s.Detach().CancelRead(0)
					s.Detach().CancelWrite(0)
				}
				s.Release()
				peer.Release()
				settled()
				e.requireNothingLeft(t)
			})
		})
	}
}

// TestCloseAgain: closing again has no effect and returns the same.
func TestCloseAgain(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(s, peer *quiclife.Stream)
		err  error
	}{
		{"plainly", func(s, peer *quiclife.Stream) {}, nil},
		{"after CancelWrite", func(s, peer *quiclife.Stream) { s.CancelWrite(1) }, nil},
		{"after Release", func(s, peer *quiclife.Stream) { s.Release() }, nil},
		{"after Reset", func(s, peer *quiclife.Stream) { s.Reset(1) }, nil},
		{"after STOP_SENDING", func(s, peer *quiclife.Stream) { peer.CancelRead(1); settled() }, &quiclife.StreamError{ErrorCode: 1, Remote: true}},
		{"after a Write that noticed it", func(s, peer *quiclife.Stream) { peer.CancelRead(1); settled(); s.Write(nil) }, &quiclife.StreamError{ErrorCode: 1, Remote: true}},
		{"after a cut", func(s, peer *quiclife.Stream) {
			s.SetWriteDeadline(time.Now().Add(time.Millisecond))
			s.Write(large)
		}, quiclife.ErrWriteCut},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup{serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
				s, peer := e.stream(t)
				c.do(s, peer)
				for range 3 {
					require.ErrorIs(t, s.Close(), c.err)
				}
				s.Release()
				peer.Release()
				require.ErrorIs(t, s.Close(), c.err)
				settled()
				e.requireNothingLeft(t)
			})
		})
	}
}

// TestClosesBesideStopSendingAgree: a Close beside another returns what that
// does, also if it comes before that has found out.
func TestClosesBesideStopSendingAgree(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		s, err := e.client.OpenUniStream()
		require.NoError(t, err)
		write(t, s, "x")
		peer, err := e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		peer.CancelRead(4)
		settled()
		second := make(chan error, 1)
		quiclife.AfterClose(s, func() {
			go func() { second <- s.Close() }()
			time.Sleep(time.Second)
		})
		stop := &quiclife.StreamError{StreamID: s.StreamID(), ErrorCode: 4, Remote: true}
		require.ErrorIs(t, s.Close(), stop)
		require.ErrorIs(t, <-second, stop)
		settled()
		e.requireNothingLeft(t)
	})
}

// TestCloseTellsOfStopSendingAfterConnContextEnded: the stream's context ends
// with the one that a ConnContext returned, and then cannot tell why.
func TestCloseTellsOfStopSendingAfterConnContextEnded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		early, endEarly := context.WithCancel(context.Background())
		e := onTransports(t, &quiclife.Transport{ConnContext: func(context.Context, *quiclife.ClientInfo) (context.Context, error) {
			return early, nil
		}}, nil)
		peer, s := e.stream(t)
		endEarly()
		peer.CancelRead(4)
		settled()
		for range 2 {
			require.ErrorIs(t, s.Close(), &quiclife.StreamError{StreamID: s.StreamID(), ErrorCode: 4, Remote: true})
		}
		peer.Release()
		s.Release()
		settled()
		require.Zero(t, quictest.Held(e.rawClient))
		require.Zero(t, quictest.Held(e.rawServer))
	})
}

// TestFrames tells what the peer is sent: its own view, from its qlog.
func TestFrames(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(s *quiclife.Stream)
		want []string
	}{
		{"Release", func(s *quiclife.Stream) { s.Release(); s.Release() }, []string{"RESET_STREAM 11", "STOP_SENDING 11"}},
		{"Close", func(s *quiclife.Stream) { s.Close(); s.Close() }, []string{"FIN"}},
		{"Close, Release", func(s *quiclife.Stream) { s.Close(); settled(); s.Release() }, []string{"FIN", "STOP_SENDING 11"}},
		{"CancelWrite, Release", func(s *quiclife.Stream) { s.CancelWrite(1); settled(); s.Release() }, []string{"RESET_STREAM 1", "STOP_SENDING 11"}},
		{"CancelRead, Release", func(s *quiclife.Stream) { s.CancelRead(1); settled(); s.Release() }, []string{"STOP_SENDING 1", "RESET_STREAM 11"}},
		{"CancelRead, Close, Release", func(s *quiclife.Stream) { s.CancelRead(1); settled(); s.Close(); s.Release() }, []string{"STOP_SENDING 1", "FIN"}},
		{"Reset", func(s *quiclife.Stream) { s.Reset(5); s.Release(); s.Reset(6) }, []string{"RESET_STREAM 5", "STOP_SENDING 5"}},
		{"cut", func(s *quiclife.Stream) {
			s.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			s.Write(large)
			s.Close()
		}, []string{"RESET_STREAM 12"}},
		{"Close, Reset before delivery", func(s *quiclife.Stream) { s.Write([]byte("lost")); s.Close(); s.Reset(5) }, []string{"RESET_STREAM 5", "STOP_SENDING 5"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			recorder := &events.Recorder{}
			conf := matrixConf.Clone()
			conf.Tracer = func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace {
				return &events.Trace{Recorder: recorder}
			}
			guard := &quiclife.Guard{Codes: quiclife.Codes{Release: 11, Cut: 12}}
			setup{serverConf: conf, guard: guard}.in(t, func(t *testing.T, e ends) {
				s, peer := e.stream(t)
				settled()
				recorder.Clear()
				c.do(s)
				settled()
				got := endFrames(recorder)
				if c.name == "Close, Reset before delivery" { // the FIN may have been sent, but not yet delivered
					got = slices.DeleteFunc(got, func(f string) bool { return f == "FIN" })
				}
				require.Equal(t, c.want, got)
				s.Release()
				peer.Release()
				settled()
				e.requireNothingLeft(t)
			})
		})
	}
}

// endFrames lists the frames received that end a half, those of one packet in
// the order of the alphabet, as quic-go sorts them in its own way.
func endFrames(r *events.Recorder) (all []string) {
	for _, ev := range r.Events(qlog.PacketReceived{}) {
		var frames []string
		for _, f := range ev.(qlog.PacketReceived).Frames {
			switch f := f.Frame.(type) {
			case *qlog.StreamFrame:
				if f.Fin {
					frames = append(frames, "FIN")
				}
			case *qlog.ResetStreamFrame:
				frames = append(frames, fmt.Sprint("RESET_STREAM ", f.ErrorCode))
			case *qlog.StopSendingFrame:
				frames = append(frames, fmt.Sprint("STOP_SENDING ", f.ErrorCode))
			}
		}
		slices.Sort(frames)
		all = append(all, frames...)
	}
	return all
}

// TestReleaseUnblocks holds promise 4 for the calls that block on a stream.
func TestReleaseUnblocks(t *testing.T) {
	verbs := map[string]func(s *quiclife.Stream, c *quiclife.Conn){
		"Release":        func(s *quiclife.Stream, c *quiclife.Conn) { s.Release() },
		"Reset":          func(s *quiclife.Stream, c *quiclife.Conn) { s.Reset(1) },
		"Cancel both":    func(s *quiclife.Stream, c *quiclife.Conn) { s.CancelRead(1); s.CancelWrite(1) },
		"connection end": func(s *quiclife.Stream, c *quiclife.Conn) { c.CloseWithError(1, "") },
		"deadline":       func(s *quiclife.Stream, c *quiclife.Conn) { s.SetDeadline(time.Now()) },
	}
	for name, verb := range verbs {
		t.Run(name, func(t *testing.T) {
			setup{serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
				s, peer := e.stream(t)
				var wg sync.WaitGroup
				fails := func(call func() error) {
					wg.Go(func() { require.Error(t, call()) })
				}
				fails(func() error { _, err := s.Read(make([]byte, 1)); return err })
				fails(func() error { _, err := s.Peek(make([]byte, 1)); return err })
				for range 3 { // the second and third wait for their turn
					fails(func() error { _, err := s.Write(large); return err })
				}
				settled()
				verb(s, e.client)
				wg.Wait()
				s.Release()
				peer.Release()
			})
		})
	}
}

// TestCloseUnblocksWrite: Close resets a stream whose Write is blocked.
func TestCloseUnblocksWrite(t *testing.T) {
	guard := &quiclife.Guard{Codes: quiclife.Codes{Cut: 12}}
	setup{serverConf: matrixConf, guard: guard}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		done := make(chan error)
		go func() {
			_, err := s.Write(large)
			done <- err
		}()
		settled()
		require.Equal(t, quiclife.ErrWriteCut, s.Close())
		require.ErrorIs(t, <-done, &quiclife.StreamError{StreamID: s.StreamID(), ErrorCode: 12})
		_, err := io.ReadAll(peer)
		require.ErrorIs(t, err, &quiclife.StreamError{StreamID: s.StreamID(), ErrorCode: 12, Remote: true})
		s.Release()
		peer.Release()
		settled()
		e.requireNothingLeft(t)
	})
}

// TestAnyOrder calls everything from several goroutines at once.
func TestAnyOrder(t *testing.T) {
	setup{serverConf: matrixConf, clientConf: matrixConf}.in(t, func(t *testing.T, e ends) {
		for round := range 200 {
			client, server := e.stream(t)
			var wg sync.WaitGroup
			for i, s := range []*quiclife.Stream{client, server} {
				calls := []func(){
					func() { s.Write(large[:1+(round*7919)%30_000]) },
					func() { s.Write([]byte("small")) },
					func() { s.TryWriteAll([]byte("try")) },
					func() { s.Read(make([]byte, 100)) },
					func() { s.Peek(make([]byte, 10)) },
					func() { s.Close() },
					func() { s.Close() },
					func() { s.CancelRead(1) },
					func() { s.CancelWrite(1) },
					func() { s.Info() },
					func() { s.SetDeadline(time.Now().Add(time.Second)) },
					func() { s.SetReceiveFinalSizeCallback(func(int64) {}) },
					func() { s.Release() },
					func() { s.Release() },
					func() { s.Reset(3) },
				}
				// rotated, so that each round another call comes first
				n := (round + i) % len(calls)
				for _, call := range slices.Concat(calls[n:], calls[:n]) {
					wg.Go(call)
				}
			}
			wg.Wait()
			time.Sleep(50 * time.Millisecond)
			e.requireNothingLeft(t, "round %d", round)
		}
	})
}

// TestUniStreams goes through the ends of unidirectional streams.
func TestUniStreams(t *testing.T) {
	for _, c := range []struct {
		name             string
		send             func(*quiclife.SendStream)
		receive          func(*quiclife.ReceiveStream)
		sender, receiver quiclife.HalfState
	}{
		{"finished", func(s *quiclife.SendStream) { s.Close() }, func(r *quiclife.ReceiveStream) { io.ReadAll(r) }, quiclife.HalfFinished, quiclife.HalfFinished},
		{"exact read only", func(s *quiclife.SendStream) { s.Close() }, func(r *quiclife.ReceiveStream) {}, quiclife.HalfFinished, quiclife.HalfFinished},
		{"exact read, late FIN", func(s *quiclife.SendStream) { time.Sleep(time.Second); s.Close() }, func(r *quiclife.ReceiveStream) {}, quiclife.HalfFinished, quiclife.HalfFinished},
		{"peek only", func(s *quiclife.SendStream) { s.Close() }, func(r *quiclife.ReceiveStream) { r.Peek(make([]byte, 1)) }, quiclife.HalfFinished, quiclife.HalfFinished},
		{"reset", func(s *quiclife.SendStream) { s.CancelWrite(1) }, func(r *quiclife.ReceiveStream) { io.ReadAll(r) }, quiclife.HalfAborted, quiclife.HalfAborted},
		{"released", func(s *quiclife.SendStream) { s.Release() }, func(r *quiclife.ReceiveStream) { r.Release() }, quiclife.HalfAborted, quiclife.HalfAborted},
		{"Reset", func(s *quiclife.SendStream) { s.Reset(1) }, func(r *quiclife.ReceiveStream) { r.Reset(1) }, quiclife.HalfAborted, quiclife.HalfAborted},
		{"cancelled", func(s *quiclife.SendStream) { settled(); s.Close() }, func(r *quiclife.ReceiveStream) { r.CancelRead(1) }, quiclife.HalfAborted, quiclife.HalfAborted},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup{}.in(t, func(t *testing.T, e ends) {
				s, err := e.client.OpenUniStreamSync(t.Context())
				require.NoError(t, err)
				write(t, s, "abc")
				r, err := e.server.AcceptUniStream(t.Context())
				require.NoError(t, err)
				expect(t, r, "abc")
				var wg sync.WaitGroup
				wg.Go(func() { c.send(s) })
				wg.Go(func() { c.receive(r) })
				wg.Wait()
				settled()
				require.Equal(t, [2]quiclife.HalfState{c.sender, quiclife.HalfAbsent}, [2]quiclife.HalfState{s.Info().Send, s.Info().Receive})
				require.Equal(t, [2]quiclife.HalfState{quiclife.HalfAbsent, c.receiver}, [2]quiclife.HalfState{r.Info().Send, r.Info().Receive})
				e.requireNothingLeft(t)
			})
		})
	}
}

// TestCredit: with RequireStreamCreditRelease the slot comes back with
// Release and Reset, and not with Close and EOF.
func TestCredit(t *testing.T) {
	conf := &quic.Config{MaxIncomingStreams: 1, MaxIncomingUniStreams: 1, RequireStreamCreditRelease: true}
	setup{serverConf: conf}.in(t, func(t *testing.T, e ends) {
		for _, release := range []func(*quiclife.Stream){
			(*quiclife.Stream).Release,
			func(s *quiclife.Stream) { s.Reset(1) },
			(*quiclife.Stream).ReleaseStreamCredit,
		} {
			client, server := e.stream(t)
			client.Close()
			server.Close()
			io.ReadAll(client)
			io.ReadAll(server)
			settled()
			require.Zero(t, e.server.Stats().Open())
			_, err := e.client.OpenStream()
			require.ErrorIs(t, err, &quiclife.StreamLimitReachedError{})
			release(server)
			settled()
		}
		for _, release := range []func(*quiclife.ReceiveStream){
			(*quiclife.ReceiveStream).Release,
			func(s *quiclife.ReceiveStream) { s.Reset(1) },
			(*quiclife.ReceiveStream).ReleaseStreamCredit,
		} {
			s, err := e.client.OpenUniStream()
			require.NoError(t, err)
			s.Close()
			r, err := e.server.AcceptUniStream(t.Context())
			require.NoError(t, err)
			io.ReadAll(r)
			settled()
			_, err = e.client.OpenUniStream()
			require.ErrorIs(t, err, &quiclife.StreamLimitReachedError{})
			release(r)
			settled()
		}
		e.requireNothingLeft(t)
	})
}

// TestFinalSizeCallback: the user's callback works as in quic-go, once, whether
// it is set before or after the size is known, and before or after Close, which
// puts ours into the one slot that quic-go has.
func TestFinalSizeCallback(t *testing.T) {
	for _, steps := range [][]string{
		{"set", "fin"}, {"fin", "set"},
		{"set", "close", "fin"}, {"close", "set", "fin"}, {"close", "fin", "set"}, {"set", "fin", "close"},
		{"set", "set", "close", "fin"}, {"set", "clear", "close", "fin"}, {"set", "close", "clear", "fin"},
	} {
		setup{}.in(t, func(t *testing.T, e ends) {
			client, server := e.stream(t)
			var sizes []int64
			want, set := []int64(nil), false
			for _, step := range steps {
				switch step {
				case "set":
					client.SetReceiveFinalSizeCallback(func(n int64) { sizes = append(sizes, n) })
					set = true
				case "clear":
					client.SetReceiveFinalSizeCallback(nil)
					set = false
				case "close":
					client.Close()
				case "fin":
					write(t, server, "12345")
					server.Close()
				}
				settled()
			}
			if set {
				want = []int64{5}
			}
			require.Equal(t, want, sizes, "%v", steps)
			client.SetReceiveFinalSizeCallback(nil)
			client.Release()
			server.Release()
			settled()
			e.requireNothingLeft(t)
		})
	}
}

// TestAfterEnd: calls on a stream whose connection has ended return its error.
func TestAfterEnd(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		client, _ := e.stream(t)
		uni, err := e.client.OpenUniStream()
		require.NoError(t, err)
		require.NoError(t, e.client.CloseWithError(9, "bye"))
		require.NoError(t, e.client.CloseWithError(9, "bye"))
		require.Zero(t, e.client.Stats().Open())
		want := &quiclife.ApplicationError{ErrorCode: 9, ErrorMessage: "bye"}
		for name, call := range map[string]func() error{
			"Read":            func() error { _, err := client.Read(make([]byte, 1)); return err },
			"Peek":            func() error { _, err := client.Peek(make([]byte, 1)); return err },
			"Write":           func() error { _, err := client.Write([]byte("x")); return err },
			"TryWriteAll":     func() error { return client.TryWriteAll([]byte("x")) },
			"WriteWithLimit":  func() error { _, err := client.WriteWithLimit([]byte("x"), func(n int) int { return n }); return err },
			"uni Write":       func() error { _, err := uni.Write([]byte("x")); return err },
			"OpenStream":      func() error { _, err := e.client.OpenStream(); return err },
			"OpenStreamSync":  func() error { _, err := e.client.OpenStreamSync(t.Context()); return err },
			"OpenUniStream":   func() error { _, err := e.client.OpenUniStream(); return err },
			"AcceptStream":    func() error { _, err := e.client.AcceptStream(t.Context()); return err },
			"AcceptUniStream": func() error { _, err := e.client.AcceptUniStream(t.Context()); return err },
		} {
			require.ErrorIs(t, call(), want, name)
		}
		require.NoError(t, client.Close())
		require.NoError(t, client.Close())
		require.NoError(t, uni.Close())
		client.CancelRead(1)
		client.CancelWrite(1)
		client.Release()
		client.Reset(1)
		uni.Release()
		require.NoError(t, client.SetDeadline(time.Now()))
		client.ReleaseStreamCredit()
		client.SetReceiveFinalSizeCallback(func(int64) {})
		client.Detach()
		requireBalance(t, e.client.Stats())
		require.EqualValues(t, 2, e.client.Stats().Outgoing.Reset+e.client.Stats().OutgoingUni.Reset)
		require.NoError(t, e.client.CloseWithError(1, "again"))
	})
}

// TestDetach: the stream is the caller's from then on.
func TestDetach(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		raw := client.Detach()
		client.Release() // no effect
		client.Reset(3)  // no effect
		_, err := raw.Write([]byte("raw, "))
		require.NoError(t, err)
		write(t, client, "or not")
		require.NoError(t, client.Close())
		b, err := io.ReadAll(server)
		require.NoError(t, err)
		require.Equal(t, "raw, or not", string(b))
		write(t, server, "answer")
		expect(t, client, "answer")
		server.Close()
		settled()
		require.Equal(t, 1, quictest.Held(e.rawClient)) // its EOF is the caller's to read
		_, err = io.ReadAll(raw)
		require.NoError(t, err)
		settled()
		e.requireNothingLeft(t)

		uni, err := e.client.OpenUniStream()
		require.NoError(t, err)
		uni.Detach().Write([]byte("x"))
		r, err := e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		uni.Detach().Close()
		io.ReadAll(r.Detach())
		settled()
		e.requireNothingLeft(t)
		require.EqualValues(t, 1, e.client.Stats().Outgoing.Detached)
		require.EqualValues(t, 1, e.client.Stats().OutgoingUni.Detached)
		require.EqualValues(t, 1, e.server.Stats().IncomingUni.Detached)
	})
}

// TestHandlerLeavesDetachedStreamOpen: a handler, or the func of Do, that hands
// its stream on and returns nil has not ended it.
func TestHandlerLeavesDetachedStreamOpen(t *testing.T) {
	// handOn has another goroutine answer, a second after the handler's end.
	handOn := func(raw io.WriteCloser) {
		go func() {
			time.Sleep(time.Second)
			raw.Write([]byte("answer"))
			raw.Close()
		}()
	}
	answered := func(t *testing.T, r io.Reader) {
		t.Helper()
		b, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, "answer", string(b))
	}
	setup{}.in(t, func(t *testing.T, e ends) {
		go e.server.Serve(t.Context(), quiclife.Handler{Stream: func(_ context.Context, s *quiclife.Stream) error {
			handOn(s.Detach())
			return nil
		}})
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		write(t, s, "request")
		answered(t, s)
		s.Release()
	})
	setup{}.in(t, func(t *testing.T, e ends) {
		require.NoError(t, e.client.Do(t.Context(), func(s *quiclife.Stream) error {
			handOn(s.Detach())
			return nil
		}))
		s, err := e.server.AcceptStream(t.Context())
		require.NoError(t, err)
		answered(t, s)
		s.Release()

		require.NoError(t, e.client.DoUni(t.Context(), func(s *quiclife.SendStream) error {
			handOn(s.Detach())
			return nil
		}))
		r, err := e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		answered(t, r)
	})
}

// TestWriteBesideDetachSucceeds: the stream is given away in one step, so that
// a call beside it finds a stream that is ours, or one that is not.
func TestWriteBesideDetachSucceeds(t *testing.T) {
	conf := &quic.Config{MaxIncomingUniStreams: 1 << 40}
	e := setup{clientConf: conf, serverConf: conf}.onLoopback(t)
	const n = 3000
	for range n {
		s, err := e.client.OpenUniStream()
		require.NoError(t, err)
		var wg sync.WaitGroup
		var wrote error
		var detached atomic.Bool
		wg.Go(func() {
			for wrote == nil && !detached.Load() {
				_, wrote = s.Write([]byte("x"))
			}
		})
		wg.Go(func() {
			time.Sleep(time.Microsecond)
			s.Detach()
			detached.Store(true)
		})
		wg.Wait()
		require.NoError(t, wrote)
		s.Detach().CancelWrite(0)
	}
	require.EqualValues(t, n, e.client.Stats().OutgoingUni.Detached)
	requireBalance(t, e.client.Stats())
	e.client.CloseWithError(0, "")
}

// TestDetachOfEndedStreamIsFinal: Detach gives away a stream whose halves have
// both ended too, so that Release keeps its hands off its credit, and Reset off
// what is not yet delivered.
func TestDetachOfEndedStreamIsFinal(t *testing.T) {
	conf := &quic.Config{MaxIncomingStreams: 1, RequireStreamCreditRelease: true}
	setup{serverConf: conf}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		client.Close()
		server.Close()
		io.ReadAll(client)
		io.ReadAll(server)
		settled()
		raw := server.Detach()
		server.Release()
		server.Reset(1)
		settled()
		_, err := e.client.OpenStream()
		require.ErrorIs(t, err, &quiclife.StreamLimitReachedError{}, "Release returned the credit of a detached stream")
		raw.ReleaseStreamCredit()
		settled()

		client, server = e.stream(t)
		server.Close()
		io.ReadAll(client)
		write(t, client, "not yet delivered")
		client.Close()
		client.Detach()
		client.Reset(1)
		expect(t, server, "not yet delivered")
		_, err = server.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		require.EqualValues(t, 2, e.client.Stats().Outgoing.Finished)
		requireBalance(t, e.client.Stats())
		server.Release()
	})
}

// TestReadAtUnseenEOFIsQuicGos: that the EOF of a stream whose bytes have all been
// read is consumed for the program does not show in what Read, Peek and
// CancelRead do.
func TestReadAtUnseenEOFIsQuicGos(t *testing.T) {
	type stream interface {
		io.ReadWriteCloser
		Peek([]byte) (int, error)
		CancelRead(quic.StreamErrorCode)
		CancelWrite(quic.StreamErrorCode)
		SetReadDeadline(time.Time) error
	}
	byte1 := make([]byte, 1)
	for name, read := range map[string]func(s stream) []error{
		"a deadline that has passed": func(s stream) (errs []error) {
			s.SetReadDeadline(time.Now().Add(-time.Second))
			_, err := s.Read(byte1)
			_, err2 := s.Peek(byte1)
			s.SetReadDeadline(time.Now().Add(time.Second))
			_, err3 := s.Read(byte1)
			s.SetReadDeadline(time.Now().Add(-time.Second))
			_, err4 := s.Read(byte1)
			return []error{err, err2, err3, err4}
		},
		"nothing to read into": func(s stream) (errs []error) {
			_, err := s.Read(nil)
			_, err2 := s.Peek(nil)
			_, err3 := s.Read(byte1)
			_, err4 := s.Read(nil)
			return []error{err, err2, err3, err4}
		},
		"CancelRead": func(s stream) (errs []error) {
			s.CancelRead(3)
			s.CancelRead(4)
			_, err := s.Read(byte1)
			_, err2 := s.Peek(byte1)
			_, err3 := s.Read(nil)
			return []error{err, err2, err3}
		},
		"CancelRead after the EOF": func(s stream) (errs []error) {
			_, err := s.Read(byte1)
			s.CancelRead(3)
			_, err2 := s.Read(byte1)
			return []error{err, err2}
		},
	} {
		t.Run(name, func(t *testing.T) {
			setup{}.in(t, func(t *testing.T, e ends) {
				var plain []error
				for _, wrapped := range []bool{false, true} {
					var s stream
					var err error
					if wrapped {
						s, err = e.client.OpenStream()
					} else {
						s, err = e.rawClient.OpenStream()
					}
					require.NoError(t, err)
					write(t, s, "x")
					require.NoError(t, s.Close())
					peer, err := e.rawServer.AcceptStream(t.Context())
					require.NoError(t, err)
					peer.Write([]byte("y"))
					settled()
					expect(t, s, "y")
					peer.Close()
					settled() // the FIN comes alone
					errs := read(s)
					if !wrapped {
						plain = errs
						continue
					}
					for i := range plain {
						if errors.Is(plain[i], os.ErrDeadlineExceeded) {
							require.ErrorIs(t, errs[i], os.ErrDeadlineExceeded, "call %d", i)
						} else {
							require.Equal(t, fmt.Sprintf("%T", plain[i]), fmt.Sprintf("%T", errs[i]), "call %d", i)
							require.Equal(t, plain[i] == nil, errs[i] == nil, "call %d", i)
							require.Equal(t, plain[i] == io.EOF, errs[i] == io.EOF, "call %d: %v", i, errs[i])
						}
					}
					require.EqualValues(t, 1, e.client.Stats().Outgoing.Finished)
				}
			})
		})
	}
}

// TestContext: a stream's context ends as quic-go's does.
func TestContext(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		client, server := e.stream(t)
		require.NoError(t, client.Context().Err())
		client.CancelRead(1)
		require.NoError(t, client.Context().Err())
		client.Close()
		require.ErrorIs(t, context.Cause(client.Context()), quiclife.ErrStreamClosed)
		settled()
		require.ErrorIs(t, context.Cause(server.Context()), &quiclife.StreamError{StreamID: server.StreamID(), ErrorCode: 1, Remote: true})
		client.Release()
		server.Release()
		uni, err := e.client.OpenUniStream()
		require.NoError(t, err)
		uni.Release()
		require.ErrorIs(t, context.Cause(uni.Context()), &quiclife.StreamError{StreamID: uni.StreamID()})
		uni.SetPriority(1, true)
		require.NoError(t, uni.SetWriteDeadline(time.Time{}))
	})
}

func TestHalfStateString(t *testing.T) {
	var names []string
	for h := range 4 {
		names = append(names, fmt.Sprint(quiclife.HalfState(h)))
	}
	require.Equal(t, "absent open finished aborted", strings.Join(names, " "))
	require.Equal(t, "invalid", quiclife.HalfState(99).String())
	require.False(t, errors.Is(quiclife.ErrWriteCut, quiclife.ErrStreamClosed))
}

// TestReceiveHalfEndsOnce: of a Read that returns the io.EOF and a CancelRead
// at the same time, one ends the half, and is the one that is counted.
func TestReceiveHalfEndsOnce(t *testing.T) {
	e := setup{}.onLoopback(t)
	message, buf := make([]byte, 100_000), make([]byte, 200_000) // a Read takes its time
	for i := range 300 {
		s, err := e.client.OpenUniStreamSync(t.Context())
		require.NoError(t, err)
		go func() { s.Write(message); s.Close() }()
		r, err := e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		arrived := make(chan struct{})
		r.SetReceiveFinalSizeCallback(func(int64) { close(arrived) })
		<-arrived
		before := e.server.Stats().IncomingUni
		var wg sync.WaitGroup
		start := make(chan struct{})
		wg.Go(func() { <-start; r.Read(buf) })
		wg.Go(func() {
			<-start
			for range i % 30 {
				runtime.Gosched()
			}
			r.CancelRead(1)
		})
		close(start)
		wg.Wait()
		after := e.server.Stats().IncomingUni
		switch r.Info().Receive {
		case quiclife.HalfFinished:
			require.Equal(t, before.Finished+1, after.Finished)
		case quiclife.HalfAborted:
			require.Equal(t, before.Reset+1, after.Reset)
		default:
			require.Fail(t, "not ended")
		}
	}
	e.client.CloseWithError(0, "")
}

// TestSendHalfEndsOnce: a CancelWrite in the middle of a Close ends nothing a
// second time.
func TestSendHalfEndsOnce(t *testing.T) {
	setup{}.in(t, func(t *testing.T, e ends) {
		s, err := e.client.OpenUniStream()
		require.NoError(t, err)
		quiclife.AfterClose(s, func() { s.CancelWrite(1) })
		require.NoError(t, s.Close())
		require.Equal(t, quiclife.HalfFinished, s.Info().Send)
		require.Equal(t, quiclife.StreamStats{Opened: 1, Peak: 1, Finished: 1}, e.client.Stats().OutgoingUni)
	})
}
