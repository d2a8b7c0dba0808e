package ledger_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quiclife/quiclife/internal/quictest"
	"github.com/quiclife/quiclife/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An end is one end of a connection, and the ledger's view of it.
type end struct {
	*quic.Conn
	ledger *ledger.Conn
}

// pair returns the two ends of a new connection, each with a ledger.
func pair(t testing.TB, connect func(testing.TB, *quic.Config, *quic.Config) (client, server *quic.Conn), conf *quic.Config) (client, server end) {
	t.Helper()
	traced := func() *quic.Config {
		c := conf.Clone()
		c.Tracer = ledger.New(ledger.Options{}).Tracer(c.Tracer)
		return c
	}
	c, s := connect(t, traced(), traced())
	client, server = end{c, ledger.Of(c)}, end{s, ledger.Of(s)}
	require.NotNil(t, client.ledger)
	require.NotNil(t, server.ledger)
	return client, server
}

// lossy returns a network that loses each packet with the probability loss. If
// reorder is set, packets may overtake each other.
func lossy(seed uint64, loss float64, reorder bool) quictest.Net {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0))
	n := quictest.Net{}
	if loss > 0 {
		n.Drop = func(simnet.Packet) bool {
			mu.Lock()
			defer mu.Unlock()
			return random.Float64() < loss
		}
	}
	if reorder {
		n.Jitter = func() time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return time.Duration(random.Int64N(int64(20 * time.Millisecond)))
		}
	}
	return n
}

// kinds names quic-go's stream maps, in the order of Report.
var kinds = []string{"incomingBidiStreams", "incomingUniStreams", "outgoingBidiStreams", "outgoingUniStreams"}

const (
	incoming = iota
	incomingUni
	outgoing
	outgoingUni
)

func counts(r ledger.Report) []ledger.Count {
	return []ledger.Count{r.Incoming, r.IncomingUni, r.Outgoing, r.OutgoingUni}
}

// held returns the IDs that quic-go keeps in one of its stream maps.
func held(c *quic.Conn, kind int) map[quic.StreamID]bool {
	streams := reflect.ValueOf(c).Elem().FieldByName("streamsMap").Elem()
	defer lock(streams.FieldByName("mutex")).Unlock()
	m := streams.FieldByName(kinds[kind]).Elem()
	defer lock(m.FieldByName("mutex")).Unlock()
	ids := make(map[quic.StreamID]bool)
	for _, key := range m.FieldByName("streams").MapKeys() {
		ids[quic.StreamID(key.Int())] = true
	}
	return ids
}

func lock(mutex reflect.Value) sync.Locker {
	mu := reflect.NewAt(mutex.Type(), unsafe.Pointer(mutex.UnsafeAddr())).Interface().(sync.Locker)
	mu.Lock()
	return mu
}

// requireCounts requires that the ledgers of both ends have the right counts. For
// each kind, those are the counts of quic-go's stream map at the accepting end.
func requireCounts(t testing.TB, client, server end, msg ...any) {
	t.Helper()
	cr, sr := client.ledger.Report(), server.ledger.Report()
	for _, end := range []struct {
		name      string
		accepting *quic.Conn
		ours      ledger.Report
		theirs    ledger.Report
	}{{"the client", client.Conn, cr, sr}, {"the server", server.Conn, sr, cr}} {
		for kind := incoming; kind <= incomingUni; kind++ {
			n := int64(len(held(end.accepting, kind)))
			for _, c := range []struct {
				whose string
				ledger.Count
			}{{"its own ledger", counts(end.ours)[kind]}, {"the peer's ledger", counts(end.theirs)[kind+2]}} {
				what := fmt.Sprintf("%s of %s, by %s: %+v %v", kinds[kind], end.name, c.whose, c.Count, msg)
				require.Equal(t, n, c.Held, "held: %s", what)
				require.Equal(t, c.Opened, c.LetGo+c.Held, "opened: %s", what)
				require.True(t, c.Exact, "exact: %s", what)
			}
			require.Equal(t, counts(end.ours)[kind].HeldComplete, counts(end.theirs)[kind+2].HeldComplete, "%s complete of %s %v", kinds[kind], end.name, msg)
		}
	}
}

func TestCountsAreThoseOfTheStreamMaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t, quictest.Net{}.Pair, &quic.Config{MaxIncomingStreams: 1000})
		for i := range 300 {
			s, err := client.OpenStream()
			require.NoError(t, err)
			_, err = s.Write([]byte("request"))
			require.NoError(t, err)
			if i%2 == 0 {
				require.NoError(t, s.Close())
			}
			if i >= 270 { // the last ones are not accepted
				continue
			}
			in, err := server.AcceptStream(t.Context())
			require.NoError(t, err)
			if i%3 > 0 {
				in.Close()
			}
			if i%5 < 3 && i%2 == 0 {
				io.ReadAll(in)
			}
			if i%5 == 3 {
				in.CancelRead(1)
			}
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		requireCounts(t, client, server)
		r := server.ledger.Report()
		require.EqualValues(t, 300, r.Incoming.Opened)
		require.NotZero(t, r.Incoming.LetGo)
	})
}
