package quiclife_test

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// A program that stops its server may end right after, so no timer would write
// what is held back.
func TestStoppedServerWritesWhatWasHeldBack(t *testing.T) {
	for _, c := range []struct {
		name  string
		serve func(ctx context.Context, ln *quiclife.Listener, h quiclife.Handlers) error
		stop  func(t *testing.T, guard *quiclife.Guard, cancel func())
	}{
		{"Listener.Serve", func(ctx context.Context, ln *quiclife.Listener, h quiclife.Handlers) error {
			return ln.Serve(ctx, h)
		}, func(_ *testing.T, _ *quiclife.Guard, cancel func()) {
			cancel()
		}},
		{"Guard.Shutdown", func(ctx context.Context, ln *quiclife.Listener, h quiclife.Handlers) error {
			conn, err := ln.Accept(ctx)
			if err != nil {
				return err
			}
			return conn.Serve(ctx, h)
		}, func(t *testing.T, guard *quiclife.Guard, _ func()) {
			require.NoError(t, guard.Shutdown(t.Context()))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var log logged
				guard := &quiclife.Guard{Logger: log.logger()}
				ln, dial := listenInBubble(t, guard, 1)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				served := make(chan error, 1)
				go func() {
					served <- c.serve(ctx, ln, quiclife.Handlers{Stream: func(context.Context, *quiclife.Stream) error {
						return errors.New("no")
					}})
				}()
				client := dial()
				for range 5 {
					client.Do(t.Context(), func(s *quiclife.Stream) error {
						write(t, s, "x")
						_, err := io.ReadAll(s)
						return err
					})
				}
				lines, sum := sumOfCounts(log.String(), "handler failed")
				require.Equal(t, []int{1, 1}, []int{lines, sum}, "lines and their counts before the stop")
				c.stop(t, guard, cancel)
				require.Error(t, <-served)
				lines, sum = sumOfCounts(log.String(), "handler failed")
				require.Equal(t, []int{2, 5}, []int{lines, sum}, "lines and their counts after it")
			})
		})
	}
}

// A record is one line. Its opener leaves out the calls that are below every
// goroutine's first.
func TestOpenerInRecordHasNoCallsOfTheRuntime(t *testing.T) {
	var log logged
	setup{guard: &quiclife.Guard{Logger: log.logger(), CaptureStacks: true, AbandonGrace: -1}}.in(t, func(t *testing.T, e ends) {
		opened := make(chan error)
		go func() { opened <- openAndDrop(e.client) }()
		require.NoError(t, <-opened)
		collectAndLook(e.client)
	})
	require.Regexp(t, `opener="[^"]*quiclife_test\.openAndDrop [^"\\]*logs_test.go:\d+\\n[^"\\]* [^"\\]*logs_test.go:\d+" `, log.String())
}

func openAndDrop(c *quiclife.Conn) error {
	_, err := c.OpenStream()
	return err
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
