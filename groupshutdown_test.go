package quiclife_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

// TestBeforeShutdownComesBeforeConnections are shut down, side by side, and
// after listeners are closed.
func TestBeforeShutdownComesBeforeConnections(t *testing.T) {
	guard := &quiclife.Guard{}
	bubble(t, func(t *testing.T) {
		e := onTransports(t, &quiclife.Transport{Guard: guard}, nil)
		for range 2 {
			guard.BeforeShutdown(func(ctx context.Context) error {
				time.Sleep(1500 * time.Millisecond)
				select {
				case <-e.server.Draining():
					t.Error("the connection drains already")
				default:
				}
				return nil
			})
		}
		start := time.Now()
		require.NoError(t, guard.Shutdown(t.Context()))
		require.GreaterOrEqual(t, time.Since(start), 1500*time.Millisecond)
		require.Less(t, time.Since(start), 2500*time.Millisecond, "two hooks of 1.5 s, side by side")
		require.Error(t, e.server.Context().Err())
	})
}

// TestErrorsOfBeforeShutdown are among those of Shutdown, and a panic is one.
func TestErrorsOfBeforeShutdown(t *testing.T) {
	failure := errors.New("no")
	guard := &quiclife.Guard{}
	guard.BeforeShutdown(func(context.Context) error { return failure })
	require.EqualError(t, guard.Shutdown(t.Context()), "quiclife: shutdown: a function of BeforeShutdown failed: no", "an error that is alone should say where it is from")
	guard.BeforeShutdown(func(context.Context) error { panic("oops") })
	err := guard.Shutdown(t.Context())
	require.ErrorIs(t, err, failure)
	require.ErrorContains(t, err, "2 functions of BeforeShutdown failed")
	var all interface{ Unwrap() []error }
	require.ErrorAs(t, err, &all)
	require.Len(t, all.Unwrap(), 2)
	require.ErrorContains(t, errors.Join(all.Unwrap()...), "oops")
}

// TestBeforeShutdownIsWaitedForUnderTheContext of Shutdown.
func TestBeforeShutdownIsWaitedForUnderTheContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		guard := &quiclife.Guard{}
		release := make(chan struct{})
		guard.BeforeShutdown(func(context.Context) error { <-release; return nil })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := guard.Shutdown(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(start), 2*time.Second)
		close(release)
	})
}

// TestShutdownInBeforeShutdownDoesNotDeadlock, and what is registered there is
// for the next time.
func TestShutdownInBeforeShutdownDoesNotDeadlock(t *testing.T) {
	guard := &quiclife.Guard{}
	var inside error
	later := 0
	guard.BeforeShutdown(func(ctx context.Context) error {
		inside = guard.Shutdown(ctx)
		guard.BeforeShutdown(func(context.Context) error { later++; return nil })
		return nil
	})
	require.NoError(t, guard.Shutdown(t.Context()))
	require.Equal(t, quiclife.ErrShutdown, inside)
	require.Zero(t, later)
	require.NoError(t, guard.Shutdown(t.Context()))
	require.Equal(t, 1, later)
}

// TestConcurrentShutdownsShareBeforeShutdown: it is called once for both.
func TestConcurrentShutdownsShareBeforeShutdown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		guard := &quiclife.Guard{}
		calls := 0
		guard.BeforeShutdown(func(context.Context) error { calls++; time.Sleep(time.Second); return errors.New("no") })
		errs := make(chan error, 2)
		for range 2 {
			go func() { errs <- guard.Shutdown(t.Context()) }()
			synctest.Wait()
		}
		require.Error(t, <-errs)
		require.Error(t, <-errs)
		require.Equal(t, 1, calls)
	})
}

func TestBeforeShutdownOfNilPanics(t *testing.T) {
	require.PanicsWithValue(t, "quiclife: BeforeShutdown of a nil func", func() { new(quiclife.Guard).BeforeShutdown(nil) })
}
