package quiclife

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// TestGroupErrorCountsApart: connections, BeforeShutdown functions and sockets.
func TestGroupErrorCountsApart(t *testing.T) {
	failed := errors.New("failed")
	cut := func(n int) error { return &ShutdownError{Streams: make([]StreamInfo, n), Err: context.Canceled} }
	for _, c := range []struct {
		hooks, conns, sockets []error
		want                  string
	}{
		{nil, []error{failed}, nil, "failed"},
		{nil, []error{cut(2), cut(3)}, nil, "2 of 7 connections cut, with 5 open streams; data may not have arrived"},
		{[]error{failed, failed}, []error{cut(1)}, nil, "1 of 7 connections cut, with 1 open stream; data may not have arrived; 2 BeforeShutdown functions failed"},
		{[]error{failed}, []error{cut(1), nil}, []error{failed}, "1 of 7 connections cut, with 1 open stream; data may not have arrived; 1 BeforeShutdown function failed; 1 socket not closed in time"},
	} {
		e := &groupError{errs: c.hooks, hooks: len(c.hooks), conns: 7, sockets: len(c.sockets)}
		for _, err := range c.conns {
			e.add(err)
		}
		e.errs = append(e.errs, c.sockets...)
		if c.want != "failed" {
			c.want = "quiclife: shutdown: " + c.want
		}
		require.EqualError(t, e, c.want)
	}
}

// TestListenerThatHasLeftStaysOut: it was closed with its transport while it
// was being made.
func TestListenerThatHasLeftStaysOut(t *testing.T) {
	g := &Guard{}
	for _, left := range []bool{false, true} {
		l := &listener{guard: g, left: left}
		require.Same(t, l, g.listening(l))
		_, member := g.listeners[l]
		require.Equal(t, !left, member, "a member of the group, has left: %v", left)
	}
}

// TestShutdownsThatOverlapAreAwaitedToTheLast: awaitShutdown returns when all
// have returned.
func TestShutdownsThatOverlapAreAwaitedToTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Guard{}
		g.awaitShutdown(nil, nil) // returns at once: there is no Shutdown
		for _, calls := range []int{1, 2} {
			for range calls {
				g.beginShutdown()
			}
			ended := make(chan struct{})
			go func() { g.awaitShutdown(nil, nil); close(ended) }()
			for n := range calls {
				synctest.Wait()
				select {
				case <-ended:
					t.Fatalf("did not wait for the last of %d, but for %d", calls, n)
				default:
				}
				g.endShutdown()
			}
			<-ended
		}
	})
}
