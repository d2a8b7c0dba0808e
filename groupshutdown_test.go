package quiclife_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// TestBeforeShutdownComesBeforeConnections: the functions run in parallel,
// after the listeners are closed and before connections are shut down.
func TestBeforeShutdownComesBeforeConnections(t *testing.T) {
	guard := &quiclife.Guard{}
	bubble(t, func(t *testing.T) {
		e := onTransports(t, &quiclife.Transport{Guard: guard})
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

// TestErrorsOfBeforeShutdown: they are among those of Shutdown, and a panic is
// one of them.
func TestErrorsOfBeforeShutdown(t *testing.T) {
	failure := errors.New("no")
	guard := &quiclife.Guard{}
	guard.BeforeShutdown(func(context.Context) error { return failure })
	require.EqualError(t, guard.Shutdown(t.Context()), "quiclife: shutdown: a BeforeShutdown function failed: no", "an error that is alone should say where it is from")
	guard.BeforeShutdown(func(context.Context) error { panic("oops") })
	err := guard.Shutdown(t.Context())
	require.ErrorIs(t, err, failure)
	require.ErrorContains(t, err, "2 BeforeShutdown functions failed")
	var all interface{ Unwrap() []error }
	require.ErrorAs(t, err, &all)
	require.Len(t, all.Unwrap(), 2)
	require.ErrorContains(t, errors.Join(all.Unwrap()...), "oops")
}

// TestBeforeShutdownIsWaitedForUnderTheContext: that of Shutdown.
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

// TestShutdownInBeforeShutdownDoesNotDeadlock: a function that is registered
// there is called the next time.
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

// TestConcurrentShutdownsShareBeforeShutdown: the functions are called once for
// both.
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
	require.PanicsWithValue(t, "quiclife: BeforeShutdown of a nil function", func() { new(quiclife.Guard).BeforeShutdown(nil) })
}

// TestConcurrentShutdownsHaveErrorsOfTheirOwn: neither returns errors of the
// other.
func TestConcurrentShutdownsHaveErrorsOfTheirOwn(t *testing.T) {
	guard := &quiclife.Guard{}
	bubble(t, func(t *testing.T) {
		e := onTransports(t, &quiclife.Transport{Guard: guard})
		_, s := e.stream(t)
		keep(t, s)
		guard.BeforeShutdown(func(ctx context.Context) error { time.Sleep(time.Second); return nil })
		ctx1, cancel1 := context.WithTimeoutCause(t.Context(), 2*time.Second, nil)
		defer cancel1()
		ctx2, cancel2 := context.WithCancel(t.Context())
		defer cancel2()
		time.AfterFunc(2*time.Second, cancel2)
		errs := make([]error, 2)
		done := make(chan int, 2)
		go func() { errs[0] = guard.Shutdown(ctx1); done <- 0 }()
		go func() { errs[1] = guard.Shutdown(ctx2); done <- 1 }()
		<-done
		<-done
		a, ok := errors.AsType[*quiclife.ShutdownError](errs[0])
		require.True(t, ok)
		b, ok := errors.AsType[*quiclife.ShutdownError](errs[1])
		require.True(t, ok)
		require.NotSame(t, a, b, "%v / %v", errs[0], errs[1])
	})
}

// TestBeforeShutdownOfTwoGuardsThatShutEachOtherDown: there is no deadlock.
func TestBeforeShutdownOfTwoGuardsThatShutEachOtherDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := &quiclife.Guard{}, &quiclife.Guard{}
		ignore := func(err error) error {
			if err == quiclife.ErrShutdown {
				return nil
			}
			return err
		}
		a.BeforeShutdown(func(ctx context.Context) error { return ignore(b.Shutdown(ctx)) })
		b.BeforeShutdown(func(ctx context.Context) error { return ignore(a.Shutdown(ctx)) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, a.Shutdown(ctx))
	})
}

// TestBeforeShutdownThatEndsItsGoroutineHasFailed: Shutdown says so.
func TestBeforeShutdownThatEndsItsGoroutineHasFailed(t *testing.T) {
	guard := &quiclife.Guard{}
	guard.BeforeShutdown(func(ctx context.Context) error { runtime.Goexit(); return nil })
	require.Error(t, guard.Shutdown(t.Context()))
}

// TestGuardShutdownBesideServeHasItsOwnTime: it has five minutes, although the
// Listener.Serve whose listener it closes would have 30 s.
func TestGuardShutdownBesideServeHasItsOwnTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := listening(t, &quiclife.Guard{}, longConf, 1)
		served := make(chan error, 1)
		go func() {
			served <- l.ln.Serve(t.Context(), quiclife.Handlers{Stream: func(_ context.Context, s *quiclife.Stream) error {
				time.Sleep(time.Minute)
				_, err := s.Write([]byte("answer"))
				return err
			}})
		}()
		c := l.dial(t, 0, "question")
		got := make(chan string, 1)
		go func() { b, _ := io.ReadAll(c); c.Close(); got <- string(b) }()
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		err := l.guard.Shutdown(ctx)
		require.Equal(t, "answer", <-got)
		require.NoError(t, err)
		<-served
	})
}

// TestConnsDrainAfterBeforeShutdown: even those of a Serve or a NetListener
// whose listener was closed before.
func TestConnsDrainAfterBeforeShutdown(t *testing.T) {
	for name, use := range map[string]func(ln *quiclife.Listener){
		"Serve": func(ln *quiclife.Listener) {
			ln.Serve(context.Background(), quiclife.Handlers{Stream: func(context.Context, *quiclife.Stream) error { return nil }})
		},
		"NetListener": func(ln *quiclife.Listener) { ln.NetListener().Accept() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				l := listening(t, &quiclife.Guard{}, longConf, 1)
				go use(l.ln)
				settled()
				c := conns(l.guard)[0]
				l.guard.BeforeShutdown(func(context.Context) error {
					time.Sleep(5 * time.Second)
					select {
					case <-c.Draining():
						t.Error("the connection drains already")
					default:
					}
					return nil
				})
				require.NoError(t, l.guard.Shutdown(t.Context()))
			})
		})
	}
}

// TestGuardShutdownMakesRoomForConnections: even if the AfterFuncs of the old
// ones have not run yet.
func TestGuardShutdownMakesRoomForConnections(t *testing.T) {
	guard := &quiclife.Guard{}
	setup{guard: guard}.in(t, func(t *testing.T, e ends) {
		guard.MaxConns = 1
		e.server.CloseWithError(0, "")
		settled()
		rc, _ := quictest.Net{}.Pair(t, nil, nil)
		c := guard.Wrap(rc, nil)
		quiclife.EndUnnoticed(c)
		require.NoError(t, guard.Shutdown(t.Context()))
		require.NoError(t, quiclife.Admit(guard), "a place is taken by a connection that has ended")
	})
}
