package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHandlerKnowsTheCaller checks that the handler finds the caller's name in
// its certificate, and that Shutdown loses nothing.
func TestHandlerKnowsTheCaller(t *testing.T) {
	for _, name := range []string{"Alice", "Bob"} {
		answer, err := callAndShutDown(name)
		require.NoError(t, err)
		require.Equal(t, "hello, "+name, answer)
	}
}
