package quiclife

import (
	"context"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReadErrorsThatNoContextExplains: io.EOF and timeouts stay as they are,
// even if a bound context has reset the stream since.
func TestReadErrorsThatNoContextExplains(t *testing.T) {
	why := &canceled{err: context.Canceled, cause: context.Canceled, receive: true}
	st := &streamState{extra: &extra{canceled: why}}
	require.Equal(t, io.EOF, st.readError(io.EOF))
	require.Equal(t, os.ErrDeadlineExceeded, st.readError(os.ErrDeadlineExceeded))
	require.Equal(t, why.wrap(&StreamError{}), st.readError(&StreamError{}))
}
