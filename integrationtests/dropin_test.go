// Package integrationtests tests quiclife with quic-go's own tests and with a
// program from outside, and checks the links of the documents.
package integrationtests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const theirs = "github.com/quic-go/quic-go"

// suites are quic-go's own tests of its exported API. Its other tests use names
// that are not exported.
var suites = []string{"http3", "integrationtests/self", "integrationtests/versionnegotiation", "interop/http09"}

// The import swap of docs/MIGRATION.md.
var (
	importLine  = regexp.MustCompile(`(?m)^(\s*(?:import\s+)?)(?:quic )?"github.com/quic-go/quic-go"$`)
	swappedLine = []byte(`${1}quic "github.com/quiclife/quiclife"`)
)

// TestDropIn runs quic-go's own suites twice: as they are, and with the import of
// quic-go swapped. Each test that passes plain has to pass swapped.
func TestDropIn(t *testing.T) {
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	out, err := command(t.Context(), root, "mod", "download", "-json", theirs)
	require.NoError(t, err)
	var module struct{ Version, Dir string }
	require.NoError(t, json.Unmarshal(out, &module))

	dir := t.TempDir()
	plain, swapped := filepath.Join(dir, "plain"), filepath.Join(dir, "swapped")
	for _, tree := range []string{plain, swapped} {
		require.NoError(t, os.CopyFS(tree, os.DirFS(module.Dir)))
	}
	// The packages around the suites are swapped, too, since http3's types contain
	// quic-go's.
	files := 0
	for _, top := range []string{"http3", "integrationtests", "interop"} {
		n, err := swap(filepath.Join(swapped, top))
		require.NoError(t, err)
		files += n
	}
	_, err = command(t.Context(), swapped, "mod", "edit", "-require=github.com/quiclife/quiclife@v0.0.0", "-replace=github.com/quiclife/quiclife="+root)
	require.NoError(t, err)
	t.Logf("quic-go %s: the import is swapped in %d files, and nothing else is changed", module.Version, files)

	all := make(map[string][]string)
	for _, suite := range suites {
		all[suite] = []string{".*"}
	}
	inPlain, inSwapped := runBoth(t, plain, swapped, all)
	for range 3 {
		again := make(map[string][]string)
		for _, suite := range suites {
			if names := differing(t, suite, inPlain[suite], inSwapped[suite]); len(names) > 0 {
				again[suite] = names
			}
		}
		if len(again) == 0 {
			break
		}
		plainAgain, swappedAgain := runBoth(t, plain, swapped, again)
		for suite := range again {
			inPlain[suite].merge(plainAgain[suite])
			inSwapped[suite].merge(swappedAgain[suite])
		}
	}
	for _, suite := range suites {
		p, s := inPlain[suite], inSwapped[suite]
		t.Logf("%s: %d of %d pass plain, %d of %d swapped", suite, p.passed(), len(p), s.passed(), len(s))
		if p.passed() < max(1, len(p)*9/10) {
			t.Errorf("%s: too few tests pass plain for a comparison", suite)
		}
		for _, name := range slices.Sorted(maps.Keys(p)) {
			if p[name].action == "pass" && s[name].action != "pass" {
				t.Errorf("%s: %s passes plain, but not swapped:\n%s", suite, name, s[name].output)
			}
		}
	}
}

// swap swaps the import in all files below dir, and returns how many files had
// it.
func swap(dir string) (files int, err error) {
	err = filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(name) != ".go" {
			return err
		}
		before, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		after := importLine.ReplaceAll(before, swappedLine)
		if bytes.Contains(after, []byte(`"`+theirs+`"`)) {
			return fmt.Errorf("%s imports quic-go in a way that this test does not know", name)
		}
		if bytes.Equal(after, before) {
			return nil
		}
		files++
		return os.WriteFile(name, after, 0o666)
	})
	return files, err
}

// command runs the go command in dir, and returns what it printed.
func command(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	// quic-go's CI sets the same TIMESCALE_FACTOR. With 10, two of the tests fail.
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "TIMESCALE_FACTOR=3")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, err
}

// A result is how a test ended ("pass", "fail" or "skip") and what it printed.
type result struct{ action, output string }

// results are the results of a suite, by the name of the test.
type results map[string]result

func (r results) passed() (n int) {
	for _, res := range r {
		if res.action == "pass" {
			n++
		}
	}
	return n
}

// merge takes over the results of another run. Tests that failed before may pass
// in it.
func (r results) merge(again results) {
	for name, res := range again {
		if r[name].action != "pass" {
			r[name] = res
		}
	}
}

// differing returns the tests to run again: those that failed in either tree, or
// ended differently. quic-go's tests run against the clock, so some fail now and
// then on a busy machine.
func differing(t *testing.T, suite string, plain, swapped results) []string {
	names := make(map[string]bool)
	for _, pair := range [][2]results{{plain, swapped}, {swapped, plain}} {
		for name, res := range pair[0] {
			if res.action == "fail" || res.action != pair[1][name].action {
				top, _, _ := strings.Cut(name, "/")
				names[top] = true
			}
		}
	}
	for name := range names {
		t.Logf("%s: %s: %q plain, %q swapped, run again", suite, name, plain[name].action, swapped[name].action)
	}
	return slices.Sorted(maps.Keys(names))
}

// A run has the results of each suite.
type run map[string]results

// runBoth runs the named tests of each suite in both trees, side by side.
func runBoth(t *testing.T, plain, swapped string, tests map[string][]string) (run, run) {
	t.Helper()
	var runs [2]run
	var errs [2]error
	var wg sync.WaitGroup
	for i, tree := range []string{plain, swapped} {
		wg.Go(func() { runs[i], errs[i] = runTree(t.Context(), tree, tests) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs[:]...))
	return runs[0], runs[1]
}

// runTree runs the named tests of each suite in a tree. It runs one suite at a
// time, since each tree has one processor.
func runTree(ctx context.Context, tree string, tests map[string][]string) (run, error) {
	r := make(run)
	for _, suite := range suites {
		if len(tests[suite]) == 0 {
			continue
		}
		r[suite] = make(results)
		out, err := command(ctx, tree, "test", "-json", "-vet=off", "-count=1", "-timeout=3m", "-p=1",
			"-run=^("+strings.Join(tests[suite], "|")+")$", "./"+suite)
		if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
			return nil, err
		}
		if readErr := r[suite].read(out); readErr != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(tree, suite), readErr)
		} else if len(r[suite]) == 0 {
			return nil, fmt.Errorf("%s: no test ran: %w", filepath.Join(tree, suite), err)
		}
	}
	return r, nil
}

// read reads the output of go test -json.
func (r results) read(out []byte) error {
	printed := make(map[string]string) // by test
	for line := range bytes.Lines(out) {
		var event struct{ Action, Test, Output string }
		if err := json.Unmarshal(line, &event); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		switch event.Action {
		case "output", "build-output":
			printed[event.Test] += event.Output
		case "build-fail":
			return fmt.Errorf("does not build:\n%s", printed[""])
		case "pass", "fail", "skip":
			if event.Test != "" {
				r[event.Test] = result{event.Action, printed[event.Test]}
			}
		}
	}
	return nil
}
