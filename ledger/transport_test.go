package ledger_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
	"github.com/quiclife/quiclife/ledger"
)

// atRest waits, in fake time, until nothing is under way.
func atRest() {
	time.Sleep(time.Minute)
	synctest.Wait()
}

// traced returns conf with a ledger.
func traced(conf quic.Config) *quic.Config {
	conf.Tracer = ledger.New(ledger.Options{}).Tracer(nil)
	return &conf
}

// resuming runs f with a client that has a session ticket. It must be called
// inside a synctest bubble.
func resuming(t *testing.T, conf, serverConf *quic.Config, retry bool, f func(dial func() *quic.Conn, ln *quic.EarlyListener)) {
	serverTLS, clientTLS := quictest.TLS()
	clientTLS = clientTLS.Clone()
	clientTLS.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	cs, ss, addr := quictest.Net{}.Endpoints(t)
	client, server := &quic.Transport{Conn: cs}, &quic.Transport{Conn: ss}
	if retry {
		server.VerifySourceAddress = func(net.Addr) bool { return true }
	}
	defer server.Close()
	defer client.Close()

	first, err := server.ListenEarly(serverTLS, &quic.Config{Allow0RTT: true, MaxIdleTimeout: time.Hour})
	require.NoError(t, err)
	c, err := client.Dial(t.Context(), addr, clientTLS, nil)
	require.NoError(t, err)
	atRest() // so that the ticket has come
	c.CloseWithError(0, "")
	first.Close()
	atRest()

	second, err := server.ListenEarly(serverTLS, traced(*serverConf))
	require.NoError(t, err)
	defer second.Close()
	f(func() *quic.Conn {
		c, err := client.DialEarly(t.Context(), addr, clientTLS, traced(*conf))
		require.NoError(t, err)
		return c
	}, second)
}

// early opens streams before the server has sent anything. Of six bidirectional
// streams two are closed, two stay open, one is reset, and one is opened only by a
// later one. Of two unidirectional streams one is closed.
func early(t *testing.T, c *quic.Conn) {
	t.Helper()
	for i := range 6 {
		s, err := c.OpenStream()
		require.NoError(t, err)
		if i == 4 {
			continue
		}
		_, err = s.Write([]byte("early"))
		require.NoError(t, err)
		switch i {
		case 0, 1:
			require.NoError(t, s.Close())
		case 2:
			s.CancelWrite(1)
		}
	}
	for i := range 2 {
		s, err := c.OpenUniStream()
		require.NoError(t, err)
		_, err = s.Write([]byte("early"))
		require.NoError(t, err)
		if i == 0 {
			require.NoError(t, s.Close())
		}
	}
}

// answer accepts bidi and uni streams, and ends every second one of each kind.
func answer(t *testing.T, c *quic.Conn, bidi, uni int) {
	t.Helper()
	for i := range bidi {
		s, err := c.AcceptStream(t.Context())
		require.NoError(t, err)
		if i%2 == 0 {
			s.CancelRead(0)
			s.Close()
		}
	}
	for i := range uni {
		s, err := c.AcceptUniStream(t.Context())
		require.NoError(t, err)
		if i%2 == 0 {
			s.CancelRead(0)
		}
	}
}

func TestCountsWhenEarlyDataIsAccepted(t *testing.T) {
	for _, retry := range []bool{false, true} {
		name := "at once"
		if retry {
			name = "after a Retry"
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				resuming(t, &quic.Config{MaxIdleTimeout: time.Hour}, &quic.Config{Allow0RTT: true, MaxIdleTimeout: time.Hour}, retry, func(dial func() *quic.Conn, ln *quic.EarlyListener) {
					c := dial()
					early(t, c)
					s, err := ln.Accept(t.Context())
					require.NoError(t, err)
					answer(t, s, 6, 2)
					atRest()
					require.True(t, c.ConnectionState().Used0RTT)
					client, server := end{c, ledger.Of(c)}, end{s, ledger.Of(s)}
					requireCounts(t, client, server)
					require.EqualValues(t, 6, client.ledger.Report().Outgoing.Opened)
					requireNothingUnderWay(t, client, server)
				})
			})
		})
	}
}

// A server that rejects 0-RTT has seen none of those streams. Their numbers are
// used again.
func TestCountsWhenEarlyDataIsRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resuming(t, &quic.Config{MaxIdleTimeout: time.Hour}, &quic.Config{MaxIdleTimeout: time.Hour}, false, func(dial func() *quic.Conn, ln *quic.EarlyListener) {
			c := dial()
			early(t, c)
			require.EqualValues(t, 0, ledger.Of(c).Report().Outgoing.Opened)
			s, err := ln.Accept(t.Context())
			require.NoError(t, err)
			c, err = c.NextConnection(t.Context())
			require.NoError(t, err)
			require.False(t, c.ConnectionState().Used0RTT)
			client, server := end{c, ledger.Of(c)}, end{s, ledger.Of(s)}
			atRest()
			requireCounts(t, client, server, "before anything is sent again")
			require.Zero(t, client.ledger.Report().Outgoing.Opened)
			for range client.ledger.Streams() {
				require.Fail(t, "a stream of 0-RTT is left")
			}
			early(t, c)
			answer(t, s, 6, 2)
			atRest()
			requireCounts(t, client, server)
			require.EqualValues(t, 6, client.ledger.Report().Outgoing.Opened)
			requireNothingUnderWay(t, client, server)
		})
	})
}

// requireNothingUnderWay requires that no stream waits for the network.
func requireNothingUnderWay(t *testing.T, ends ...end) {
	t.Helper()
	for _, e := range ends {
		for s := range e.ledger.Streams() {
			require.NotEqual(t, ledger.BlameWire, s.Blame, "stream %d: %s", s.ID, s.Proof)
		}
	}
}

func TestCountsAfterMigration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		serverTLS, clientTLS := quictest.TLS()
		clients, ss, addr := lossy(5, 0, true).Star(t, 2)
		first, second, server := &quic.Transport{Conn: clients[0]}, &quic.Transport{Conn: clients[1]}, &quic.Transport{Conn: ss}
		ln, err := server.Listen(serverTLS, traced(quic.Config{MaxIdleTimeout: time.Hour}))
		require.NoError(t, err)
		c, err := first.Dial(t.Context(), addr, clientTLS, traced(quic.Config{MaxIdleTimeout: time.Hour}))
		require.NoError(t, err)
		s, err := ln.Accept(t.Context())
		require.NoError(t, err)
		defer func() {
			for _, c := range []io.Closer{ln, first, second, server} {
				c.Close()
			}
		}()
		client, server1 := end{c, ledger.Of(c)}, end{s, ledger.Of(s)}
		early(t, c)
		path, err := c.AddPath(second)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, path.Probe(ctx))
		// Frames that are under way are sent again on the new path.
		early(t, c)
		require.NoError(t, path.Switch())
		early(t, c)
		answer(t, s, 18, 6)
		atRest()
		requireCounts(t, client, server1)
		require.EqualValues(t, 18, client.ledger.Report().Outgoing.Opened)
		requireNothingUnderWay(t, client, server1)
		require.Equal(t, clients[1].LocalAddr().String(), server1.ledger.Report().Remote)
	})
}

// A stream that was read but not released waits for the accepting application.
func TestBlameOfStreamsWhoseCreditIsNotReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t, quictest.Net{}.Pair, &quic.Config{RequireStreamCreditRelease: true, MaxIdleTimeout: time.Hour})
		var in []*quic.Stream
		for i := range 4 {
			s, err := client.OpenStream()
			require.NoError(t, err)
			require.NoError(t, s.Close())
			a, err := server.AcceptStream(t.Context())
			require.NoError(t, err)
			require.NoError(t, a.Close())
			for _, r := range []io.Reader{s, a} {
				_, err = io.ReadAll(r)
				require.NoError(t, err)
			}
			in = append(in, a)
			if i == 0 {
				a.ReleaseStreamCredit()
				atRest()
			}
		}
		atRest()
		requireCounts(t, client, server)
		for view, want := range map[end]ledger.Blame{server: ledger.BlameOurApp, client: ledger.BlamePeerApp} {
			n := 0
			for s := range view.ledger.Streams() {
				n++
				require.Equal(t, want, s.Blame, s.Proof)
			}
			require.Equal(t, 3, n)
		}
		in[2].ReleaseStreamCredit()
		atRest()
		requireCounts(t, client, server)
		for s := range server.ledger.Streams() {
			require.Equal(t, ledger.BlameUnknown, s.Blame, s.Proof) // one of the three slots was given back
		}
	})
}

// TestBlameOfReliableResets resets streams that promise more than was read. In
// some cases all of it has arrived, in others it does not fit into the window.
func TestBlameOfReliableResets(t *testing.T) {
	for _, loss := range []float64{0, 0.05, 0.2} {
		for _, read := range []string{"nothing", "some", "all"} {
			for _, size := range []int{100, 2000, 5000} {
				synctest.Test(t, func(t *testing.T) {
					conf := matrixConf
					conf.EnableStreamResetPartialDelivery = true
					client, server := pair(t, lossy(1, loss, true).Pair, &conf)
					s, err := client.OpenUniStream()
					require.NoError(t, err)
					// If the window is full, CancelWrite unblocks the Write.
					if size > 2048 {
						time.AfterFunc(10*time.Second, func() { s.SetReliableBoundary(); s.CancelWrite(1) })
						s.Write(make([]byte, size))
					} else {
						_, err = s.Write(make([]byte, size))
						require.NoError(t, err)
						s.SetReliableBoundary()
						s.CancelWrite(1)
					}
					in, err := server.AcceptUniStream(t.Context())
					require.NoError(t, err)
					switch read {
					case "some":
						_, err = io.ReadFull(in, make([]byte, 10))
						require.NoError(t, err)
					case "all":
						_, err = io.Copy(io.Discard, in)
						require.Error(t, err)
					}
					time.Sleep(5 * time.Minute)
					synctest.Wait()
					requireCounts(t, client, server, loss, read, size)
					kept := held(server.Conn, incomingUni)
					require.Equal(t, read != "all", kept[2], "%v %v %v", loss, read, size)
					for view, want := range map[end]ledger.Blame{server: ledger.BlameOurApp, client: ledger.BlamePeerApp} {
						for s := range view.ledger.Streams() {
							require.True(t, kept[2])
							require.Contains(t, []ledger.Blame{want, ledger.BlameUnknown}, s.Blame, "%v %v %d: %s", loss, read, size, s.Proof)
						}
					}
				})
			}
		}
	}
}
