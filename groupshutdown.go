package quiclife

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Shutdown closes the listeners of the group, calls what BeforeShutdown has
// registered, and shuts down all of its connections side by side, as
// [Conn.Shutdown] does, with CloseCode and CloseReason; also those that were not
// accepted yet. When it returns, the sockets of ListenAddr are closed. Its error
// is one line that counts what was cut; its Unwrap() []error has the errors of
// what BeforeShutdown has registered, then that of each connection, a
// [*ShutdownError]. If ctx is done while a socket is left open for 3 PTO, to
// repeat a CONNECTION_CLOSE that was lost, there is also one that says so and
// matches ctx.Err(); the socket is then closed without Shutdown.
//
// New connections can be made afterwards. Connections that are being dialed
// are not waited for.
func (g *Guard) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return errNilContext
	}
	if ctx.Value(hookKey{g}) != nil {
		return ErrShutdown
	}
	listeners := g.beginShutdown()
	defer g.endShutdown()
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
				c.endIfClosed() // so that c is no member any more
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

// BeforeShutdown has [Guard.Shutdown] call f once it has closed the listeners,
// and wait for it before it shuts down the connections. It is for servers whose
// streams this package does not know: http3's Server.Shutdown, for one. All such
// functions are called side by side, with the context of Shutdown, which is what
// ends the wait for them; so they should return when it is done. What f returns
// is among the errors of Shutdown, and so is a panic.
//
// f is called for each Shutdown, and once for those that run at the same time.
// If it is registered while they run, it is not called for them. If it calls
// Shutdown of the same Guard with its ctx, that returns [ErrShutdown].
func (g *Guard) BeforeShutdown(f func(ctx context.Context) error) {
	if f == nil {
		panic("quiclife: BeforeShutdown of a nil func")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hooks = append(g.hooks, f)
}

// A hookKey is found among the values of a hook's context.
type hookKey struct{ guard *Guard }

// A hookRun is a run of the hooks. Calls of Shutdown that overlap share one.
type hookRun struct {
	done chan struct{}
	errs []error // once done
}

// runHooks calls what BeforeShutdown has registered, and waits for it.
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
		return []error{fmt.Errorf("quiclife: shutdown: a function of BeforeShutdown has not returned: %w", ctx.Err())}
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
	// Clipped, as each Shutdown appends errors of its own.
	run.errs = slices.Clip(slices.DeleteFunc(errs, func(err error) bool { return err == nil }))
	g.mu.Lock()
	g.hooking = nil
	g.mu.Unlock()
	close(run.done)
}

// errHookExited is the error of a hook that called runtime.Goexit.
var errHookExited = errors.New("quiclife: shutdown: a function of BeforeShutdown has ended its goroutine")

func callHook(ctx context.Context, f func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("quiclife: shutdown: a function of BeforeShutdown panicked: %v", v)
		}
	}()
	if err := f(ctx); err != nil { // http3's is that of ctx, which does not say where it is from
		return fmt.Errorf("quiclife: shutdown: a function of BeforeShutdown failed: %w", err)
	}
	return nil
}

// beginShutdown returns the listeners of the group.
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

// awaitShutdown leaves the connections of a listener that was closed to the
// Shutdown of the group that has closed it, if there is one: hooks come first,
// and it may have more time. It returns when that has, or one of the others is
// done.
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

// closeAll closes listeners, and waits until the connections that they had in
// store are members of the group, or ctx is done.
func (g *Guard) closeAll(ctx context.Context, listeners []*listener) {
	var wg sync.WaitGroup
	for _, l := range listeners {
		wg.Go(func() {
			l.close() // which waits for handshakes, so perhaps for a callback of a tls.Config
			for {     // those that nobody accepted; it does not block any more
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
	s := fmt.Sprintf("quiclife: shutdown: of %d connections %d ended with %d open streams cut, or with data that may not have arrived",
		e.conns, len(e.errs)-e.hooks-e.sockets, e.streams)
	if e.hooks > 0 {
		s += fmt.Sprintf("; %d functions of BeforeShutdown failed", e.hooks)
	}
	if e.sockets > 0 {
		s += fmt.Sprintf("; %d sockets are still open", e.sockets)
	}
	return s
}

func (e *groupError) Unwrap() []error { return e.errs }
