package quiclife

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
)

// left reports whether o is closed.
func left(o *ownedTransport) bool {
	synctest.Wait()
	select {
	case <-o.gone:
		return true
	default:
		return false
	}
}

// TestOwnedTransportOutlivesItsLastConnection: for as long as its
// CONNECTION_CLOSE may have to be repeated, and at least for minLinger.
func TestOwnedTransportOutlivesItsLastConnection(t *testing.T) {
	for _, linger := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			_, socket, _ := quictest.Net{}.Endpoints(t)
			o := own(socket)
			time.Sleep(time.Minute)
			ctx, end := context.WithCancel(t.Context())
			_, err := o.connContext(ctx, nil)
			require.NoError(t, err)
			o.listenerClosed()
			require.False(t, left(o), "a connection is left")
			time.Sleep(time.Minute)
			end()
			require.False(t, left(o), "right after the end of the last connection")
			o.linger(linger)
			o.linger(linger / 2) // another connection's time ends earlier
			time.Sleep(max(minLinger, linger) - 1)
			require.False(t, left(o), "a nanosecond before the end, lingering for %v", linger)
			time.Sleep(time.Nanosecond)
			require.True(t, left(o), "at the end, lingering for %v", linger)
		})
	}
}

// TestOwnedTransportEndsWithItsSocket: quic-go tells only the Tracer.
func TestOwnedTransportEndsWithItsSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, socket, _ := quictest.Net{}.Endpoints(t)
		serverTLS, _ := quictest.TLS()
		g := &Guard{}
		o := own(socket)
		_, err := g.listen(o, serverTLS, nil)
		require.NoError(t, err)
		require.False(t, left(o), "the listener is open")
		socket.Close()
		require.True(t, left(o), "the socket has failed")
		require.Empty(t, g.listeners)
	})
}
