//go:build !unix

package main

import (
	"context"
	"os/exec"
)

// command returns a command for a test binary. It is killed when ctx ends.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, name, args...)
}
