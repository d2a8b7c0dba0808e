package quiclife_test

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// sumOfCounts adds up the counts of the records with msg.
func sumOfCounts(log, msg string) (lines, sum int) {
	count := regexp.MustCompile(`count=(\d+)`)
	for line := range strings.Lines(log) {
		if strings.Contains(line, msg) {
			lines++
			n, _ := strconv.Atoi(count.FindStringSubmatch(line)[1])
			sum += n
		}
	}
	return lines, sum
}

// A Guard may outlive its clock, that of a bubble, and the next clock may be
// behind.
func TestLogOfOneBubbleDoesNotSilenceTheNext(t *testing.T) {
	var log logged
	guard := &quiclife.Guard{Logger: log.logger(), AbandonGrace: -1}
	for _, start := range []time.Duration{0, 12 * time.Second, time.Second} {
		setup{guard: guard}.in(t, func(t *testing.T, e ends) {
			time.Sleep(start)
			for range 2 {
				drop(t, e.client, func(*quiclife.Stream) {})
			}
			collectAndLook(e.client)
		})
	}
	lines, sum := sumOfCounts(log.String(), "stream leaked")
	require.Equal(t, 3, lines, "one for each clock")
	require.Equal(t, 5, sum, "one is still held back")
}

// panicking is a slog.Handler that panics.
type panicking struct{ slog.Handler }

func (panicking) Enabled(context.Context, slog.Level) bool { return true }

func (panicking) Handle(context.Context, slog.Record) error { panic("handler") }

// OnLeak and the Logger run on our goroutines, at a time that a peer can
// choose.
func TestPanicsOfOnLeakAndLoggerAreContained(t *testing.T) {
	var log logged
	var told atomic.Int32
	for _, guard := range []*quiclife.Guard{
		{Logger: log.logger(), OnLeak: func(quiclife.Leak) { told.Add(1); panic("on leak") }},
		{Logger: slog.New(panicking{}), OnLeak: func(quiclife.Leak) { told.Add(1) }},
	} {
		guard.IdleTimeout = time.Second
		setup{guard: guard}.in(t, func(t *testing.T, e ends) {
			client, server := e.stream(t)
			drop(t, e.client, func(*quiclife.Stream) {})
			collectAndLook(e.client)
			time.Sleep(5 * time.Second) // the others are idle
			require.Zero(t, e.client.Stats().Open()+e.server.Stats().Open())
			runtime.KeepAlive(fmt.Sprint(client.Info(), server.Info()))
		})
	}
	require.GreaterOrEqual(t, told.Load(), int32(4), "calls of OnLeak")
	require.Contains(t, log.String(), "OnLeak panicked")
}

// A leaked stream is ended before it is reported.
func TestSlowLoggerDelaysNoReset(t *testing.T) {
	guard := &quiclife.Guard{OnLeak: func(quiclife.Leak) { time.Sleep(time.Minute) }, IdleTimeout: time.Second} // longer than the test
	setup{guard: guard}.in(t, func(t *testing.T, e ends) {
		for range 10 {
			client, _ := e.stream(t)
			defer runtime.KeepAlive(client)
		}
		time.Sleep(3 * time.Second)
		require.Zero(t, e.client.Stats().Open())
		time.Sleep(time.Hour) // until all are reported
	})
}

// The look for dropped streams goes on.
func TestSlowOnLeakDelaysNoOtherConnection(t *testing.T) {
	block := make(chan struct{})
	slow := setup{guard: &quiclife.Guard{OnLeak: func(quiclife.Leak) { <-block }}}.onLoopback(t)
	drop(t, slow.client, func(*quiclife.Stream) {})
	eventually(t, func() bool {
		runtime.GC()
		return slow.client.Stats().Open() == 0
	})
	var found leaks
	e := setup{guard: &quiclife.Guard{OnLeak: found.add}}.onLoopback(t)
	drop(t, e.client, func(*quiclife.Stream) {})
	eventually(t, func() bool {
		runtime.GC()
		return len(found.list()) == 1
	})
	close(block)
	slow.client.CloseWithError(0, "")
	e.client.CloseWithError(0, "")
}

func TestWithoutLoggerSlogsDefaultIsUsed(t *testing.T) {
	var log logged
	old := slog.Default()
	defer slog.SetDefault(old)
	slog.SetDefault(log.logger())
	bubble(t, func(t *testing.T) {
		rc, _ := quictest.Net{}.Pair(t, nil, nil)
		c := (&quiclife.Guard{}).Wrap(rc, nil)
		drop(t, c, func(*quiclife.Stream) {})
		collectAndLook(c)
	})
	require.Contains(t, log.String(), "stream leaked")
}
