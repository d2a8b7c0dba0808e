package quiclife

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNetConnErrors: ends by this side are net.ErrClosed, and so is any failure
// after Close. But a context's error says why, unless Close came before.
func TestNetConnErrors(t *testing.T) {
	context := (&canceled{err: errors.New("done")}).wrap(&StreamError{})
	for _, c := range []struct{ err, open, closed error }{
		{nil, nil, nil},
		{io.EOF, io.EOF, net.ErrClosed},
		{os.ErrDeadlineExceeded, os.ErrDeadlineExceeded, net.ErrClosed},
		{&StreamError{}, net.ErrClosed, net.ErrClosed},
		{&StreamError{Remote: true}, &StreamError{Remote: true}, net.ErrClosed},
		{ErrStreamClosed, net.ErrClosed, net.ErrClosed},
		{&ApplicationError{}, &ApplicationError{}, net.ErrClosed},
		{context, context, net.ErrClosed},
	} {
		conn := &NetConn{}
		require.Equal(t, c.open, conn.err(c.err), "of %v", c.err)
		conn.closed.Store(true)
		require.Equal(t, c.closed, conn.err(c.err), "of %v, after Close", c.err)
	}
}
