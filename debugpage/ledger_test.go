package debugpage_test

import (
	"encoding/json"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/debugpage"
	"github.com/quiclife/quiclife/internal/quictest"
	"github.com/quiclife/quiclife/ledger"
)

// traced returns both ends of a connection whose server has a ledger, and a
// page with the ledger.
func traced(t *testing.T, conf quic.Config) (client, server *quic.Conn, o debugpage.Options) {
	t.Helper()
	l := ledger.New(ledger.Options{})
	conf.Tracer = l.Tracer(nil)
	client, server = quictest.Loopback(t, nil, &conf)
	return client, server, debugpage.Options{Ledger: l}
}

// hold opens n streams at client. server accepts them and does not read.
func hold(t *testing.T, client, server *quic.Conn, n int) {
	t.Helper()
	for range n {
		s, err := client.OpenStreamSync(t.Context())
		require.NoError(t, err)
		_, err = s.Write([]byte("x"))
		require.NoError(t, err)
		require.NoError(t, s.Close())
		_, err = server.AcceptStream(t.Context())
		require.NoError(t, err)
	}
}

// TestPageShowsWhoseMoveItIs: it does so even for connections without a Guard.
func TestPageShowsWhoseMoveItIs(t *testing.T) {
	client, server, o := traced(t, quic.Config{MaxIncomingStreams: 3})
	hold(t, client, server, 2)
	h := o.Handler(&quiclife.Guard{})
	shows := func(page string) bool { return strings.Count(page, "our-app") == 2 }
	require.Eventually(t, func() bool { return shows(get(t, h, "").Body.String()) }, 10*time.Second, 10*time.Millisecond)

	page := get(t, h, "").Body.String()
	require.Contains(t, page, "2 of 3 <small>2 opened</small>")
	require.Contains(t, page, "It waits for our application: the peer&#39;s FIN at 1 has come with all before it")
	text := get(t, h, "?format=text").Body.String()
	require.Contains(t, text, "LEDGER: 1\n")
	require.Regexp(t, `(?m)^`+client.LocalAddr().String()+` .* server +2 +2 of 3 +`, text)
	require.Contains(t, text, "HELD STREAMS: 2\n")
	require.Contains(t, get(t, h, "?format=text&q=nobody").Body.String(), "LEDGER: 0\n")
	require.Contains(t, get(t, h, "?format=text&q=our-app").Body.String(), "HELD STREAMS: 2\n")

	var got struct {
		Ledger struct {
			Conns struct {
				Rows []struct {
					Remote string
					Held   int64
					Kinds  []struct {
						Incoming bool
						Held     int64
						Exact    bool
					}
				}
			} `json:"connections"`
			Streams struct {
				Rows []struct {
					Blame string
					Proof string
				}
			}
		}
	}
	require.NoError(t, json.Unmarshal(get(t, h, "?format=json").Body.Bytes(), &got))
	require.EqualValues(t, 2, got.Ledger.Conns.Rows[0].Held)
	require.EqualValues(t, 2, got.Ledger.Conns.Rows[0].Kinds[2].Held)
	require.True(t, got.Ledger.Conns.Rows[0].Kinds[2].Exact)
	require.Equal(t, "our-app", got.Ledger.Streams.Rows[1].Blame)
}

func TestHeldStreamsAreLimitedAndCounted(t *testing.T) {
	client, server, o := traced(t, quic.Config{MaxIncomingStreams: 2000})
	hold(t, client, server, 1100)
	h := o.Handler()
	var text string
	require.Eventually(t, func() bool { // quic-go traces a packet after it has handled its frames
		text = get(t, h, "?format=text").Body.String()
		return strings.Contains(text, "HELD STREAMS: 500 of 1100\n")
	}, 10*time.Second, 10*time.Millisecond)
	require.Regexp(t, `(?m)^\S+ +0 +`, text, "the oldest is shown")
	require.NotRegexp(t, `(?m)^\S+ +4396 +`, text, "the youngest is not")
}

// TestStringsOfThePeerAreShownAsText: the peer chooses the reason of a
// CONNECTION_CLOSE.
func TestStringsOfThePeerAreShownAsText(t *testing.T) {
	client, server, o := traced(t, quic.Config{})
	hold(t, client, server, 1)
	client.CloseWithError(1, "<script>\x1b[2J\u202e")
	<-server.Context().Done()
	h := o.Handler()
	require.Eventually(t, func() bool { return strings.Contains(get(t, h, "").Body.String(), "server, ended") }, 10*time.Second, 10*time.Millisecond)
	require.NotContains(t, get(t, h, "").Body.String(), "<script")
	text := get(t, h, "?format=text").Body.String()
	require.Contains(t, text, "<script>")
	require.NotContains(t, text, "\x1b")
	for _, page := range []string{text, get(t, h, "").Body.String()} {
		require.NotContains(t, page, "\u202e")
	}
	require.Contains(t, text, "HELD STREAMS: 0\n", "the connection has ended")
	require.Contains(t, get(t, h, "?format=text&q="+url.QueryEscape("script")).Body.String(), "HELD STREAMS: 1\n", "asked for")
}

func TestPageWithoutALedgerDoesNotChange(t *testing.T) {
	h := debugpage.Handler(&quiclife.Guard{})
	for _, query := range []string{"", "?format=json", "?format=text"} {
		require.NotContains(t, strings.ToLower(get(t, h, query).Body.String()), "ledger")
	}
}

type otherTracer struct{ debugpage.Ledger }

func TestWrongLedgerPanics(t *testing.T) {
	for _, wrong := range []debugpage.Ledger{(*ledger.Ledger)(nil), otherTracer{}} {
		require.Panics(t, func() { debugpage.Options{Ledger: wrong}.Handler() })
	}
}

// TestPageDoesNotImportTheLedger: the import would add http3's schema to the
// qlog files of programs that have a page but no ledger.
func TestPageDoesNotImportTheLedger(t *testing.T) {
	deps, err := exec.Command("go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	require.NotContains(t, string(deps), "quiclife/ledger")
	require.NotContains(t, string(deps), "http3")
}
