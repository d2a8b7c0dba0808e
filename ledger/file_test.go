package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"
	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
	"github.com/quiclife/quiclife/ledger"
)

// A qlogBuffer is a qlog file in memory.
type qlogBuffer struct {
	bytes.Buffer
	closed chan struct{}
}

func (b *qlogBuffer) Close() error { close(b.closed); return nil }

// toQlog returns conf with a ledger and a qlog writer. The writer writes to b.
func toQlog(conf quic.Config, b *qlogBuffer) *quic.Config {
	b.closed = make(chan struct{})
	conf.Tracer = ledger.New(ledger.Options{}).Tracer(func(_ context.Context, client bool, id quic.ConnectionID) qlogwriter.Trace {
		seq := qlogwriter.NewConnectionFileSeq(b, client, id)
		go seq.Run()
		return seq
	})
	return &conf
}

// withoutTimes returns the streams of c without everything that depends on the
// time.
func withoutTimes(c *ledger.Conn) (all []ledger.Stream) {
	for s := range c.Streams() {
		s.Opened, s.Complete, s.Since, s.KnownHeld = time.Time{}, time.Time{}, time.Time{}, time.Time{}
		s.Proof, _, _ = strings.Cut(s.Proof, " It still held ") // the rest contains a duration
		all = append(all, s)
	}
	return all
}

func reportWithoutTimes(c *ledger.Conn) ledger.Report {
	r := c.Report()
	r.Began, r.Ended, r.Reason = time.Time{}, time.Time{}, ""
	return r
}

// A file says the same as the ledger that saw the connection live.
func TestFilesSayWhatTheLiveLedgerSays(t *testing.T) {
	for i, d := range deals(100, 11) {
		if testing.Short() && i > 0 || !full && i%5 != 0 {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			network := lossy(uint64(i), 0.05, true)
			drop, on := network.Drop, new(atomic.Bool)
			network.Drop = func(p simnet.Packet) bool { return on.Load() && drop(p) }
			var clientFile, serverFile qlogBuffer
			c, s := network.Pair(t, toQlog(matrixConf, &clientFile), toQlog(matrixConf, &serverFile))
			on.Store(true)
			client, server := end{c, ledger.Of(c)}, end{s, ledger.Of(s)}
			d.play(t, client, server, func() { time.Sleep(5 * time.Minute); synctest.Wait() }, &unknowns{})
			on.Store(false)
			client.CloseWithError(7, "done")
			<-server.Context().Done()
			<-clientFile.closed
			<-serverFile.closed
			for file, live := range map[*qlogBuffer]*ledger.Conn{&clientFile: client.ledger, &serverFile: server.ledger} {
				read, err := ledger.Read(bytes.NewReader(file.Bytes()), nil)
				require.NoError(t, err)
				require.Len(t, read, 1)
				require.Equal(t, reportWithoutTimes(live), reportWithoutTimes(read[0]))
				require.Equal(t, live.Report().Reason, read[0].Report().Reason)
				require.WithinDuration(t, live.Report().Ended, read[0].Report().Ended, time.Second)
				require.Equal(t, withoutTimes(live), withoutTimes(read[0]))
			}
		})
	}
}

// recorded returns the file of a server that holds three streams. One waits for
// the client, one waits for the server, and one is complete.
func recorded(t testing.TB) []byte {
	var file qlogBuffer
	run := func(t testing.TB) {
		client, server := quictest.Net{}.Pair(t, nil, toQlog(quic.Config{}, &file))
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
		client.CloseWithError(0, "")
		<-server.Context().Done()
		<-file.closed
	}
	synctest.Test(t.(*testing.T), func(t *testing.T) { run(t) })
	return file.Bytes()
}

func blames(c *ledger.Conn) (all []string) {
	for s := range c.Streams() {
		all = append(all, fmt.Sprint(s.ID, " ", s.Blame))
	}
	return all
}

func TestReadFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "server.sqlog")
	require.NoError(t, os.WriteFile(name, recorded(t), 0o600))
	conns, err := ledger.ReadFile(name)
	require.NoError(t, err)
	require.Len(t, conns, 1)
	r := conns[0].Report()
	require.EqualValues(t, 4, r.Incoming.Opened)
	require.EqualValues(t, 3, r.Incoming.Held)
	require.EqualValues(t, 1, r.Incoming.HeldComplete)
	require.True(t, r.Incoming.Exact, r.Incoming.Why)
	require.Empty(t, r.Missing)
	require.False(t, r.Client)
	require.NotEmpty(t, r.ID)
	require.Equal(t, "1.0.0.1:1000", r.Remote)
	require.Equal(t, []string{"4 peer-app", "8 our-app", "12 our-app"}, blames(conns[0]))

	_, err = ledger.ReadFile(name + "x")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A file may end in the middle of a record.
func TestFileThatIsCutShortSaysSo(t *testing.T) {
	file := recorded(t)
	whole, err := ledger.Read(bytes.NewReader(file), nil)
	require.NoError(t, err)
	firstRecord := bytes.IndexByte(file, '\n')
	for n := 0; n < len(file); n += 1 + len(file)/100 {
		conns, err := ledger.Read(bytes.NewReader(file[:n]), nil)
		if n < firstRecord {
			require.ErrorIs(t, err, ledger.ErrNotQlog, "%d bytes", n)
			continue
		}
		require.NoError(t, err)
		r := conns[0].Report()
		require.LessOrEqual(t, r.Incoming.Opened, whole[0].Report().Incoming.Opened)
		between := file[n-1] == '\n' || file[n] == '\n' || file[n-1] == 0x1e
		require.Equal(t, !between, strings.Contains(r.Missing, "the file ends in the middle of a record"), "%d bytes: %q", n, r.Missing)
	}
}

func TestRecordsThatCannotBeReadMakeCountsInexact(t *testing.T) {
	records := bytes.SplitAfter(recorded(t), []byte("\n"))
	i := slices.IndexFunc(records, func(r []byte) bool { return bytes.Contains(r, []byte(`"frame_type":"max_streams"`)) })
	for _, broken := range []string{"\x1e{\n", "\x1e[]\n", "\x1e" + `{"time":1,"name":"transport:packet_sent","data":{"frames":[{"frame_type":"stream","stream_id":"x"}]}}` + "\n", "\x1e" + strings.Repeat("x", 5<<20) + "\n"} {
		changed := slices.Clone(records)
		changed[i] = []byte(broken)
		conns, err := ledger.Read(bytes.NewReader(bytes.Join(changed, nil)), nil)
		require.NoError(t, err)
		r := conns[0].Report()
		require.Equal(t, "1 record of the file could not be read", r.Missing, "%.40q", broken)
		require.False(t, r.Incoming.Exact)
	}
}

func TestUnknownEventsAreSkipped(t *testing.T) {
	records := bytes.SplitAfter(recorded(t), []byte("\n"))
	records = slices.Insert(records, 5, []byte("\x1e"+`{"time":1,"name":"security:future","data":7}`+"\n"), []byte("\x1e"+`{"time":1,"name":"nocolon"}`+"\n"))
	conns, err := ledger.Read(bytes.NewReader(bytes.Join(records, nil)), nil)
	require.NoError(t, err)
	require.Empty(t, conns[0].Report().Missing)
	require.Len(t, blames(conns[0]), 3)
}

// Other writers leave out the separator, write numbers as strings, and use other
// names for some fields.
func TestOtherWriters(t *testing.T) {
	file := `{"qlog_version":"0.3","qlog_format":"NDJSON","trace":{"vantage_point":{"type":"server"},"common_fields":{"ODCID":"abcd","time_format":"delta","reference_time":"946684800000"}}}
{"time":4,"name":"security:unknown"}
{"time":1,"name":"quic:parameters_set","data":{"owner":"local","initial_max_streams_bidi":"10","initial_max_data":100000,"initial_max_stream_data_bidi_remote":1000,"initial_max_stream_data_bidi_local":1000}}
{"time":1,"name":"quic:parameters_set","data":{"owner":"remote","initial_max_streams_bidi":0,"initial_max_data":100000,"initial_max_stream_data_bidi_remote":1000,"initial_max_stream_data_bidi_local":1000}}
{"time":"2.5","name":"quic:packet_received","data":{"header":{"packet_type":"1RTT","packet_number":"3"},"frames":[{"frame_type":"stream","stream_id":"8","offset":"0","raw":{"payload_length":7},"fin":true},{"frame_type":"stream","stream_id":12,"raw":{"payload_length":11}}]}}
{"time":1,"name":"quic:packet_sent","data":{"header":{"packet_type":"1RTT","packet_number":9},"frames":[{"frame_type":"stream","stream_id":8,"offset":0,"length":3,"fin":true},{"frame_type":"padding","length":5}]}}
{"time":1,"name":"quic:packet_received","data":{"header":{"packet_type":"1RTT","packet_number":4},"frames":[{"frame_type":"ack","acked_ranges":[["9","9"],[2]]}]}}
{"time":1,"name":"quic:packet_sent","data":{"header":{"packet_type":"1RTT","packet_number":10},"frames":[{"frame_type":"max_streams","stream_type":"bidirectional","maximum":13}]}}
`
	conns, err := ledger.Read(strings.NewReader(file), nil)
	require.NoError(t, err)
	require.Len(t, conns, 1)
	r := conns[0].Report()
	require.Equal(t, "abcd", r.ID)
	require.EqualValues(t, 4, r.Incoming.Opened)
	require.EqualValues(t, 3, r.Incoming.LetGo)
	for s := range conns[0].Streams() {
		if s.ID == 12 {
			require.EqualValues(t, 11, s.Receive.Bytes)
		}
	}
	require.False(t, r.Incoming.Exact, "3 slots were given back at once, and 1 stream has ended")
	require.Equal(t, int64(946684800000+4+1), r.Began.UnixMilli())
}

func TestWhatIsNotQlogIsAnError(t *testing.T) {
	for _, file := range []string{
		"", "\n\n", "\x1e", "hello", "{}", `{"a":1}`, "\x1e{}\n", "[1,2]", "\x00\x00", strings.Repeat("x", 9<<20),
		`{"time":1,"name":"transport:packet_sent","data":{}}`,
		`{"qlog_version":"0.3","traces":[{"events":[]}]}`,
		`{"qlog_version":"0.3","trace":{"vantage_point":{"type":"network"}}}`,
	} {
		_, err := ledger.Read(strings.NewReader(file), nil)
		require.ErrorIs(t, err, ledger.ErrNotQlog, "%.60q", file)
	}
	_, err := ledger.Read(io.MultiReader(strings.NewReader("\x1e{"), &failingReader{}), nil)
	require.ErrorIs(t, err, errRead)
}

var errRead = errors.New("read")

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errRead }

// each sees the connection as it was at each event, and may stop the reading.
func TestEachSeesEveryMoment(t *testing.T) {
	file := recorded(t)
	var opened, held []int64
	last := time.Time{}
	_, err := ledger.Read(bytes.NewReader(file), func(c *ledger.Conn, at time.Time) error {
		require.False(t, at.Before(last))
		last = at
		r := c.Report()
		opened, held = append(opened, r.Incoming.Opened), append(held, r.Incoming.Held)
		return nil
	})
	require.NoError(t, err)
	require.True(t, slices.IsSorted(opened))
	require.Equal(t, []int64{0, 1, 2, 3, 4}, slices.Compact(opened))
	require.Equal(t, []int64{0, 1, 0, 1, 2, 3}, slices.Compact(held))

	stop := errors.New("enough")
	_, err = ledger.Read(bytes.NewReader(file), func(*ledger.Conn, time.Time) error { return stop })
	require.Equal(t, stop, err)
}

func TestSeveralConnectionsInOneFile(t *testing.T) {
	file := recorded(t)
	conns, err := ledger.Read(io.MultiReader(bytes.NewReader(file), bytes.NewReader(file)), nil)
	require.NoError(t, err)
	require.Len(t, conns, 2)
	require.Equal(t, withoutTimes(conns[0]), withoutTimes(conns[1]))

	// Events may name their connection.
	var b strings.Builder
	b.WriteString(`{"qlog_version":"0.3","trace":{"vantage_point":{"type":"client"}}}` + "\n")
	for i := range 2000 {
		fmt.Fprintf(&b, `{"time":1,"group_id":"%d","name":"transport:packet_sent","data":{"header":{"packet_type":"1RTT"},"frames":[{"frame_type":"stream","stream_id":0,"length":1}]}}`+"\n", i)
	}
	conns, err = ledger.Read(strings.NewReader(b.String()), nil)
	require.NoError(t, err)
	require.Len(t, conns, 1024)
	require.Contains(t, conns[0].Report().Missing, "more than 1024 connections")

	// They may also name the connection of the header.
	named := strings.Replace(b.String(), `"vantage_point":{"type":"client"}`, `"vantage_point":{"type":"client"},"common_fields":{"group_id":"7"}`, 1)
	named, _, _ = strings.Cut(named, `{"time":1,"group_id":"8"`)
	conns, err = ledger.Read(strings.NewReader(named), nil)
	require.NoError(t, err)
	require.Len(t, conns, 8)
	require.Equal(t, "7", conns[0].Report().ID)
}

// Names may be as long as a record, and a file may have many.
func TestLongNamesAreNotKept(t *testing.T) {
	var b bytes.Buffer
	long := strings.Repeat("x", 1<<20)
	b.WriteString(`{"qlog_version":"0.3","trace":{"vantage_point":{"type":"client"}}}` + "\n")
	for i := range 16 {
		fmt.Fprintf(&b, `{"time":1,"group_id":"%d%s","name":"http3:stream_type_set","data":{"stream_id":%d,"stream_type":"%s"}}`+"\n", i, long, 4*i, long)
		fmt.Fprintf(&b, `{"time":1,"group_id":"%d%s","name":"transport:connection_closed","data":{"trigger":"%s"}}`+"\n", i, long, long)
		fmt.Fprintf(&b, `{"time":1,"group_id":"%d%s","name":"http3:stream_type_set","data":{"stream_id":%d,"stream_type":"%s"}}`+"\n", i, long, 4*i, long)
	}
	before := quictest.HeapAlloc()
	conns, err := ledger.Read(bytes.NewReader(b.Bytes()), nil)
	require.NoError(t, err)
	require.Len(t, conns, 17)
	after := quictest.HeapAlloc()
	require.Less(t, int64(after)-int64(before), int64(1<<20))
	runtime.KeepAlive(conns)
	runtime.KeepAlive(&b)
}

// A record of frames of a few bytes takes far more memory than its length.
func TestRecordOfManySmallPartsIsNotDecoded(t *testing.T) {
	header := `{"qlog_version":"0.3","trace":{"vantage_point":{"type":"client"}}}` + "\n"
	for _, part := range []string{`{},`, `{"acked_ranges":[` + strings.Repeat("[],", 1000) + `[]]},`, `{"headers":[` + strings.Repeat("{},", 1000) + `{}]},`} {
		file := header + `{"time":1,"name":"x:packet_sent","data":{"header":{"packet_type":"1RTT"},"frames":[` + strings.Repeat(part, 4_000_000/len(part)) + `{}]}}` + "\n"
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		conns, err := ledger.Read(strings.NewReader(file), nil)
		runtime.ReadMemStats(&after)
		require.NoError(t, err)
		require.Contains(t, conns[0].Report().Missing, "1 record of the file could not be read")
		require.Less(t, int64(after.TotalAlloc-before.TotalAlloc), int64(32<<20), "%.40s", part)
	}
}

// FuzzRead reads any input, and calls every method on what it gets.
func FuzzRead(f *testing.F) {
	f.Add([]byte("\x1e" + `{"file_schema":"urn:ietf:params:qlog:file:sequential","title":"quic-go qlog","trace":{"vantage_point":{"type":"client"},"common_fields":{"group_id":"00","reference_time":{"wall_clock_time":"2000-01-01T00:00:00Z"}}}}` + "\n" +
		"\x1e" + `{"time":1,"name":"transport:parameters_set","data":{"initiator":"remote","initial_max_streams_bidi":3,"initial_max_data":9,"initial_max_stream_data_bidi_remote":9}}` + "\n" +
		"\x1e" + `{"time":2,"name":"transport:packet_sent","data":{"header":{"packet_type":"1RTT","packet_number":1},"frames":[{"frame_type":"stream","stream_id":4,"offset":0,"length":9,"fin":true},{"frame_type":"reset_stream_at","stream_id":0,"final_size":5,"reliable_size":3,"error_code":1}]}}` + "\n" +
		"\x1e" + `{"time":3,"name":"transport:packet_received","data":{"header":{"packet_type":"1RTT","packet_number":1},"frames":[{"frame_type":"ack","acked_ranges":[[0,1]]},{"frame_type":"max_streams","stream_type":"bidirectional","maximum":4}]}}` + "\n"))
	f.Add([]byte(`{"qlog_version":"0.3","trace":{"vantage_point":{"type":"server"}}}` + "\n" + `{"time":1,"name":"x:packet_received","data":{"header":{"packet_type":"0RTT"},"frames":[{"frame_type":"stream","stream_id":4611686018427387900,"length":1}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		conns, err := ledger.Read(bytes.NewReader(b), nil)
		if err != nil {
			require.Empty(t, conns)
			return
		}
		for _, c := range conns {
			r := c.Report()
			for _, n := range counts(r) {
				require.GreaterOrEqual(t, n.Held, int64(0))
				require.GreaterOrEqual(t, n.Held, n.HeldComplete)
				require.GreaterOrEqual(t, n.Opened, n.Held)
				if n.Exact {
					require.Equal(t, n.Opened, n.LetGo+n.Held)
				}
			}
			for s := range c.Streams() {
				require.NotEmpty(t, s.Proof)
				require.LessOrEqual(t, s.ID, s.Last)
				require.Positive(t, s.Count)
			}
		}
	})
}

// BenchmarkRead reads the file of a server that has received 8 MiB.
func BenchmarkRead(b *testing.B) {
	var file qlogBuffer
	client, server := quictest.Loopback(b, nil, toQlog(quic.Config{}, &file))
	s, err := client.OpenUniStream()
	require.NoError(b, err)
	go func() {
		s.Write(make([]byte, 8<<20))
		s.Close()
	}()
	in, err := server.AcceptUniStream(b.Context())
	require.NoError(b, err)
	_, err = io.Copy(io.Discard, in)
	require.NoError(b, err)
	server.CloseWithError(0, "")
	<-file.closed
	b.SetBytes(int64(file.Len()))
	b.ReportAllocs()
	for b.Loop() {
		_, err := ledger.Read(bytes.NewReader(file.Bytes()), nil)
		require.NoError(b, err)
	}
}
