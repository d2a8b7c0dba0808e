package quiclife

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// TestAllAcceptsAreAwaited: each may have a connection that is not a member of
// the group yet. Until they have returned, the listener stays in the group,
// even after close.
func TestAllAcceptsAreAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Guard{}
		l := g.listening(&listener{guard: g, gate: &gate{}})
		l.awaitAccepts() // returns at once: there is no call of accept
		l.accepting(1)
		l.accepting(1)
		l.leave()
		done := make(chan struct{})
		for range 2 {
			go func() {
				l.awaitAccepts()
				done <- struct{}{}
			}()
		}
		for n := range 2 {
			synctest.Wait()
			require.Len(t, g.listeners, 1, "a listener with Accepts under way was forgotten")
			select {
			case <-done:
				t.Fatalf("did not wait for an Accept, after the end of %d", n)
			default:
			}
			l.accepting(-1)
		}
		<-done
		<-done
		require.Empty(t, g.listeners)
	})
}
