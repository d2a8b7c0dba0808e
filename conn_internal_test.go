package quiclife

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestClosedLocally: what this side has sent a CONNECTION_CLOSE for.
func TestClosedLocally(t *testing.T) {
	for _, c := range []struct {
		err   error
		local bool
	}{
		{&ApplicationError{}, true},
		{&ApplicationError{Remote: true}, false},
		{&TransportError{}, true},
		{&TransportError{Remote: true}, false},
		{&IdleTimeoutError{}, false},
		{errors.New("another"), false},
	} {
		require.Equal(t, c.local, closedLocally(c.err), "%#v", c.err)
	}
}
