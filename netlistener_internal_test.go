package quiclife

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAcceptAfterCloseReturnsNoStream: even if one is still being handed out.
func TestAcceptAfterCloseReturnsNoStream(t *testing.T) {
	n := &netListener{busy: true, streams: make(chan net.Conn, 1)}
	n.open, n.end = context.WithCancelCause(context.Background())
	n.end(net.ErrClosed)
	n.streams <- &NetConn{}
	for range 100 {
		_, err := n.Accept()
		require.Equal(t, net.ErrClosed, err)
	}
}
