package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
	"github.com/quiclife/quiclife/ledger"
)

// recorded returns the names of files that quic-go wrote for a client and a
// server. Three streams are held. One waits for the client, one waits for the
// server, and one is complete but was not read.
func recorded(t *testing.T) (client, server string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("QLOGDIR", dir)
	synctest.Test(t, func(t *testing.T) {
		conf := &quic.Config{MaxIncomingStreams: 5, MaxIdleTimeout: time.Hour, Tracer: qlog.DefaultConnectionTracer}
		client, server := quictest.Net{}.Pair(t, conf, conf)
		for i := range 4 {
			s, err := client.OpenStream()
			require.NoError(t, err)
			_, err = s.Write([]byte("request"))
			require.NoError(t, err)
			if i != 1 {
				require.NoError(t, s.Close())
			}
			a, err := server.AcceptStream(t.Context())
			require.NoError(t, err)
			if i != 2 {
				require.NoError(t, a.Close())
			}
			if i == 0 {
				_, err = io.ReadAll(a)
				require.NoError(t, err)
			}
			time.Sleep(5 * time.Second)
		}
		client.CloseWithError(7, "bye\x1b[2J")
		<-server.Context().Done()
	})
	names, err := filepath.Glob(filepath.Join(dir, "*.sqlog"))
	require.NoError(t, err)
	require.Len(t, names, 2)
	require.Contains(t, names[0], "client")
	return names[0], names[1]
}

// run returns what quicwho writes and its exit status.
func run(t *testing.T, in string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, err bytes.Buffer
	c := command{in: strings.NewReader(in), out: &out, err: &err, patience: time.Second}
	status = c.run(args)
	return out.String(), err.String(), status
}

func TestSummarySaysWhoHoldsStreams(t *testing.T) {
	client, server := recorded(t)
	for file, want := range map[string]struct{ end, line, stuck, forgotten string }{
		server: {"server", `incoming +4 +3 +5 +our-app 2, peer-app 1 +15s, `, `server +4 +incoming +15s +15s +peer-app`, `server +8 +incoming +10s +10s +our-app`},
		client: {"client", `outgoing +4 +3 +5 +our-app 1, peer-app 2 +15s, `, `client +4 +outgoing +15s +15s +our-app`, `client +8 +outgoing +10s +10s +peer-app`},
	} {
		out, stderr, status := run(t, "", file)
		require.Zero(t, status)
		require.Empty(t, stderr)
		require.Regexp(t, `(?m)^1 connection, 3 streams held: our-app \d, peer-app \d$`, out)
		require.Regexp(t, `(?m)^[0-9a-f]+(\.\.\.)? +`+want.end+` +1\.0\.0\.\d:\d+ +`+want.line, out)
		require.Contains(t, out, `application error 7 bye\x1b[2J`)
		require.Regexp(t, `(?m)`+want.stuck+`\n +It waits for .*FIN`, out)
		require.Regexp(t, `(?m)`+want.forgotten+`\n +It waits for `, out)
		require.Regexp(t, `(?m)12 +\w+ +5s +5s +\w+-app\n +It is complete on the wire`, out)
		require.NotContains(t, out, "missing")
		require.NotContains(t, out, "twice")
		require.LessOrEqual(t, strings.Count(out, "\n"), 24, "more than a screen:\n%s", out)
	}
}

func TestSeveralFilesAreReadOneAfterTheOther(t *testing.T) {
	client, server := recorded(t)
	text := func(name string) string {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		return string(b)
	}
	apart, _, status := run(t, "", client, server)
	require.Zero(t, status)
	require.Contains(t, apart, "2 connections, 6 streams held: our-app 3, peer-app 3\n1 connection from both ends, so its streams count twice: ")

	joined, _, status := run(t, text(client)+text(server), "-")
	require.Zero(t, status)
	require.Equal(t, apart, joined)
}

// TestJSONSaysWhatTheLedgerSays: with -json, for programs.
func TestJSONSaysWhatTheLedgerSays(t *testing.T) {
	_, server := recorded(t)
	out, _, status := run(t, "", "-json", server)
	require.Zero(t, status)
	require.Equal(t, 1, strings.Count(out, "\n"), "lines, one for each connection")
	var raw map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &raw))
	require.Equal(t, "server", raw["end"])
	require.Equal(t, server, raw["file"])
	require.Contains(t, raw["reason"], "bye\x1b[2J", "escaped, not changed")
	kind := raw["kinds"].([]any)[0].(map[string]any)
	require.Equal(t, "incoming", kind["kind"])
	require.EqualValues(t, 4, kind["opened"])
	require.EqualValues(t, 3, kind["held"])
	require.EqualValues(t, 1, kind["held_complete"])
	require.Equal(t, true, kind["exact"])
	require.Equal(t, map[string]any{"our-app": 2.0, "peer-app": 1.0}, kind["whose"])
	streams := raw["streams"].([]any)
	require.Len(t, streams, 3)
	require.Equal(t, "peer-app", streams[0].(map[string]any)["blame"])
	require.Equal(t, "finished", streams[1].(map[string]any)["receive"].(map[string]any)["state"])

	local := time.Local
	defer func() { time.Local = local }()
	time.Local = time.FixedZone("elsewhere", 3600)
	elsewhere, _, _ := run(t, "", "-json", server)
	require.Equal(t, out, elsewhere, "the same file in another time zone")
}

// hostile is a file whose strings attack a terminal: they clear the screen, set
// the title, reverse the text, and are not UTF-8.
func hostile() string {
	const evil = `\u001b[2J\u001b]0;owned\u0007\u009b31m\u202e\u2028\ud83d\ude00\udb40\udc01\r\n\tx`
	return `{"qlog_version":"0.3","trace":{"vantage_point":{"type":"server"},"common_fields":{"ODCID":"` + evil + `"}}}` + "\n" +
		`{"time":1,"name":"transport:connection_started","data":{"local":{"address_v4":{"ip":"` + evil + `","port":1}},"remote":{"address_v4":{"ip":"` + evil + `","port":1}}}}` + "\n" +
		`{"time":1,"name":"transport:parameters_set","data":{"initiator":"remote","initial_max_data":1000,"initial_max_stream_data_bidi_local":1000}}` + "\n" +
		`{"time":1,"name":"transport:parameters_set","data":{"initiator":"local","initial_max_streams_bidi":3,"initial_max_data":1000,"initial_max_stream_data_bidi_remote":1000}}` + "\n" +
		`{"time":2,"name":"transport:packet_received","data":{"header":{"packet_type":"1RTT","packet_number":1},"frames":[{"frame_type":"stream","stream_id":0,"offset":0,"length":9}]}}` + "\n" +
		`{"time":2,"name":"http3:frame_parsed","data":{"stream_id":0,"frame":{"frame_type":"headers","headers":[{"name":":method","value":"GET"},{"name":":path","value":"` + evil + "\xff" + `"}]}}}` + "\n" +
		`{"time":3,"name":"transport:connection_closed","data":{"initiator":"remote","application_error":"` + evil + `","reason":"` + evil + `"}}` + "\n"
}

func TestHostileStringsDoNothingToTheTerminal(t *testing.T) {
	picture := filepath.Join(t.TempDir(), "out.svg")
	evilName := filepath.Join(t.TempDir(), "\x1b[2J\u202e.sqlog")
	for _, args := range [][]string{{"-plot", picture, "-"}, {"-json", "-"}, {"-", evilName}} {
		out, stderr, _ := run(t, hostile(), args...)
		require.Contains(t, out+stderr, "owned", args)
		for _, r := range strings.ReplaceAll(out+stderr, "\n", "") {
			require.True(t, unicode.IsPrint(r), "%v: %q is in %q", args, r, out+stderr)
		}
		if args[0] == "-json" {
			var got map[string]any
			require.NoError(t, json.Unmarshal([]byte(out), &got))
			require.Equal(t, "\x1b[2J\x1b]0;owned\a\u009b31m\u202e\u2028😀\U000E0001\r\n\tx", got["id"])
		}
	}
	b, err := os.ReadFile(picture)
	require.NoError(t, err)
	require.NoError(t, isXML(b))
}

func isXML(b []byte) error {
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		if _, err := d.Token(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// TestCutFileSaysWhatIsMissing: it is not an error.
func TestCutFileSaysWhatIsMissing(t *testing.T) {
	_, server := recorded(t)
	b, err := os.ReadFile(server)
	require.NoError(t, err)
	out, stderr, status := run(t, string(b[:len(b)*2/3]), "-")
	require.Zero(t, status)
	require.Empty(t, stderr)
	require.Contains(t, out, "missing: the file ends in the middle of a record\n")
	require.Contains(t, out, "open at the end of the file")

	lines := bytes.SplitAfter(b, []byte("\n"))
	lines[len(lines)/2] = []byte("\x1e{\"time\":1,\"name\":\"transport:packet_sent\",\"data\":{nonsense}}\n")
	out, _, status = run(t, string(bytes.Join(lines, nil)), "-")
	require.Zero(t, status)
	require.Contains(t, out, "missing: 1 record of the file could not be read")
	require.Contains(t, out, "incoming, not exact: records of the file could not be read")
	require.Regexp(t, `incoming +\d +\d\? +5`, out)
}

// TestFilesThatCannotBeReadAreErrors: the other files are shown.
func TestFilesThatCannotBeReadAreErrors(t *testing.T) {
	_, server := recorded(t)
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.sqlog")
	for in, want := range map[string]string{
		"":                       "not a JSON-SEQ qlog file: it is empty",
		"hello":                  "not a JSON-SEQ qlog file",
		`{"traces":[]}`:          "it is one JSON object with all traces (.qlog), and not a sequence (.sqlog)",
		`{"time":1,"name":"x"}`:  "its first record is not the header of a trace",
		"\x00\x01\x02\x1b[2J":    "not a JSON-SEQ qlog file: it does not begin with a line of JSON",
		"\x1f\x8b\x08\x00":       "not a JSON-SEQ qlog file: it is compressed",
		"\x28\xb5\x2f\xfd":       "not a JSON-SEQ qlog file: it is compressed",
		`{"trace":{"title":""}}`: "its vantage point is",
	} {
		out, stderr, status := run(t, in, "-", server)
		require.Equal(t, 1, status)
		require.Regexp(t, `^quicwho: -: .*\n$`, stderr)
		require.Contains(t, stderr, want)
		require.Contains(t, out, "1 connection, 3 streams held")
	}
	out, stderr, status := run(t, "", missing)
	require.Equal(t, 1, status)
	require.Equal(t, "quicwho: "+missing+": "+fs.ErrNotExist.Error()+"\n", strings.ReplaceAll(stderr, "no such file or directory", fs.ErrNotExist.Error()))
	require.Empty(t, out)
	_, stderr, status = run(t, "", dir)
	require.Equal(t, 1, status)
	require.Contains(t, stderr, dir)
	_, stderr, status = run(t, "", "-plot", filepath.Join(dir, "no", "out.svg"), server)
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "out.svg")
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"-nonsense"}, {"-rows", "-1", "x"}} {
		out, stderr, status := run(t, "", args...)
		require.Equal(t, 1, status, args)
		require.Empty(t, out)
		require.Contains(t, stderr, "Usage: quicwho")
	}
	_, stderr, status := run(t, "", "-h")
	require.Zero(t, status)
	require.Contains(t, stderr, "exit status")
}

// full returns the file of a server that holds n streams.
func full(n int) string {
	var b strings.Builder
	b.WriteString(`{"qlog_version":"0.3","trace":{"vantage_point":{"type":"server"},"common_fields":{"ODCID":"ab"}}}` + "\n")
	fmt.Fprintf(&b, `{"time":1,"name":"transport:parameters_set","data":{"initiator":"local","initial_max_streams_bidi":%d,"initial_max_data":1000,"initial_max_stream_data_bidi_remote":1000}}`+"\n", n)
	b.WriteString(`{"time":1,"name":"transport:parameters_set","data":{"initiator":"remote","initial_max_data":1000,"initial_max_stream_data_bidi_local":1000}}` + "\n")
	for i := range n {
		fmt.Fprintf(&b, `{"time":%d,"name":"transport:packet_received","data":{"header":{"packet_type":"1RTT","packet_number":1},"frames":[{"frame_type":"stream","stream_id":%d,"offset":0,"length":9,"fin":true}]}}`+"\n", 10+i, 4*i)
	}
	return b.String()
}

// uni returns the file of a server with n complete unidirectional streams. letGo
// of them were let go of. One more stream is not complete, and opens the ten
// streams below it.
func uni(n, letGo int) string {
	var b strings.Builder
	b.WriteString(strings.Replace(full(0), `"initial_max_streams_bidi":0,`, `"initial_max_streams_uni":100,"initial_max_stream_data_uni":1000,`, 1))
	packet := func(at int, kind, frame string) {
		fmt.Fprintf(&b, `{"time":%d,"name":"transport:packet_%s","data":{"header":{"packet_type":"1RTT","packet_number":%d},"frames":[%s]}}`+"\n", at, kind, at, frame)
	}
	for i := range n {
		packet(10+i, "received", fmt.Sprintf(`{"frame_type":"stream","stream_id":%d,"offset":0,"length":9,"fin":true}`, 4*i+2))
	}
	for i := range letGo {
		packet(10+n+i, "sent", fmt.Sprintf(`{"frame_type":"max_streams","stream_type":"unidirectional","maximum":%d}`, 100+1+i))
	}
	packet(10000, "received", fmt.Sprintf(`{"frame_type":"stream","stream_id":%d,"offset":0,"length":9}`, 4*(n+10)+2))
	return b.String()
}

// TestStreamsThatAreNotToldApartAreCounted: complete streams if some of them were
// let go of, and ranges of streams without a frame.
func TestStreamsThatAreNotToldApartAreCounted(t *testing.T) {
	out, _, _ := run(t, uni(10, 4), "-")
	require.Contains(t, out, "1 connection, 17 streams held: peer-app 1, wire 10, complete 6\n")
	require.Contains(t, out, "complete: both ends are done with these streams on the wire")
	require.Regexp(t, `42\.\.78 \(10\) +incoming uni`, out)
	jump := strings.Replace(uni(10, 4), `"maximum":102`, `"maximum":101`, 1)
	out, _, _ = run(t, jump, "-")
	require.Contains(t, out, "1 connection, 17 streams held: peer-app 1, wire 10, unknown 6\n", "slots are given back several at a time")
	out, _, _ = run(t, uni(10, 0), "-")
	require.Contains(t, out, "1 connection, 21 streams held: peer-app 1, wire 10, unknown 10\n", "whether it gives slots back one by one is not known")
	require.NotContains(t, out, "complete: ")
}

func TestRowsAreLimitedAndCounted(t *testing.T) {
	out, _, status := run(t, full(3000), "-")
	require.Zero(t, status)
	require.Contains(t, out, "1 connection, 3,000 streams held: our-app 3,000\n")
	require.Contains(t, out, "and 2,990 streams more")
	out, _, _ = run(t, full(1000), "-rows", "0", "-")
	require.NotContains(t, out, "more")
	require.Equal(t, 1000, strings.Count(out, "It waits for"), out[:min(len(out), 2000)])

	several := strings.Repeat(full(2), 30)
	out, _, _ = run(t, several, "-")
	require.Contains(t, out, "30 connections, 60 streams held: our-app 60\n")
	require.Contains(t, out, "and 20 connections more, with 40 streams held")
}

func TestPlotShowsStreamsOverTime(t *testing.T) {
	client, server := recorded(t)
	picture := filepath.Join(t.TempDir(), "out.svg")
	_, stderr, status := run(t, "", "-plot", picture, client, server)
	require.Zero(t, status, stderr)
	b, err := os.ReadFile(picture)
	require.NoError(t, err)
	require.NoError(t, isXML(b))
	for _, text := range []string{"<svg", "incoming streams held, at the server of", "outgoing streams held, at the client of", "our application", "peer&#39;s application", "limit 5", "seconds from"} {
		require.Contains(t, string(b), text)
	}
	if keep := os.Getenv("QUICWHO_PLOT"); keep != "" {
		require.NoError(t, os.WriteFile(keep, b, 0o666))
	}
}

// TestPlotIsBounded: its size does not grow with the file. It still shows the
// peaks, and what was held at rest.
func TestPlotIsBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString(strings.Replace(full(1), `"initial_max_streams_bidi":1,`, `"initial_max_streams_uni":100,"initial_max_stream_data_uni":1000,`, 1))
	const day = 24 * 60 * 60 * 1000
	next := 0
	packet := func(at int, kind, frame string) {
		fmt.Fprintf(&b, `{"time":%d,"name":"transport:packet_%s","data":{"header":{"packet_type":"1RTT","packet_number":1},"frames":[%s]}}`+"\n", at, kind, frame)
	}
	for d := range 2000 { // a burst each day, after which no stream is left
		streams := 10
		if d == 777 {
			streams = 40
		}
		for range streams {
			packet(d*day, "received", fmt.Sprintf(`{"frame_type":"stream","stream_id":%d,"offset":0,"length":9,"fin":true}`, 4*next+2))
			next++
		}
		packet(d*day+10, "sent", fmt.Sprintf(`{"frame_type":"max_streams","stream_type":"unidirectional","maximum":%d}`, 100+next))
	}
	var s sampler
	conns, err := ledger.Read(strings.NewReader(b.String()), s.each)
	require.NoError(t, err)

	require.Less(t, len(s.conns[conns[0]].spells), mostSpells)
	var p plots
	p.add(&s, conns)
	panel := p.panels[0]
	require.EqualValues(t, 40, panel.highest, "the peak is not in the plot")
	for i := 1; i < len(panel.times); i += 2 {
		require.Zero(t, sumOf(panel.by[i]), "held at rest after %v s", panel.times[i])
	}
}

// TestProgressIsShownWhenItTakesLong: only on terminals.
func TestProgressIsShownWhenItTakesLong(t *testing.T) {
	long := filepath.Join(t.TempDir(), "long.sqlog")
	require.NoError(t, os.WriteFile(long, []byte(full(5000)), 0o666))
	for _, c := range []struct {
		terminal bool
		patience time.Duration
		shown    bool
	}{{true, 0, true}, {true, time.Hour, false}, {false, 0, false}} {
		for _, name := range []string{long, "-"} {
			var out, stderr bytes.Buffer
			quicwho := command{in: strings.NewReader(full(5000)), out: &out, err: &stderr, terminal: c.terminal, patience: c.patience}
			require.Zero(t, quicwho.run([]string{name}))
			require.Equal(t, c.shown, strings.Contains(stderr.String(), "reading"), "%+v: %q", c, stderr.String())
			require.Contains(t, out.String(), "1 connection")
		}
	}
}
