package leaktest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// TestReport: the most frequent kind comes first. Of each kind the oldest
// stream is described. Of each stack only the program's own calls are shown.
func TestReport(t *testing.T) {
	began := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	stream := func(id quiclife.StreamID, age time.Duration, stack string, send, receive quiclife.HalfState) quiclife.StreamInfo {
		return quiclife.StreamInfo{ID: id, Opened: began.Add(time.Minute - age), Age: age, Stack: stack, Send: send, Receive: receive, BytesWritten: 1}
	}
	const (
		fetch = "rpc.(*Client).open /src/rpc/client.go:10\nrpc.(*Client).Fetch /src/rpc/client.go:20\nrpc.fetchAll /src/rpc/all.go:30\n" +
			"rpc.TestFetch /src/rpc/client_test.go:40\nrpc.outermost /src/rpc/client_test.go:50\ntesting.tRunner /go/testing.go:60\n"
		do = "github.com/quiclife/quiclife.(*Conn).Do /src/do.go:10\nrpc.TestDo /src/rpc/do_test.go:70\n" +
			"internal/synctest.Run /go/synctest.go:80\nruntime.goexit /go/asm.s:90\n"
	)
	f := found{leaks: []leak{
		{why: held, info: stream(0, 30*time.Second, do, quiclife.HalfOpen, quiclife.HalfFinished)},
		{why: dropped, info: stream(4, 2*time.Second, fetch, quiclife.HalfFinished, quiclife.HalfOpen)},
		{why: dropped, info: stream(8, 3*time.Second, fetch, quiclife.HalfFinished, quiclife.HalfOpen)},
		{why: dropped, info: stream(12, time.Second, fetch, quiclife.HalfFinished, quiclife.HalfOpen)},
	}}
	require.Equal(t, `4 streams leaked, of 7 that were opened.

3 streams opened at
    rpc.(*Client).open /src/rpc/client.go:10
    rpc.(*Client).Fetch /src/rpc/client.go:20
    rpc.fetchAll /src/rpc/all.go:30
    rpc.TestFetch /src/rpc/client_test.go:40
  Dropped by the program: send half finished, receive half open.
  The oldest is stream 8, 3s old, with 1 byte written and 0 read.
  To do: read the answer to io.EOF, or defer Release. Close ends the send half only.

1 stream opened at
    rpc.TestDo /src/rpc/do_test.go:70
  Still held by the program: send half open, receive half finished.
  The oldest is stream 0, 30s old, with 1 byte written and 0 read.
  To do: Close when all is written, or defer Release.`, f.report(7))
}
