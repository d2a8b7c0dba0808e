package ledger_test

import (
	"context"
	"crypto/tls"
	"io"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
	"github.com/quiclife/quiclife/ledger"
)

// OnStarved may take its time. The connection goes on, and STREAMS_BLOCKED during
// a call lead to one more call, not to one more goroutine.
func TestOnStarvedIsCalledWhenThePeerHasNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := make(chan ledger.Report)
		var running, most atomic.Int32
		l := ledger.New(ledger.Options{OnStarved: func(c *ledger.Conn, r ledger.Report) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			reports <- r
		}})
		client, server := quictest.Net{}.Pair(t, nil, &quic.Config{MaxIncomingStreams: 3, MaxIdleTimeout: time.Hour, Tracer: l.Tracer(nil)})
		var opened, accepted []*quic.Stream
		open := func() {
			s, err := client.OpenStreamSync(t.Context())
			require.NoError(t, err)
			_, err = s.Write([]byte("x"))
			require.NoError(t, err)
			a, err := server.AcceptStream(t.Context())
			require.NoError(t, err)
			opened, accepted = append(opened, s), append(accepted, a)
		}
		for range 3 {
			open()
		}
		for i := range 3 { // each raises the limit by one, and uses it up at once
			_, err := client.OpenStream()
			require.ErrorAs(t, err, new(*quic.StreamLimitReachedError))
			time.Sleep(time.Second)
			synctest.Wait()
			require.EqualValues(t, 1, running.Load(), "calls at once")
			accepted[i].CancelRead(0)
			require.NoError(t, accepted[i].Close())
			open()
		}
		_, err := client.OpenStream()
		require.ErrorAs(t, err, new(*quic.StreamLimitReachedError))
		time.Sleep(time.Second)
		first := <-reports
		require.EqualValues(t, 3, first.Incoming.Held)
		require.True(t, first.Incoming.Blocked)
		second := <-reports
		require.EqualValues(t, 6, second.Incoming.Opened)
		require.EqualValues(t, 3, second.Incoming.Held)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Zero(t, running.Load())
		require.EqualValues(t, 1, most.Load())
	})
}

func TestSampleTracesOneConnectionInN(t *testing.T) {
	id := quic.ConnectionIDFromBytes([]byte{1, 2, 3, 4})
	for sample, want := range map[int]int{0: 12, 1: 12, 3: 4, 5: 3, -1: 0} {
		tracer := ledger.New(ledger.Options{Sample: sample}).Tracer(nil)
		n := 0
		for range 12 {
			if tracer(context.Background(), true, id) != nil {
				n++
			}
		}
		require.Equal(t, want, n, "sample %d", sample)
	}
}

// A spy counts the events that quic-go traces.
type spy struct{ events, open atomic.Int64 }

func (s *spy) AddProducer() qlogwriter.Recorder { s.open.Add(1); return s }
func (s *spy) RecordEvent(qlogwriter.Event)     { s.events.Add(1) }
func (s *spy) Close() error                     { s.open.Add(-1); return nil }

func TestTracerChains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, sample := range []int{1, -1} {
			var next spy
			l := ledger.New(ledger.Options{Sample: sample})
			client, server := quictest.Net{}.Pair(t, &quic.Config{Tracer: l.Tracer(func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace { return &next })}, nil)
			require.NotZero(t, next.events.Load(), "sample %d", sample)
			require.EqualValues(t, 1, next.open.Load())
			client.CloseWithError(0, "")
			<-server.Context().Done()
			synctest.Wait()
			require.Zero(t, next.open.Load(), "sample %d: the next trace is not closed", sample)
		}
	})
}

func TestConnectionsThatEndedAreKeptForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ledger.New(ledger.Options{})
		tracer := l.Tracer(nil)
		start := time.Now().Round(0).UTC()
		client, server := quictest.Net{}.Pair(t, &quic.Config{Tracer: tracer}, nil)
		http3 := client.QlogTrace().AddProducer() // this one outlives the connection
		defer http3.Close()
		for range 70 { // connections that only begin and end
			p := tracer(t.Context(), true, quic.ConnectionID{}).AddProducer()
			p.RecordEvent(qlog.PacketSent{})
			require.NoError(t, p.Close())
		}
		s, err := client.OpenStream()
		require.NoError(t, err)
		_, err = s.Write([]byte("x"))
		require.NoError(t, err)
		_, err = server.AcceptStream(t.Context())
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.Len(t, slices.Collect(l.Conns()), 64+1, "those that ended last, and the one that lives")
		c := ledger.Of(client)
		require.Contains(t, slices.Collect(l.Conns()), c)
		require.Zero(t, c.Report().Ended)

		client.CloseWithError(5, "bye")
		synctest.Wait()
		all := slices.Collect(l.Conns())
		require.Len(t, all, 64)
		require.Equal(t, c, all[63])
		r := c.Report()
		require.EqualValues(t, 1, r.Outgoing.Held, "as it was at the end")
		require.NotEmpty(t, r.ID)
		require.Equal(t, "1.0.0.2:443", r.Remote)
		require.Equal(t, "we closed it: application error 5 bye", r.Reason)
		require.Equal(t, start, r.Began.UTC(), "before http3 asked for a producer")
		require.Less(t, r.Began, r.Ended)

		// http3 may ask for one more producer after the connection has ended.
		late := client.QlogTrace().AddProducer()
		require.Equal(t, all, slices.Collect(l.Conns()))
		require.NoError(t, late.Close())
		require.Equal(t, all, slices.Collect(l.Conns()))
	})
}

// quic-go does not report the end of a connection that TLS refuses to begin.
func TestDialThatFailsBeforeItsFirstPacketIsNotListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ledger.New(ledger.Options{})
		socket, peer, addr := quictest.Net{}.Endpoints(t)
		defer peer.Close()
		tr := &quic.Transport{Conn: socket}
		defer tr.Close()
		for range 3 {
			_, err := tr.Dial(t.Context(), addr, &tls.Config{NextProtos: []string{""}}, &quic.Config{Tracer: l.Tracer(nil)})
			require.Error(t, err)
		}
		require.Empty(t, slices.Collect(l.Conns()))
	})
}

// A dial that nobody answers has sent packets. So it is listed, and it ends.
func TestDialThatIsNotAnsweredEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ledger.New(ledger.Options{})
		socket, peer, addr := quictest.Net{}.Endpoints(t)
		defer peer.Close()
		tr := &quic.Transport{Conn: socket}
		defer tr.Close()
		_, clientTLS := quictest.TLS()
		_, err := tr.Dial(t.Context(), addr, clientTLS, &quic.Config{Tracer: l.Tracer(nil)})
		require.Error(t, err)
		all := slices.Collect(l.Conns())
		require.Len(t, all, 1)
		require.Equal(t, "idle timeout", all[0].Report().Reason)
	})
}

// OnStarved is called without a lock, so it may read all streams and end the
// connection.
func TestOnStarvedMayAskForAnything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l *ledger.Ledger
		var server *quic.Conn
		blames := make(chan []ledger.Blame, 10)
		l = ledger.New(ledger.Options{OnStarved: func(c *ledger.Conn, _ ledger.Report) {
			var all []ledger.Blame
			for other := range l.Conns() {
				for s := range other.Streams() {
					other.Report()
					all = append(all, s.Blame)
				}
			}
			server.CloseWithError(1, c.Report().ID)
			blames <- all
		}})
		var client *quic.Conn
		client, server = quictest.Net{}.Pair(t, nil, &quic.Config{MaxIncomingStreams: 1, Tracer: l.Tracer(nil)})
		s, err := client.OpenStream()
		require.NoError(t, err)
		require.NoError(t, s.Close())
		synctest.Wait()
		time.Sleep(time.Second)
		_, err = client.OpenStream()
		require.Error(t, err)
		require.Equal(t, []ledger.Blame{ledger.BlameOurApp}, <-blames)
		<-client.Context().Done()
		require.Equal(t, "we closed it: application error 1 "+ledger.Of(server).Report().ID, ledger.Of(server).Report().Reason)
	})
}

// quic-go asks for a tracer before there is a connection. If there never is one,
// nothing is listed.
func TestConnectionThatIsNotMadeIsNotListed(t *testing.T) {
	l := ledger.New(ledger.Options{})
	require.NotNil(t, l.Tracer(nil)(context.Background(), true, quic.ConnectionID{}))
	require.Empty(t, slices.Collect(l.Conns()))
}

func TestOfReturnsTheLedgersViewOfAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ledger.Ledger
		client, server := quictest.Net{}.Pair(t, &quic.Config{Tracer: l.Tracer(nil)}, nil)
		require.Equal(t, []*ledger.Conn{ledger.Of(client)}, slices.Collect(l.Conns()))
		require.Nil(t, ledger.Of(server))
	})
}

// A loop over Streams may run while streams come and go, and may end early.
func TestStreamsBesideTraffic(t *testing.T) {
	client, server := pair(t, quictest.Loopback, &quic.Config{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			s, err := server.AcceptStream(context.Background())
			if err != nil {
				return
			}
			io.Copy(s, s)
			s.Close()
		}
	}()
	stop := make(chan struct{})
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		for {
			for range client.ledger.Streams() {
				break
			}
			for s := range server.ledger.Streams() {
				if s.Proof == "" {
					t.Error("no proof")
				}
			}
			client.ledger.Report()
			select {
			case <-stop:
				return
			default:
				runtime.Gosched()
			}
		}
	}()
	for range 200 {
		s, err := client.OpenStreamSync(t.Context())
		require.NoError(t, err)
		_, err = s.Write([]byte("request"))
		require.NoError(t, err)
		require.NoError(t, s.Close())
		_, err = io.ReadAll(s)
		require.NoError(t, err)
	}
	close(stop)
	<-looked
	<-done
}

// TestStreamsThatEndedTakeNoMemory opens streams one after the other: once with
// none held, and once with one that the server never reads. They may not leave
// more memory in use than the first 2,000 do. The full test opens 100,000.
func TestStreamsThatEndedTakeNoMemory(t *testing.T) {
	streams := 4_000
	if full {
		streams = 100_000
	} else if testing.Short() {
		t.Skip("TestStreamsThatWereDoneWithTakeNoMemory is short")
	}
	for _, name := range []string{"none held", "one held"} {
		t.Run(name, func(t *testing.T) {
			client, server := pair(t, quictest.Loopback, &quic.Config{MaxIncomingUniStreams: 100})
			open := func() {
				s, err := client.OpenUniStreamSync(t.Context())
				require.NoError(t, err)
				require.NoError(t, s.Close())
			}
			cycle := func(n int) {
				for range n {
					open()
					a, err := server.AcceptUniStream(t.Context())
					require.NoError(t, err)
					_, err = a.Read(make([]byte, 1))
					require.Equal(t, io.EOF, err)
				}
			}
			heldNow := int64(0)
			if name == "one held" {
				open()
				_, err := server.AcceptUniStream(t.Context())
				require.NoError(t, err)
				heldNow = 1
			}
			cycle(2_000)
			after2000 := quictest.HeapAlloc()
			cycle(streams - 2_000)
			require.Eventually(t, func() bool {
				return client.ledger.Report().OutgoingUni.Held == heldNow && server.ledger.Report().IncomingUni.Held == heldNow
			}, 10*time.Second, 10*time.Millisecond)
			r := server.ledger.Report().IncomingUni
			require.Equal(t, int64(streams)+heldNow, r.Opened)
			require.Equal(t, heldNow, r.HeldComplete)
			require.True(t, r.Exact, r.Why)
			after := quictest.HeapAlloc()
			require.Less(t, int64(after)-int64(after2000), int64(100<<10), "%d bytes after 2,000 streams, %d after %d", after2000, after, streams)
			if heldNow == 0 {
				for _, e := range []end{client, server} {
					for s := range e.ledger.Streams() {
						require.Fail(t, "a stream is listed", s.Proof)
					}
				}
				return
			}
			n := int64(0)
			for s := range server.ledger.Streams() {
				require.Equal(t, ledger.BlameUnknown, s.Blame, s.Proof)
				n += s.Count
			}
			require.EqualValues(t, streams+1, n, "candidates")
			runtime.KeepAlive(client)
			runtime.KeepAlive(server)
		})
	}
}
