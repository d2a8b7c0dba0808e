package main

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestShutdownWaitsForTheAnswer calls Shutdown while an answer is being written.
func TestShutdownWaitsForTheAnswer(t *testing.T) {
	r, err := shutDownWhileServing(slow, 5*time.Second)
	require.NoError(t, err)
	require.NoError(t, r.shutdownErr, "Guard.Shutdown")
	require.NoError(t, r.err, "reading the answer")
	require.Equal(t, whole, r.answer)
	require.Greater(t, r.took, 1400*time.Millisecond, "the handler works for 1.5 s")
	require.Less(t, r.took, 4*time.Second, "Shutdown should return soon after the handler")
}

// TestShutdownSaysThatAHandlerWasCut lets Shutdown's deadline pass before the
// handler returns. It tries a handler that heeds its context, and one that does
// not.
func TestShutdownSaysThatAHandlerWasCut(t *testing.T) {
	const patience = 300 * time.Millisecond
	end := make(chan struct{})
	defer close(end)
	deaf := func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "first half, ")
		http.NewResponseController(w).Flush()
		<-end
	}
	for name, handler := range map[string]http.HandlerFunc{"heeds its context": slow, "does not heed its context": deaf} {
		t.Run(name, func(t *testing.T) {
			r, err := shutDownWhileServing(handler, patience)
			require.NoError(t, err)
			require.Error(t, r.err, "a cut answer should not look whole")
			require.ErrorIs(t, r.shutdownErr, context.DeadlineExceeded)
			require.ErrorContains(t, r.shutdownErr, "BeforeShutdown", "the error of Guard.Shutdown should say what failed")
			require.GreaterOrEqual(t, r.took, patience)
			require.Less(t, r.took, 1400*time.Millisecond, "Shutdown should not wait for the handler any longer")
		})
	}
}
