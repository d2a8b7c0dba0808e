package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHandlerKnowsTheCaller from its certificate, and the server shuts down
// with nothing lost.
func TestHandlerKnowsTheCaller(t *testing.T) {
	for _, name := range []string{"Alice", "Bob"} {
		answer, err := callAndShutDown(name)
		require.NoError(t, err)
		require.Equal(t, "hello, "+name, answer)
	}
}
