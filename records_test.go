package quiclife_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// TestManyLeaksWriteFewLines: and their counts add up.
func TestManyLeaksWriteFewLines(t *testing.T) {
	const each, batches = 100, 67
	var log logged
	guard := &quiclife.Guard{Logger: log.logger(), AbandonGrace: -1}
	conf := &quic.Config{MaxIncomingStreams: 1 << 20, MaxIdleTimeout: time.Hour}
	setup{clientConf: conf, serverConf: conf, guard: guard}.in(t, func(t *testing.T, e ends) {
		kinds := []func(*quiclife.Stream){
			func(s *quiclife.Stream) {},
			func(s *quiclife.Stream) { s.CancelRead(0) },
			func(s *quiclife.Stream) { s.CancelWrite(0) },
		}
		for range batches {
			for range each {
				for _, leak := range kinds {
					drop(t, e.client, leak)
				}
			}
			collectAndLook(e.client)
			time.Sleep(time.Second)
		}
		time.Sleep(30 * time.Second) // what was held back is written
		lines, sum := sumOfCounts(log.String(), "stream leaked")
		require.Equal(t, each*batches*len(kinds), sum, "leaks that the lines stand for")
		require.LessOrEqual(t, lines, 50)
		require.EqualValues(t, sum, guard.Stats().Leaks.Dropped)
		require.Contains(t, log.String(), "TestManyLeaksWriteFewLines", "an opener, sampled after the first leak")
		require.NotContains(t, log.String(), `\n" count`, "a line end after the last call")
		time.Sleep(time.Minute)
		drop(t, e.client, func(*quiclife.Stream) {})
		collectAndLook(e.client)
		after, _ := sumOfCounts(log.String(), "stream leaked")
		require.Equal(t, lines+1, after, "the first after a quiet time is written at once")
	})
}

// recordMessages are the messages of all records that the library can write.
func recordMessages(t *testing.T) (msgs []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	written := regexp.MustCompile(`recordKind\{|panicked\(|\bmsg\b.*=`)
	literal := regexp.MustCompile(`"quiclife: [^"]+"`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		for line := range strings.Lines(string(source)) {
			if written.MatchString(line) {
				for _, msg := range literal.FindAllString(line, -1) {
					msgs = append(msgs, strings.Trim(msg, `"`))
				}
			}
		}
	}
	slices.Sort(msgs)
	return slices.Compact(msgs)
}

// TestRecordsHaveOneTypePerKey: in all records of the library, a key always has
// the same JSON type, and no value is an object. The test also checks that it
// has seen all messages, so a new one needs a line here.
func TestRecordsHaveOneTypePerKey(t *testing.T) {
	var log logged
	logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))

	guard := &quiclife.Guard{Logger: logger, OnLeak: func(quiclife.Leak) { panic("oops") }, AbandonGrace: -1, MaxOutgoingStreams: 1, MaxConns: 3, CaptureStacks: true}
	setup{guard: guard, serverConf: &quic.Config{MaxIncomingStreams: 1}}.in(t, func(t *testing.T, e ends) {
		drop(t, e.client, func(s *quiclife.Stream) {})
		_, err := e.client.OpenStream() // at this side's own limit
		require.Error(t, err)
		collectAndLook(e.client) // a leak, and OnLeak panics
		settled()
	})
	bubble(t, func(t *testing.T) {
		guard := &quiclife.Guard{Logger: logger, MaxStreams: 1, MaxConns: 2, MaxWait: time.Second, DrainTimeout: time.Second}
		clients, stop := star(t, guard, nil, 1, quiclife.Handlers{
			Stream: func(ctx context.Context, s *quiclife.Stream) error {
				switch s.StreamID() {
				case 0:
					return errors.New("no")
				case 4:
					panic("oops")
				case 8:
					s.SetWriteDeadline(time.Now().Add(time.Second))
					s.Write(make([]byte, 2<<20)) // cut
					return nil
				}
				<-ctx.Done()
				return nil
			},
			UniStream: func(ctx context.Context, s *quiclife.ReceiveStream) error { return nil },
		})
		for range 5 {
			s, err := clients[0].OpenStream()
			require.NoError(t, err)
			write(t, s, "x")
			keep(t, s)
			time.Sleep(1500 * time.Millisecond)
		}
		stop()
	})
	for _, h := range []quiclife.Handlers{
		{Conn: func(context.Context, *quiclife.Conn) (context.Context, error) { return nil, errors.New("no") }},
		{Conn: func(context.Context, *quiclife.Conn) (context.Context, error) { panic("oops") }},
		{Stream: func(context.Context, *quiclife.Stream) error { return errors.New("no") },
			Error: func(*quiclife.Conn, quiclife.StreamInfo, error) { panic("oops") }},
	} {
		setup{guard: &quiclife.Guard{Logger: logger}}.in(t, func(t *testing.T, e ends) {
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			write(t, s, "x")
			go e.server.Serve(t.Context(), h)
			settled()
			s.Release()
		})
	}
	_, clientTLS := quictest.TLS()
	_, err := (&quiclife.Guard{Logger: logger, MaxHeap: 1}).DialAddr(t.Context(), "127.0.0.1:1", clientTLS, nil)
	require.Error(t, err)
	eventually(t, func() bool { return strings.Contains(log.String(), `"scope":"heap"`) })

	types, seen := make(map[string]string), make(map[string]bool)
	for line := range strings.Lines(log.String()) {
		var record map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &record), line)
		seen[record["msg"].(string)] = true
		for key, value := range record {
			is := fmt.Sprintf("%T", value)
			require.NotContains(t, is, "map", "%s in %s", key, line)
			if was, ok := types[key]; ok {
				require.Equal(t, was, is, "the type of %s in %s", key, line)
			}
			types[key] = is
		}
	}
	require.Equal(t, recordMessages(t), slices.Sorted(maps.Keys(seen)), "the records that this test has provoked")
}

// TestValuesLogAsAttributes: values that a program may log itself have
// attributes.
func TestValuesLogAsAttributes(t *testing.T) {
	var log logged
	info := quiclife.StreamInfo{ID: 4, Incoming: true, Send: quiclife.HalfOpen, Receive: quiclife.HalfFinished, Age: time.Second, BytesRead: 7}
	logger := slog.New(slog.NewTextHandler(&log, nil))
	logger.Info("x",
		"stream", info,
		"limit", &quiclife.LimitError{Scope: quiclife.LimitOutgoing, Open: 2, Limit: 2, Oldest: info},
		"shutdown", &quiclife.ShutdownError{Streams: []quiclife.StreamInfo{info}, Err: context.Canceled},
		"reason", quiclife.LeakUnread)
	for _, want := range []string{
		"stream.stream=4", "stream.send=open", "stream.receive=finished", "stream.age=1s", "stream.read=7",
		"limit.scope=outgoing", "limit.open=2", "limit.limit=2", "limit.oldest.stream=4",
		"shutdown.cut=1", "shutdown.first.stream=4", `shutdown.error="context canceled"`,
		"reason=unread",
	} {
		require.Contains(t, log.String(), want)
	}
	text, err := json.Marshal(map[string]any{"reason": quiclife.LeakIdle, "scope": quiclife.LimitConns, "half": quiclife.HalfAborted})
	require.NoError(t, err)
	require.JSONEq(t, `{"reason":"idle","scope":"conns","half":"aborted"}`, string(text))
}
