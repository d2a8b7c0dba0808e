package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quiclife/quiclife/vet/internal/vettest"
)

// build builds the command, and returns its path.
func build(t *testing.T) string {
	t.Helper()
	tool := filepath.Join(t.TempDir(), "quiclifevet")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", tool, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return tool
}

// run runs a command on the test code, and returns its output.
func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = filepath.Join(vettest.Current(t), "src", "leakmain")
	cmd.Env = append(os.Environ(), "GOPATH="+vettest.Current(t), "GO111MODULE=off", "GOWORK=off", "GOFLAGS=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

const leak = "main.go:46:24: this stream leaks: neither half is ended on the path that returns at line 51"

func TestGoVetRunsTheTool(t *testing.T) {
	out, err := run(t, "go", "vet", "-vettool="+build(t), "leakmain")
	if err == nil || !strings.Contains(out, leak) {
		t.Errorf("go vet -vettool says %q, %v; expected %q and a failure", out, err, leak)
	}
}

func TestTheToolRunsAlone(t *testing.T) {
	out, err := run(t, build(t), "leakmain")
	if err == nil || !strings.Contains(out, leak) {
		t.Errorf("quiclifevet says %q, %v; expected %q and a failure", out, err, leak)
	}
}

const loss = "closeloss.go:25:25: this drops what was written to the stream of line 17"

func TestCloselossIsOffUnlessAskedFor(t *testing.T) {
	tool := build(t)
	for _, args := range [][]string{{"go", "vet", "-vettool=" + tool}, {tool}} {
		if out, _ := run(t, args[0], append(args[1:], "closeloss")...); strings.Contains(out, "drops") {
			t.Errorf("%v without -closeloss says %q", args, out)
		}
		if out, _ := run(t, args[0], append(args[1:], "-closeloss", "closeloss")...); !strings.Contains(out, loss) {
			t.Errorf("%v with -closeloss says %q; expected %q", args, out, loss)
		}
	}
}

func TestGoVetFindsNothingInRightCode(t *testing.T) {
	if out, err := run(t, "go", "vet", "-vettool="+build(t), "helpers"); err != nil {
		t.Errorf("go vet -vettool says %q, %v; expected nothing", out, err)
	}
}
