//go:build unix

package main

import (
	"context"
	"os/exec"
	"syscall"
)

// command returns a command for a test binary in its own process group. The whole
// group is killed when ctx ends. The address space is bounded, since a mutation may
// allocate for ever.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	const bound = `ulimit -v 6000000 2>/dev/null; exec "$0" "$@"` // KiB
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", bound, name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}
