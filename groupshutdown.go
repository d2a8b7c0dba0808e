package quiclife

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Shutdown ends everything in the group. It closes the listeners and then calls
// the functions registered with BeforeShutdown. After that it shuts down all
// connections in parallel, as [Conn.Shutdown] does, with CloseCode and
// CloseReason. This includes connections that were not accepted yet. Shutdown
// blocks until all connections have ended and the sockets of ListenAddr are
// closed. When ctx is done, it cuts the streams that are still open.
//
// The error is one line that counts what was cut. Its Unwrap() []error returns
// the errors of the BeforeShutdown functions, then a [*ShutdownError] for each
// connection that was cut. A socket may stay open for 3 PTO to repeat a
// CONNECTION_CLOSE that was lost. If ctx is done during this time, the errors
// include one that names the socket and matches ctx.Err(), and the socket
// closes after Shutdown has returned.
//
// New connections can be made afterwards. Shutdown does not wait for
// connections that are just being dialed.
func (g *Guard) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return errNilContext
	}
	if ctx.Value(hookKey{g}) != nil {
		return ErrShutdown
	}
	listeners := g.beginShutdown()
	defer g.endShutdown()
	defer g.flushAll()
	g.closeAll(ctx, listeners)

	failed := groupError{errs: g.runHooks(ctx)}
	failed.hooks = len(failed.errs)
	var mu sync.Mutex // guards failed
	seen := make(map[*Conn]bool)
	for more := true; more; {
		var wg sync.WaitGroup
		more = false
		for _, c := range g.members() {
			if seen[c] {
				continue
			}
			seen[c], more = true, true
			wg.Go(func() {
				err := c.Shutdown(ctx, g.CloseCode, g.CloseReason)
				c.endIfClosed() // so that c leaves the group
				mu.Lock()
				defer mu.Unlock()
				failed.add(err)
			})
		}
		wg.Wait()
	}
	failed.conns = len(seen)
	for _, l := range listeners {
		if l.owned != nil {
			select {
			case <-l.owned.gone:
				continue
			default:
			}
			select {
			case <-l.owned.gone:
			case <-ctx.Done():
				failed.sockets++
				failed.errs = append(failed.errs, fmt.Errorf("quiclife: shutdown: the socket of %v is still open: %w", l.raw.Addr(), ctx.Err()))
			}
		}
	}
	if len(failed.errs) > 0 {
		return &failed
	}
	return nil
}

// BeforeShutdown registers a function for [Guard.Shutdown] to call. Shutdown
// calls f after it has closed the listeners, and waits for f to return before
// it shuts down the connections. It is for servers whose streams quiclife does
// not track, such as http3's Server.Shutdown. All registered functions are
// called in parallel, with the context of Shutdown. Shutdown waits for them
// until this context is done, so they should return then. If f returns an error
// or panics, that is among the errors of Shutdown.
//
// f is called once for each Shutdown. Calls of Shutdown that overlap share one
// call of f. If f is registered while the functions run, it is not called for
// that Shutdown. If f calls Shutdown of the same Guard with its ctx, that call
// returns [ErrShutdown].
func (g *Guard) BeforeShutdown(f func(ctx context.Context) error) {
	if f == nil {
		panic("quiclife: BeforeShutdown of a nil function")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hooks = append(g.hooks, f)
}

// hookKey is a key in the context of a hook, which is a function registered
// with BeforeShutdown.
type hookKey struct{ guard *Guard }

// A hookRun is one run of the hooks. Calls of Shutdown that overlap share it.
type hookRun struct {
	done chan struct{}
	errs []error // valid once done is closed
}

// runHooks calls the hooks and waits for them.
func (g *Guard) runHooks(ctx context.Context) []error {
	g.mu.Lock()
	run := g.hooking
	if run == nil {
		if len(g.hooks) == 0 {
			g.mu.Unlock()
			return nil
		}
		run = &hookRun{done: make(chan struct{})}
		g.hooking = run
		go g.callHooks(ctx, run, slices.Clone(g.hooks))
	}
	g.mu.Unlock()
	within(ctx, func() { <-run.done })
	select {
	case <-run.done:
		return run.errs
	default:
		return []error{fmt.Errorf("quiclife: shutdown: a BeforeShutdown function has not returned: %w", ctx.Err())}
	}
}

func (g *Guard) callHooks(ctx context.Context, run *hookRun, hooks []func(context.Context) error) {
	ctx = context.WithValue(ctx, hookKey{g}, true)
	errs := make([]error, len(hooks))
	var all sync.WaitGroup
	for i, f := range hooks {
		errs[i] = errHookExited
		all.Go(func() { errs[i] = callHook(ctx, f) })
	}
	all.Wait()
	// Clipped because each Shutdown appends errors of its own.
	run.errs = slices.Clip(slices.DeleteFunc(errs, func(err error) bool { return err == nil }))
	g.mu.Lock()
	g.hooking = nil
	g.mu.Unlock()
	close(run.done)
}

// errHookExited is the error of a hook that called runtime.Goexit.
var errHookExited = errors.New("quiclife: shutdown: a BeforeShutdown function called runtime.Goexit")

func callHook(ctx context.Context, f func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("quiclife: shutdown: a BeforeShutdown function panicked: %v", v)
		}
	}()
	if err := f(ctx); err != nil { // http3 returns the error of ctx, which does not say where it comes from
		return fmt.Errorf("quiclife: shutdown: a BeforeShutdown function failed: %w", err)
	}
	return nil
}

// beginShutdown counts a call of Shutdown, and returns the listeners of the
// group.
func (g *Guard) beginShutdown() (listeners []*listener) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shutdowns++; g.shutdowns == 1 {
		g.shutDown = make(chan struct{})
	}
	for l := range g.listeners {
		listeners = append(listeners, l)
	}
	return listeners
}

func (g *Guard) endShutdown() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shutdowns--; g.shutdowns == 0 {
		close(g.shutDown)
	}
}

// awaitShutdown is called for the connections of a closed listener. If a
// Shutdown of the group is in progress, it leaves them to that: hooks come
// first, and Shutdown may have more time. It returns when Shutdown has
// returned, or done or until is closed.
func (g *Guard) awaitShutdown(done, until <-chan struct{}) {
	g.mu.Lock()
	running, ended := g.shutdowns > 0, g.shutDown
	g.mu.Unlock()
	if !running {
		return
	}
	select {
	case <-ended:
	case <-done:
	case <-until:
	}
}

// closeAll closes listeners. It waits until the connections that were queued in
// them are members of the group, or ctx is done.
func (g *Guard) closeAll(ctx context.Context, listeners []*listener) {
	var wg sync.WaitGroup
	for _, l := range listeners {
		wg.Go(func() {
			l.close() // waits for handshakes, and so perhaps for a callback of a tls.Config
			for {     // take the connections that nobody accepted; this no longer blocks
				if _, err := l.accept(context.Background()); err != nil {
					break
				}
			}
			l.awaitAccepts()
		})
	}
	within(ctx, wg.Wait)
}

// A groupError is the error of Guard.Shutdown.
type groupError struct {
	conns, streams, hooks, sockets int
	errs                           []error // of the hooks, then of the connections, then of the sockets
}

func (e *groupError) add(err error) {
	if err == nil {
		return
	}
	e.errs = append(e.errs, err)
	if cut, ok := errors.AsType[*ShutdownError](err); ok {
		e.streams += len(cut.Streams)
	}
}

func (e *groupError) Error() string {
	if len(e.errs) == 1 {
		return e.errs[0].Error()
	}
	s := fmt.Sprintf("quiclife: shutdown: %d of %d connections cut, with %s; data may not have arrived",
		len(e.errs)-e.hooks-e.sockets, e.conns, counted(e.streams, "open stream"))
	if e.hooks > 0 {
		s += "; " + counted(e.hooks, "BeforeShutdown function") + " failed"
	}
	if e.sockets > 0 {
		s += "; " + counted(e.sockets, "socket") + " not closed in time"
	}
	return s
}

func (e *groupError) Unwrap() []error { return e.errs }
