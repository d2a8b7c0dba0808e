package quiclife_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
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

// What one end may do with each half. If the other end leaves a Read or Write
// blocked, its deadline ends it.

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

// TestReleaseFreesStreamWhateverBothEndsDid tests promise 1: whatever both ends
// do, in both orders, Release on each end frees the stream and changes no half
// that had ended.
func TestReleaseFreesStreamWhateverBothEndsDid(t *testing.T) {
	t.Parallel()
	for _, receiveFirst := range []bool{false, true} {
		for _, concurrent := range []bool{false, true} {
			t.Run(fmt.Sprintf("receive first %v, concurrent %v", receiveFirst, concurrent), func(t *testing.T) {
				t.Parallel()
				setup{clientConf: matrixConf, serverConf: matrixConf}.in(t, func(t *testing.T, e ends) {
					testMatrixOfEnds(t, e, receiveFirst, concurrent)
				})
			})
		}
	}
}

func testMatrixOfEnds(t *testing.T, e ends, receiveFirst, concurrent bool) {
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
						requireHalves(t, s, afterRelease(before.Send), afterRelease(before.Receive), name)
					}
					time.Sleep(50 * time.Millisecond)
					e.requireNothingLeft(t, name)
				}
			}
		}
	}
}

// afterRelease returns the state of a half after Release.
func afterRelease(before quiclife.HalfState) quiclife.HalfState {
	if before == quiclife.HalfOpen {
		return quiclife.HalfAborted
	}
	return before
}

// TestStreamIsFreedThoughPeerDoesNothing tests promise 1 if the peer does not
// even accept the stream: once both of our halves have ended, nothing is kept.
func TestStreamIsFreedThoughPeerDoesNothing(t *testing.T) {
	t.Parallel()
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
				require.Zero(t, e.client.Stats().Open(), "%s, %s", send.name, receive.name)
			}
		}
	})
}

// TestEachEndSettlesItsHalf goes through the ways in which a half can end, and
// checks how the stream is counted.
func TestEachEndSettlesItsHalf(t *testing.T) {
	t.Parallel()
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
			requireHalves(t, s, finished, open)
			peer.Close()
			settled()
		}, finished, finished, "finished"},
		{"exact read, FIN, Close, no EOF read", func(t *testing.T, s, peer *quiclife.Stream) {
			write(t, peer, "abc")
			expect(t, s, "abc")
			peer.Close()
			settled()
			requireHalves(t, s, open, open)
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
			requireHalves(t, s, finished, open)
			expect(t, s, "ab")
			requireHalves(t, s, finished, open)
			expect(t, s, "c")
		}, finished, finished, "finished"},
		{"frame begun to be read before its FIN is known", func(t *testing.T, s, peer *quiclife.Stream) {
			s.Close()
			write(t, peer, "abc")
			settled()
			expect(t, s, "ab")
			peer.Close()
			settled()
			requireHalves(t, s, finished, open)
			expect(t, s, "c")
		}, finished, finished, "finished"},
		{"EOF read, CancelRead, Close", func(t *testing.T, s, peer *quiclife.Stream) {
			peer.Close()
			io.ReadAll(s)
			s.CancelRead(7)
			requireHalves(t, s, open, finished)
			s.Close()
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
		{"Release", func(t *testing.T, s, peer *quiclife.Stream) { s.Release() }, aborted, aborted, "released"},
		{"Close, Release", func(t *testing.T, s, peer *quiclife.Stream) { s.Close(); s.Release() }, finished, aborted, "released"},
		{"Reset", func(t *testing.T, s, peer *quiclife.Stream) { s.Reset(7) }, aborted, aborted, "reset"},
		{"Close, Reset", func(t *testing.T, s, peer *quiclife.Stream) { s.Close(); s.Reset(7) }, finished, aborted, "reset"},
		{"Detach", func(t *testing.T, s, peer *quiclife.Stream) { s.Detach() }, open, open, "detached"},
		{"Close, Detach", func(t *testing.T, s, peer *quiclife.Stream) { s.Close(); s.Detach(); s.Detach() }, finished, open, "detached"},
		{"Release, Detach", func(t *testing.T, s, peer *quiclife.Stream) { s.Release(); s.Detach() }, aborted, aborted, "released"},
	} {
		t.Run(c.name, func(t *testing.T) {
			setup{}.in(t, func(t *testing.T, e ends) {
				s, peer := e.stream(t)
				c.do(t, s, peer)
				requireHalves(t, s, c.send, c.receive)
				stats := e.client.Stats().Outgoing
				require.Equal(t, c.counted, map[quiclife.StreamStats]string{
					{Open: 1, Peak: 1, Opened: 1}:              "open",
					{Finished: 1, Peak: 1, Opened: 1}:          "finished",
					{Finished: 1, EOFs: 1, Peak: 1, Opened: 1}: "finished",
					{Released: 1, Peak: 1, Opened: 1}:          "released",
					{Reset: 1, Peak: 1, Opened: 1}:             "reset",
					{Detached: 1, Peak: 1, Opened: 1}:          "detached",
				}[stats], "%+v", stats)
				if c.counted == "detached" {
					s.Detach().CancelRead(0)
					s.Detach().CancelWrite(0)
				}
				e.requireNothingLeftOf(t, s, peer)
			})
		})
	}
}

// TestCloseAgainReturnsTheSame: and has no effect.
func TestCloseAgainReturnsTheSame(t *testing.T) {
	t.Parallel()
	cut := func(s *quiclife.Stream) {
		s.SetWriteDeadline(time.Now().Add(time.Millisecond))
		s.Write(large)
	}
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
		{"after a cut", func(s, peer *quiclife.Stream) { cut(s) }, quiclife.ErrWriteCut},
		{"after a cut and CancelWrite", func(s, peer *quiclife.Stream) { cut(s); s.CancelWrite(1) }, nil},
		{"after a cut and Release", func(s, peer *quiclife.Stream) { cut(s); s.Release() }, nil},
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

// TestClosesBesideStopSendingAgree: concurrent Closes return the same error,
// even if one comes before the other has found out.
func TestClosesBesideStopSendingAgree(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		s, peer := e.uniStream(t)
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

// TestCloseTellsOfStopSendingAfterConnContextEnded: if the context that a
// ConnContext returned is done, the stream's context has its cause and does not
// show the STOP_SENDING.
func TestCloseTellsOfStopSendingAfterConnContextEnded(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		early, endEarly := context.WithCancel(context.Background())
		e := onTransports(t, &quiclife.Transport{ConnContext: func(context.Context, *quiclife.ClientInfo) (context.Context, error) {
			return early, nil
		}})
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

// TestEachEndSendsJustItsFrames: as the peer sees them, in its qlog.
func TestEachEndSendsJustItsFrames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		do   func(s *quiclife.Stream)
		want []string // a FIN that was not delivered yet is not seen if a reset follows
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
		{"Close, CancelWrite before delivery", func(s *quiclife.Stream) { s.Write([]byte("lost")); s.Close(); s.CancelWrite(5) }, []string{"RESET_STREAM 5"}},
		{"Detach, CancelRead", func(s *quiclife.Stream) { s.Detach(); s.CancelRead(5) }, []string{"STOP_SENDING 5"}},
		{"Detach, CancelWrite", func(s *quiclife.Stream) { s.Detach(); s.CancelWrite(5) }, []string{"RESET_STREAM 5"}},
		{"Close, Detach, Reset", func(s *quiclife.Stream) { s.Write([]byte("x")); s.Close(); s.Detach(); s.Reset(5) }, []string{"FIN"}},
		{"CancelRead, Detach, Reset", func(s *quiclife.Stream) { s.CancelRead(4); s.Detach(); s.Reset(5) }, []string{"STOP_SENDING 4"}},
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
				if strings.HasSuffix(c.name, "before delivery") {
					got = slices.DeleteFunc(got, func(f string) bool { return f == "FIN" })
				}
				require.Equal(t, c.want, got)
				s.Detach().CancelRead(0) // Release leaves a detached stream alone
				s.Detach().CancelWrite(0)
				peer.Release()
				settled()
				e.requireNothingLeft(t)
			})
		})
	}
}

// endFrames lists the received frames that end a half. Those of one packet are
// in alphabetical order, because quic-go orders them in its own way.
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

// TestEveryEndUnblocksReadAndWrite tests promise 4 for the calls that block on
// a stream.
func TestEveryEndUnblocksReadAndWrite(t *testing.T) {
	t.Parallel()
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
				fails := func(what string, call func([]byte) (int, error), p []byte) {
					wg.Go(func() {
						if n, err := call(p); err == nil {
							t.Errorf("a blocked %s returned %d and no error", what, n)
						}
					})
				}
				fails("Read", s.Read, make([]byte, 1))
				fails("Peek", s.Peek, make([]byte, 1))
				for range 3 { // the second and third wait for their turn
					fails("Write", s.Write, large)
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

// TestCloseDuringBlockedWriteResetsStream: the Write fails.
func TestCloseDuringBlockedWriteResetsStream(t *testing.T) {
	t.Parallel()
	guard := &quiclife.Guard{Codes: quiclife.Codes{Cut: 12}}
	setup{serverConf: matrixConf, guard: guard}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		done := make(chan error)
		go func() {
			_, err := s.Write(large)
			done <- err
		}()
		settled()
		err := s.Close()
		require.Equal(t, quiclife.ErrWriteCut, err)
		require.NotErrorIs(t, err, quiclife.ErrStreamClosed)
		require.ErrorIs(t, <-done, &quiclife.StreamError{StreamID: s.StreamID(), ErrorCode: 12})
		_, err = io.ReadAll(peer)
		require.ErrorIs(t, err, &quiclife.StreamError{StreamID: s.StreamID(), ErrorCode: 12, Remote: true})
		e.requireNothingLeftOf(t, s, peer)
	})
}

// TestCallsBesideEachOtherLeaveNothing calls everything at once.
func TestCallsBesideEachOtherLeaveNothing(t *testing.T) {
	t.Parallel()
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
				// rotated, so that another call comes first in each round
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

// TestCreditComesBackWithReleaseAndReset: with RequireStreamCreditRelease, it
// does not come back with Close and EOF.
func TestCreditComesBackWithReleaseAndReset(t *testing.T) {
	t.Parallel()
	conf := &quic.Config{MaxIncomingStreams: 1, MaxIncomingUniStreams: 1, RequireStreamCreditRelease: true}
	setup{serverConf: conf}.in(t, func(t *testing.T, e ends) {
		for _, release := range []func(*quiclife.Stream){
			(*quiclife.Stream).Release,
			func(s *quiclife.Stream) { s.Reset(1) },
			(*quiclife.Stream).ReleaseStreamCredit,
		} {
			client, server := e.stream(t)
			keep(t, server) // if it were dropped, its credit would be returned too
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
			keep(t, r)
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

// TestCallsAfterConnectionEndReturnItsError: calls that end something return as
// always.
func TestCallsAfterConnectionEndReturnItsError(t *testing.T) {
	t.Parallel()
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

// TestReceiveHalfEndsOnce: a Read that returns io.EOF during a CancelRead does
// not end the half a second time.
func TestReceiveHalfEndsOnce(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		s.Close()
		write(t, peer, "answer")
		peer.Close()
		settled()
		quiclife.BeforeCancelRead(s, func() {
			b, err := io.ReadAll(s)
			require.NoError(t, err)
			require.Equal(t, "answer", string(b))
		})
		s.CancelRead(1)
		requireHalves(t, s, quiclife.HalfFinished, quiclife.HalfAborted)
		require.Equal(t, quiclife.StreamStats{Opened: 1, Peak: 1, Reset: 1}, e.client.Stats().Outgoing)
		peer.Release()
	})
}

// TestSendHalfEndsOnce: during a Close nothing else ends the half, and during
// an abort Close has no effect. The peer sees whichever came first.
func TestSendHalfEndsOnce(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*quiclife.SendStream){
		"CancelWrite": func(s *quiclife.SendStream) { s.CancelWrite(1) },
		"Release":     (*quiclife.SendStream).Release,
		"Reset":       func(s *quiclife.SendStream) { s.Reset(1) },
	} {
		setup{}.in(t, func(t *testing.T, e ends) {
			s, peer := e.uniStream(t)
			quiclife.AfterClose(s, func() { end(s) })
			require.NoError(t, s.Close(), name)
			requireHalves(t, s, quiclife.HalfFinished, quiclife.HalfAbsent, name)
			require.Equal(t, quiclife.StreamStats{Opened: 1, Peak: 1, Finished: 1}, e.client.Stats().OutgoingUni, name)
			if name == "Release" { // the others abort data that was not delivered yet
				_, err := peer.Read(make([]byte, 1))
				require.Equal(t, io.EOF, err)
			}
			peer.Release()
		})
	}
	for name, end := range map[string]func(*quiclife.Stream){
		"CancelWrite": func(s *quiclife.Stream) { s.CancelWrite(0) },
		"Release":     (*quiclife.Stream).Release,
		"Reset":       func(s *quiclife.Stream) { s.Reset(0) },
	} {
		setup{}.in(t, func(t *testing.T, e ends) {
			s, peer := e.stream(t)
			quiclife.BeforeCancelWrite(s, func() { require.NoError(t, s.Close(), name) })
			end(s)
			receive := quiclife.HalfAborted
			if name == "CancelWrite" {
				receive = quiclife.HalfOpen
			}
			requireHalves(t, s, quiclife.HalfAborted, receive, name)
			_, err := peer.Read(make([]byte, 1))
			require.ErrorIs(t, err, &quiclife.StreamError{StreamID: peer.StreamID(), Remote: true}, name)
			s.Release()
			stats := e.client.Stats().Outgoing
			require.EqualValues(t, 1, stats.Reset+stats.Released, "%s: %+v", name, stats)
			peer.Release()
		})
	}
}

// TestHalvesThatEndAtTheSameMomentCountOnce: in both orders.
func TestHalvesThatEndAtTheSameMomentCountOnce(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		quiclife.BeforeCancelRead(s, func() { s.Close() })
		s.CancelRead(1)
		requireHalves(t, s, quiclife.HalfFinished, quiclife.HalfAborted)
		require.Equal(t, quiclife.StreamStats{Opened: 1, Peak: 1, Reset: 1}, e.client.Stats().Outgoing)
		peer.Release()

		s, peer = e.stream(t)
		quiclife.BeforeCancelWrite(s, func() { s.CancelRead(1) })
		s.CancelWrite(1)
		requireHalves(t, s, quiclife.HalfAborted, quiclife.HalfAborted)
		require.Equal(t, quiclife.StreamStats{Opened: 2, Peak: 1, Reset: 2}, e.client.Stats().Outgoing)
		peer.Release()
		settled()
		e.requireNothingLeft(t)
	})
}

// TestCloseAfterWriteSawConnectionEndReturnsNil: even if that Write was the
// first to see the end, which happens in a few rounds.
func TestCloseAfterWriteSawConnectionEndReturnsNil(t *testing.T) {
	t.Parallel()
	for range 20 {
		setup{}.in(t, func(t *testing.T, e ends) {
			s, _ := e.stream(t)
			e.rawClient.CloseWithError(3, "")
			_, err := s.Write([]byte("x"))
			require.Error(t, err)
			require.NoError(t, s.Close())
		})
	}
}

// TestConnectionEndIsSeenAtOnce: on the stream, in Stats and in Streams,
// whoever ended the connection.
func TestConnectionEndIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		s, peer := e.stream(t)
		e.client.CloseWithError(0, "")
		requireHalves(t, s, quiclife.HalfAborted, quiclife.HalfAborted, "with CloseWithError")
		settled()
		requireHalves(t, peer, quiclife.HalfAborted, quiclife.HalfAborted, "at the peer")
	})
	for range 20 { // quic-go's own goroutine tells us of the end at the same time
		setup{}.in(t, func(t *testing.T, e ends) {
			e.stream(t)
			e.rawClient.CloseWithError(0, "")
			require.Zero(t, e.client.Stats().Open(), "open, by Stats")
		})
		setup{}.in(t, func(t *testing.T, e ends) {
			e.stream(t)
			e.rawClient.CloseWithError(0, "")
			require.Empty(t, slices.Collect(e.client.Streams()), "open, by Streams")
		})
	}
}
