package quiclife_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// TestStreamsTellWhatIsOpen: the state of each half, the bytes, and who opened
// the stream.
func TestStreamsTellWhatIsOpen(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		start := time.Now()
		client, server := e.stream(t)
		time.Sleep(time.Second)
		uni, err := e.client.OpenUniStream()
		require.NoError(t, err)
		write(t, uni, "abc")
		r, err := e.server.AcceptUniStream(t.Context())
		require.NoError(t, err)
		client.Close()
		write(t, server, "12345")
		expect(t, client, "123")

		infos := func(c *quiclife.Conn) (all []quiclife.StreamInfo) {
			for info := range c.Streams() {
				require.Equal(t, time.Since(info.Opened), info.Age)
				info.Age = 0
				info.Opened = info.Opened.Truncate(time.Second)
				all = append(all, info)
			}
			return all
		}
		require.Equal(t, []quiclife.StreamInfo{
			{ID: client.StreamID(), Opened: start.Truncate(time.Second), Send: quiclife.HalfFinished, Receive: quiclife.HalfOpen, BytesWritten: 1, BytesRead: 3},
			{ID: uni.StreamID(), Unidirectional: true, Opened: start.Add(time.Second).Truncate(time.Second), Send: quiclife.HalfOpen, BytesWritten: 3},
		}, infos(e.client))
		require.Equal(t, []quiclife.StreamInfo{
			{ID: server.StreamID(), Incoming: true, Opened: start.Truncate(time.Second), Send: quiclife.HalfOpen, Receive: quiclife.HalfOpen, BytesWritten: 5, BytesRead: 1},
			{ID: r.StreamID(), Incoming: true, Unidirectional: true, Opened: start.Add(time.Second).Truncate(time.Second), Receive: quiclife.HalfOpen},
		}, infos(e.server))
		require.EqualValues(t, 2, e.client.Stats().Open())
		require.Regexp(t, `^stream \d+ \(opened by us \d.*s ago, send finished, receive open, 1 bytes written, 3 read\)$`, fmt.Sprint(client.Info()))
		require.Contains(t, fmt.Sprint(server.Info()), "opened by the peer")
		info := client.Info()
		said := fmt.Sprint(info)
		time.Sleep(5 * time.Second)
		require.Equal(t, said, fmt.Sprint(info), "a snapshot has changed, as in an error that is printed later")
		for range e.client.Streams() {
			break
		}
		// A stream may be ended in the loop.
		for range e.client.Streams() {
			client.Release()
			uni.Release()
		}
		e.requireNothingLeftOf(t, server, r)
		require.Empty(t, infos(e.client))
		require.EqualValues(t, 1, e.client.Stats().Outgoing.Released)
	})
}

// TestStreamsStopsAtBreak: otherwise it would panic.
func TestStreamsStopsAtBreak(t *testing.T) {
	t.Parallel()
	setup{}.in(t, func(t *testing.T, e ends) {
		for range 3 {
			s, err := e.client.OpenStream()
			require.NoError(t, err)
			keep(t, s)
		}
		n := 0
		for range e.client.Streams() {
			n++
			break
		}
		require.Equal(t, 1, n)
	})
}

// TestHalfStatePrintsWords: in messages and logs.
func TestHalfStatePrintsWords(t *testing.T) {
	var names []string
	for h := range 8 {
		names = append(names, fmt.Sprint(quiclife.HalfState(h)))
	}
	require.Equal(t, "absent open finished aborted ending detached invalid invalid", strings.Join(names, " "))
}

// TestStreamInfoPrintsWhatMatters: who opened the stream, when and where, and
// whether it was dropped.
func TestStreamInfoPrintsWhatMatters(t *testing.T) {
	info := quiclife.StreamInfo{ID: 5, Incoming: true, Age: time.Second, Send: quiclife.HalfAbsent, Receive: quiclife.HalfOpen, BytesRead: 3,
		Dropped: true, Stack: "main.handle main.go:7\nmain.main main.go:3\n"}
	require.Equal(t, "stream 5 (opened by the peer 1s ago at main.handle main.go:7, dropped, send absent, receive open, 0 bytes written, 3 read)", info.String())
}
