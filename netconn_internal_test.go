package quiclife

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNetConnErrors: if this side has ended the half, or after Close, the error
// is net.ErrClosed. After a reset by a bound context it is the context's,
// unless Close came first.
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
