package debugpage_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/debugpage"
	"github.com/quiclife/quiclife/internal/quictest"
)

// get requests a page from h, as a browser on this machine does.
func get(t *testing.T, h http.Handler, query string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://localhost:6060/debug/quiclife"+query, nil)
	r.RemoteAddr = "127.0.0.1:50000"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// pair returns a client and a server under a Guard that captures stacks.
func pair(t *testing.T, conf *quic.Config) (guard *quiclife.Guard, client, server *quiclife.Conn) {
	t.Helper()
	guard = &quiclife.Guard{CaptureStacks: true, AbandonGrace: -1}
	rc, rs := quictest.Loopback(t, conf, conf)
	return guard, guard.Wrap(rc, conf), guard.Wrap(rs, conf)
}

func open(t *testing.T, c *quiclife.Conn) *quiclife.Stream {
	t.Helper()
	s, err := c.OpenStream()
	require.NoError(t, err)
	t.Cleanup(s.Release)
	return s
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func TestPageShowsWhoHoldsStreams(t *testing.T) {
	guard, client, _ := pair(t, nil)
	h := debugpage.Handler(guard)
	for range 3 {
		open(t, client).Close()
	}
	open(t, client)
	page := get(t, h, "").Body.String()
	require.Contains(t, page, "debugpage_test.open", "the opener")
	require.Contains(t, page, "send half finished, receive half open")
	require.Contains(t, page, "read the answer to io.EOF")
	require.Contains(t, page, client.RemoteAddr().String())

	var got struct {
		Guards []struct {
			Groups struct {
				Rows []struct {
					Count  int     `json:"count"`
					State  string  `json:"state"`
					Oldest float64 `json:"oldest_seconds"`
				} `json:"rows"`
				Of int `json:"of"`
			} `json:"streams_by_opener"`
			Kinds []struct {
				Kind string `json:"kind"`
				Open int    `json:"open"`
			} `json:"kinds"`
		} `json:"guards"`
	}
	require.Eventually(t, func() bool { // the page shows milliseconds, and the streams may be younger than one
		err := json.Unmarshal(get(t, h, "?format=json").Body.Bytes(), &got)
		return err == nil && got.Guards[0].Groups.Rows[0].Oldest > 0
	}, 10*time.Second, time.Millisecond)
	groups := got.Guards[0].Groups
	require.Equal(t, 2, groups.Of)
	require.Equal(t, 3, groups.Rows[0].Count, "the group with most is first")
	require.Equal(t, 1, groups.Rows[1].Count)
	require.Equal(t, "outgoing", got.Guards[0].Kinds[0].Kind)
	require.Equal(t, 4, got.Guards[0].Kinds[0].Open)

	text := get(t, h, "?format=text").Body.String()
	require.Regexp(t, `(?m)^3 .*send half finished, receive half open .*debugpage_test\.open`, text)
	require.NotContains(t, text, "OPEN STREAMS: ", "one by one, without a filter")
	require.Regexp(t, `(?m)^127\S+ +\S+ +4 +4 +0 +0 of 100 +0 of 100 +4 `, text, "the open streams of each kind, and the limit where it is known")
}

// TestOpenersThatAreNotKnown: the page says "not captured".
func TestOpenersThatAreNotKnown(t *testing.T) {
	guard := &quiclife.Guard{}
	rc, _ := quictest.Loopback(t, nil, nil)
	open(t, guard.Wrap(rc, nil))
	h := debugpage.Handler(guard)
	require.Contains(t, get(t, h, "").Body.String(), "not captured")
	require.Regexp(t, `(?m)^1 .*not captured$`, get(t, h, "?format=text").Body.String())
}

// TestAdviceForHandlers: Serve ends the stream once its handler returns.
func TestAdviceForHandlers(t *testing.T) {
	guard, client, server := pair(t, nil)
	_, err := open(t, client).Write([]byte("x"))
	require.NoError(t, err)
	returned := make(chan error, 1)
	go func() {
		returned <- server.Serve(t.Context(), quiclife.Handlers{Stream: func(ctx context.Context, _ *quiclife.Stream) error {
			<-ctx.Done()
			return nil
		}})
	}()
	h := debugpage.Handler(guard)
	require.Eventually(t, func() bool {
		return strings.Contains(get(t, h, "").Body.String(), "If Serve accepted it, its handler has not returned yet.")
	}, 10*time.Second, time.Millisecond)
	client.CloseWithError(0, "")
	<-returned
}

// TestFilter: only rows that match are shown, and single streams are listed.
func TestFilter(t *testing.T) {
	guard, client, server := pair(t, nil)
	s := open(t, client)
	s.Close()
	open(t, client)
	h := debugpage.Handler(guard)
	require.Contains(t, get(t, h, "?format=text&q=FINISHED").Body.String(), "OPEN STREAMS: 1\n")
	require.Contains(t, get(t, h, "?format=text&q="+url.QueryEscape(client.LocalAddr().String())).Body.String(), "CONNECTIONS: 2\n")
	none := get(t, h, "?format=text&q=nobody").Body.String()
	require.Contains(t, none, "CONNECTIONS: 0\n")
	require.NotContains(t, none, server.LocalAddr().String())
}

// TestLeaksAreKept: the page has the last 100. The program's OnLeak still works.
func TestLeaksAreKept(t *testing.T) {
	var told atomic.Int64
	guard := &quiclife.Guard{IdleTimeout: time.Millisecond, OnLeak: func(quiclife.Leak) { told.Add(1) }, Logger: slog.New(slog.DiscardHandler)}
	conf := &quic.Config{MaxIncomingStreams: 1000}
	rc, _ := quictest.Loopback(t, conf, conf)
	client := guard.Wrap(rc, conf)
	h := debugpage.Handler(guard)
	require.Contains(t, get(t, h, "").Body.String(), "None since the page was made.")
	for range 120 {
		open(t, client)
	}
	require.Eventually(t, func() bool { return told.Load() == 120 }, 10*time.Second, time.Millisecond)
	text := get(t, h, "?format=text").Body.String()
	require.Contains(t, text, "LEAKS: 100\n")
	require.Regexp(t, `(?m)^\S+ +idle +\d+ +`+regexp.QuoteMeta(client.RemoteAddr().String()), text)
}

func TestOnlyRequestsFromThisMachineAreAnswered(t *testing.T) {
	h := debugpage.Handler(&quiclife.Guard{})
	for _, c := range []struct {
		name, remote, host string
		header             string
		status             int
	}{
		{"from here", "127.0.0.1:1", "localhost:6060", "", 200},
		{"from here, IPv6", "[::1]:1", "[::1]:6060", "", 200},
		{"from here, without a port", "127.0.0.1:1", "127.0.0.1", "", 200},
		{"from elsewhere", "192.0.2.1:1", "localhost:6060", "", 403},
		{"through a proxy", "127.0.0.1:1", "localhost:6060", "X-Forwarded-For", 403},
		{"through another proxy", "127.0.0.1:1", "localhost:6060", "Forwarded", 403},
		{"through a proxy that keeps to the RFC alone", "127.0.0.1:1", "localhost:6060", "Via", 403},
		{"through a proxy that says little", "127.0.0.1:1", "localhost:6060", "X-Forwarded-Proto", 403},
		{"under a foreign name", "127.0.0.1:1", "evil.example:6060", "", 403},
		{"under no name", "127.0.0.1:1", "", "", 403},
		{"from a socket of another kind", "@", "localhost", "", 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr, r.Host = c.remote, c.host
			if c.header != "" {
				r.Header.Set(c.header, "192.0.2.1")
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(t, c.status, w.Code)
			if c.status != 200 {
				require.NotContains(t, w.Body.String(), "<", "of the page")
			}
		})
	}
}

// TestAllowStandsInPlaceOfTheRule: Allow may let in more requests, or fewer.
func TestAllowStandsInPlaceOfTheRule(t *testing.T) {
	for _, allow := range []bool{false, true} {
		h := debugpage.Options{Allow: func(*http.Request) bool { return allow }}.Handler(&quiclife.Guard{})
		r := httptest.NewRequest(http.MethodGet, "http://example.com/", nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, allow, w.Code == 200)
		require.Equal(t, allow, get(t, h, "").Code == 200)
	}
}

func TestPageCanOnlyBeRead(t *testing.T) {
	h := debugpage.Handler(&quiclife.Guard{})
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	for method, status := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "PUT": 405, "DELETE": 405, "OPTIONS": 405} {
		r, err := http.NewRequest(method, server.URL, nil)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, status, resp.StatusCode, method)
		if status == 405 {
			require.Equal(t, "GET, HEAD", resp.Header.Get("Allow"))
		}
	}
}

// TestPolicyForbidsEverythingButTheStyle: the policy contains the hash of the
// style sheet.
func TestPolicyForbidsEverythingButTheStyle(t *testing.T) {
	w := get(t, debugpage.Handler(&quiclife.Guard{}), "")
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(w.Body.String())
	require.NotNil(t, style)
	policy := w.Header().Get("Content-Security-Policy")
	require.True(t, strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-"+hash(style[1])+"';"), policy)
	for _, forbidden := range []string{"<script", "javascript:", " style=", "src=", "onclick", "http://", "https://"} {
		require.NotContains(t, w.Body.String(), forbidden)
	}
}

// TestHostileStringsAreShownAsText: wherever the strings come from.
func TestHostileStringsAreShownAsText(t *testing.T) {
	guard, client, _ := pair(t, nil)
	open(t, client)
	const hostile = `"><script>alert(1)</script>&refresh=1`
	h := debugpage.Handler(guard)
	for _, query := range []string{"?q=" + url.QueryEscape(hostile), "?sort=open&q=" + url.QueryEscape(hostile)} {
		w := get(t, h, query)
		require.Equal(t, 200, w.Code)
		require.NotContains(t, w.Body.String(), "<script")
		require.Contains(t, w.Body.String(), "&lt;script&gt;")
	}
	for _, query := range []string{"?sort=", "?format=", "?refresh="} {
		w := get(t, h, query+url.QueryEscape(hostile))
		require.Equal(t, 400, w.Code, query)
		require.Equal(t, "text/plain; charset=utf-8", w.Header().Get("Content-Type"))
	}
}

func TestRefresh(t *testing.T) {
	h := debugpage.Handler(&quiclife.Guard{})
	require.Equal(t, "5", get(t, h, "?refresh=5").Header().Get("Refresh"))
	require.Empty(t, get(t, h, "").Header().Get("Refresh"))
	for _, wrong := range []string{"0", "-1", "x", "99999999"} {
		require.Equal(t, 400, get(t, h, "?refresh="+wrong).Code, wrong)
	}
}

func TestEachOrderIsOne(t *testing.T) {
	guard, client, server := pair(t, nil)
	for _, s := range []*quiclife.Stream{open(t, client), open(t, client)} {
		s.Write([]byte("x"))
		_, err := server.AcceptStream(t.Context())
		require.NoError(t, err)
	}
	h := debugpage.Handler(guard)
	links := regexp.MustCompile(`href="(\?sort=[^"]*)"`).FindAllStringSubmatch(get(t, h, "").Body.String(), -1)
	require.Len(t, links, 8, "columns that can be sorted")
	for _, link := range links {
		w := get(t, h, strings.ReplaceAll(link[1], "&amp;", "&"))
		require.Equal(t, 200, w.Code)
		require.Equal(t, 1, strings.Count(w.Body.String(), "aria-sort"), link[1])
		ascending := strings.Contains(link[1], "remote") || strings.Contains(link[1], "opener")
		require.Equal(t, ascending, strings.Contains(w.Body.String(), `aria-sort="ascending"`), link[1])
	}
}

// TestWithoutGuards: the page shows DefaultGuard. Several Guards are shown
// separately.
func TestWithoutGuards(t *testing.T) {
	require.Equal(t, 200, get(t, debugpage.Handler(), "").Code)
	require.Contains(t, get(t, debugpage.Handler(&quiclife.Guard{}, &quiclife.Guard{}), "").Body.String(), "Guard 2 of 2")
	named := debugpage.Options{Names: []string{"front", "<back>"}}
	page := get(t, named.Handler(&quiclife.Guard{}, &quiclife.Guard{}), "").Body.String()
	require.Contains(t, page, "&lt;back&gt;</h2>")
	require.NotContains(t, page, "Guard 2 of 2")
	require.Contains(t, get(t, named.Handler(&quiclife.Guard{}, &quiclife.Guard{}), "?format=text").Body.String(), "== front ==")
	require.PanicsWithValue(t, "debugpage: Options has 2 Names for 1 Guards", func() { named.Handler() })
	require.PanicsWithValue(t, "debugpage: Guard 1 is nil", func() { debugpage.Handler(&quiclife.Guard{}, nil) })
}

// TestManyStreams: a page with 100,000 open streams takes less than a second,
// and streams can be opened meanwhile.
func TestManyStreams(t *testing.T) {
	if testing.Short() {
		t.Skip("opens 100,000 streams")
	}
	const streams = 100_000 / slow
	conf := &quic.Config{MaxIncomingStreams: 1 << 20}
	guard, client, _ := pair(t, conf)
	held := make([]*quiclife.Stream, streams)
	for i := range held {
		var err error
		held[i], err = client.OpenStream()
		require.NoError(t, err)
	}
	h := debugpage.Handler(guard)
	opens := make(chan time.Duration)
	stop, cancel := context.WithCancel(t.Context())
	go func() {
		var longest time.Duration
		for stop.Err() == nil {
			start := time.Now()
			s, err := client.OpenStream()
			if err != nil {
				t.Error(err)
				break
			}
			s.Release()
			longest = max(longest, time.Since(start))
		}
		opens <- longest
	}()
	best := time.Hour
	for range 3 { // the machine may be busy
		start := time.Now()
		page := get(t, h, "").Body.String()
		best = min(best, time.Since(start))
		require.Contains(t, page, fmt.Sprint(streams))
	}
	cancel()
	t.Logf("%d streams in %v; an open took %v at most", streams, best, <-opens)
	require.Less(t, best, time.Second)
	runtime.KeepAlive(held)
}

// TestRowsAreLimited: all rows are counted.
func TestRowsAreLimited(t *testing.T) {
	conf := &quic.Config{MaxIncomingStreams: 1000}
	guard, client, _ := pair(t, conf)
	for range 600 {
		open(t, client)
	}
	text := get(t, debugpage.Handler(guard), "?format=text&q=outgoing").Body.String()
	require.Contains(t, text, "OPEN STREAMS: 500 of 600\n")
}

// TestEmptyTablesAreLists: the JSON has no null, so programs can iterate over each
// table.
func TestEmptyTablesAreLists(t *testing.T) {
	require.NotContains(t, get(t, debugpage.Handler(&quiclife.Guard{}), "?format=json").Body.String(), "null")
}

// TestFilterKeepsTheRefresh: the form for the filter also sends the refresh.
func TestFilterKeepsTheRefresh(t *testing.T) {
	page := get(t, debugpage.Handler(&quiclife.Guard{}), "?refresh=7").Body.String()
	require.Contains(t, page, `<input type="hidden" name="refresh" value="7">`)
}

// TestLeakOfCreditSaysWhatReturnsIt: both halves have ended, so there is
// nothing to read or close.
func TestLeakOfCreditSaysWhatReturnsIt(t *testing.T) {
	conf := &quic.Config{RequireStreamCreditRelease: true}
	guard, client, server := pair(t, conf)
	h := debugpage.Handler(guard)
	func() {
		s := open(t, client)
		require.NoError(t, s.Close())
		peer, err := server.AcceptStream(t.Context())
		require.NoError(t, err)
		peer.Read(make([]byte, 1))
		require.NoError(t, peer.Close())
	}()
	var page string
	require.Eventually(t, func() bool {
		runtime.GC()
		page = get(t, h, "?format=json").Body.String()
		return strings.Contains(page, `"reason":"uncredited"`)
	}, 10*time.Second, time.Millisecond)
	require.Contains(t, page, `"to_do":"ReleaseStreamCredit, or defer Release."`)
	require.NotContains(t, page, "read the answer")
}

// TestStreamsThatEndMeanwhileAreNotShownAsOpen: streams end while the page is
// made.
func TestStreamsThatEndMeanwhileAreNotShownAsOpen(t *testing.T) {
	guard, client, _ := pair(t, &quic.Config{MaxIncomingStreams: 1 << 20})
	h := debugpage.Handler(guard)
	for range 10 {
		streams := make([]*quiclife.Stream, 5000/slow)
		for i := range streams {
			streams[i] = open(t, client)
		}
		var ends sync.WaitGroup
		ends.Go(func() {
			for _, s := range slices.Backward(streams) {
				s.Release()
			}
		})
		text := get(t, h, "?format=text").Body.String()
		ends.Wait()
		require.NotContains(t, text, "send half aborted, receive half aborted")
	}
}
