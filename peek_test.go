package quiclife_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/peek"
)

// requireLeaks requires that package leaktest gets these streams of clients,
// each with its half states and why it leaked.
func requireLeaks(t *testing.T, g *quiclife.Guard, want ...string) {
	t.Helper()
	why := map[peek.Why]string{peek.Dropped: "dropped", peek.Unread: "unread", peek.Idle: "idle", peek.Uncredited: "uncredited", peek.CutOff: "cut off"}
	var got []string
	for _, l := range peek.Leaks(g) {
		info := l.Stream.(quiclife.StreamInfo)
		got = append(got, why[l.Why]+": "+info.Send.String()+", "+info.Receive.String())
	}
	require.Equal(t, want, got)
}

// TestEndOfConnectionHidesNoLeak: package leaktest gets the streams that the
// program has not ended, neither before nor after the end of their connection.
func TestEndOfConnectionHidesNoLeak(t *testing.T) {
	for _, c := range []struct {
		name        string
		end, after  func(s *quiclife.Stream)
		left        string // what leaktest gets; "" is nothing
		peerAnswers bool
		peerCloses  bool
	}{
		{name: "nothing is ended", left: "cut off: open, open"},
		{name: "Close", end: func(s *quiclife.Stream) { s.Close() }, left: "cut off: finished, open"},
		{name: "CancelRead", end: func(s *quiclife.Stream) { s.CancelRead(1) }, left: "cut off: open, aborted"},
		{name: "Release", end: (*quiclife.Stream).Release},
		{name: "Detach", end: func(s *quiclife.Stream) { s.Detach() }},
		{name: "Close after", after: func(s *quiclife.Stream) { s.Close() }, left: "cut off: aborted, open"},
		{name: "CancelRead after", after: func(s *quiclife.Stream) { s.CancelRead(1) }, left: "cut off: open, aborted"},
		{name: "Release after", after: (*quiclife.Stream).Release},
		{name: "Reset after", after: func(s *quiclife.Stream) { s.Reset(1) }},
		{name: "Detach after", after: func(s *quiclife.Stream) { s.Detach() }},
		{name: "Read fails after", after: func(s *quiclife.Stream) { s.Read(make([]byte, 1)) }},
		{name: "Write fails after", after: func(s *quiclife.Stream) { s.Write([]byte("x")) }},
		{name: "Read fails meanwhile", end: func(s *quiclife.Stream) { go s.Read(make([]byte, 1)) }},
		{name: "context ends after", end: func(s *quiclife.Stream) {
			ctx, cancel := context.WithCancel(context.Background())
			s.BindContext(ctx)
			time.AfterFunc(time.Hour, cancel)
		}, after: func(*quiclife.Stream) { time.Sleep(time.Hour) }},
		{name: "unread", peerAnswers: true, end: func(s *quiclife.Stream) { s.Close() }, left: "cut off: finished, open"},
		{name: "read in part", peerAnswers: true, peerCloses: true, end: func(s *quiclife.Stream) {
			s.Close()
			io.ReadFull(s, make([]byte, 3))
		}, left: "cut off: finished, open"},
		{name: "all but the FIN is read", peerAnswers: true, end: func(s *quiclife.Stream) {
			io.ReadFull(s, make([]byte, 6))
			s.Close()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, by := range []string{"this side", "the peer", "Shutdown"} {
				g := &quiclife.Guard{}
				setup{guard: g}.in(t, func(t *testing.T, e ends) {
					requireLeaks(t, g)
					s, peer := e.stream(t)
					defer keep(t, s)
					if c.peerAnswers {
						write(t, peer, "answer")
						settled()
					}
					if c.end != nil {
						c.end(s)
					}
					settled()
					if c.peerCloses {
						peer.Close()
						settled()
					}
					switch by {
					case "this side":
						e.client.CloseWithError(0, "")
					case "the peer":
						e.server.CloseWithError(0, "")
					case "Shutdown":
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						defer cancel()
						e.client.Shutdown(ctx, 0, "")
					}
					settled()
					if c.after != nil {
						c.after(s)
					}
					peer.Release()
					if c.left == "" {
						requireLeaks(t, g)
					} else {
						requireLeaks(t, g, c.left)
					}
				})
			}
		})
	}
}

// TestLeaksOfConnectionThatHasJustEnded: before our code for its end has run.
func TestLeaksOfConnectionThatHasJustEnded(t *testing.T) {
	for range 20 {
		g := &quiclife.Guard{}
		setup{guard: g}.in(t, func(t *testing.T, e ends) {
			requireLeaks(t, g)
			s, peer := e.stream(t)
			peer.Release()
			s.CancelRead(1)
			e.rawClient.CloseWithError(0, "")
			requireLeaks(t, g, "cut off: open, aborted")
			s.Release()
		})
	}
}

// TestStreamsNobodyAcceptsCanBeTaken: unless somebody may accept them.
func TestStreamsNobodyAcceptsCanBeTaken(t *testing.T) {
	conf := &quic.Config{MaxIncomingStreams: 2, MaxIncomingUniStreams: 2}
	bubble(t, func(t *testing.T) {
		site := newSite(t, &quiclife.Transport{Guard: &quiclife.Guard{}}, conf)
		client, err := site.dial(t.Context())
		require.NoError(t, err)
		server, err := site.listener.Accept(t.Context())
		require.NoError(t, err)
		fill := func() {
			for range 2 {
				s, err := client.OpenStream()
				require.NoError(t, err)
				s.Reset(1)
				u, err := client.OpenUniStream()
				require.NoError(t, err)
				u.Reset(1)
			}
			settled()
		}
		fill()
		require.Len(t, peek.TakeUnaccepted(server), 4)
		settled()
		fill() // the slots are back
		server.AcceptStream(t.Context())
		require.Len(t, peek.TakeUnaccepted(server), 2, "unidirectional ones, which nobody has accepted")
		settled()
		s, err := client.OpenUniStream()
		require.NoError(t, err)
		s.Reset(1)
		settled()
		server.Unwrap()
		require.Empty(t, peek.TakeUnaccepted(server))
		client.CloseWithError(0, "")
	})
}

// TestStreamsThatAreRefusedAreNotTaken: a NetListener refuses unidirectional
// streams at a limited pace, so some of them wait.
func TestStreamsThatAreRefusedAreNotTaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		guard := &quiclife.Guard{}
		site := newSite(t, &quiclife.Transport{Guard: guard}, &quic.Config{MaxIncomingUniStreams: 2})
		ln := site.listener.NetListener()
		t.Cleanup(func() { ln.Close() })
		go ln.Accept() // connections
		client, err := site.dial(t.Context())
		require.NoError(t, err)
		t.Cleanup(func() { client.CloseWithError(0, "") })
		for range 20 {
			s, err := client.OpenUniStreamSync(t.Context())
			require.NoError(t, err)
			s.Reset(1)
			time.Sleep(6 * time.Millisecond) // it arrives
			for _, c := range conns(guard) {
				require.Empty(t, peek.TakeUnaccepted(c))
			}
		}
	})
}

// TestContextThatLooksAtItsStreamHoldsUpNoCheck: no lock is held during calls
// on a context of the program.
func TestContextThatLooksAtItsStreamHoldsUpNoCheck(t *testing.T) {
	g := &quiclife.Guard{}
	setup{guard: g}.in(t, func(t *testing.T, e ends) {
		requireLeaks(t, g)
		s, err := e.client.OpenStream()
		require.NoError(t, err)
		ctx := newCountingContext()
		ctx.err = func() error { s.Info(); return nil }
		s.BindContext(ctx)
		e.client.CloseWithError(0, "")
		requireLeaks(t, g, "cut off: open, open")
		keep(t, s)
	})
}
