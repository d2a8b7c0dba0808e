// Package integrationtests tests quiclife with suites that others wrote.
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
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const theirs = "github.com/quic-go/quic-go"

// suites are quic-go's own tests of its exported API. Its other tests reach
// into what is not exported.
var suites = []string{"http3", "integrationtests/self", "integrationtests/versionnegotiation", "interop/http09"}

// The import swap of docs/MIGRATION.md.
var (
	importLine  = regexp.MustCompile(`(?m)^(\s*(?:import\s+)?)(?:quic )?"github.com/quic-go/quic-go"$`)
	swappedLine = []byte(`${1}quic "github.com/quiclife/quiclife"`)
)

// TestDropIn runs quic-go's own suites twice, as they are and with the import
// of quic-go swapped. Whatever passes plain has to pass swapped.
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
	// Packages above the suites are swapped with them: http3's types are made
	// of quic-go's.
	files := 0
	for _, top := range []string{"http3", "integrationtests", "interop"} {
		n, err := swap(filepath.Join(swapped, top))
		require.NoError(t, err)
		files += n
	}
	_, err = command(t.Context(), swapped, "mod", "edit", "-require=github.com/quiclife/quiclife@v0.0.0", "-replace=github.com/quiclife/quiclife="+root)
	require.NoError(t, err)
	t.Logf("quic-go %s: the import swapped in %d files, nothing else", module.Version, files)

	all := make(map[string]string)
	for _, suite := range suites {
		all[suite] = "."
	}
	inPlain, inSwapped := runBoth(t, plain, swapped, all, 1)
	if again := differing(inPlain, inSwapped); len(again) > 0 {
		// Their tests run against the clock. What failed is run again by itself.
		t.Logf("once more, three times each: %v", again)
		plainAgain, swappedAgain := runBoth(t, plain, swapped, again, 3)
		inPlain.merge(plainAgain)
		inSwapped.merge(swappedAgain)
	}
	for _, suite := range suites {
		p, s := inPlain[suite], inSwapped[suite]
		t.Logf("%s: %d of %d pass plain, %d of %d swapped", suite, p.passed(), len(p), s.passed(), len(s))
		if p.passed() == 0 || p.passed() < len(p)*9/10 {
			t.Errorf("%s: too few tests pass plain for a comparison", suite)
		}
		for _, name := range slices.Sorted(maps.Keys(p)) {
			if p[name].action == "pass" && s[name].action != "pass" {
				t.Errorf("%s: %s passes plain; swapped it has %q:\n%s", suite, name, s[name].action, s[name].output)
			}
		}
	}
}

// swap swaps the import in all files below dir, and returns how many had it.
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
			return fmt.Errorf("%s imports quic-go in a way that is not known here", name)
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
	// As in their CI, apart from the first two.
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "TIMESCALE_FACTOR=10")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, err
}

// A result is how a test ended, "pass", "fail" or "skip", and what it printed.
type result struct{ action, output string }

// results are those of a suite, by the name of the test.
type results map[string]result

func (r results) passed() (n int) {
	for _, res := range r {
		if res.action == "pass" {
			n++
		}
	}
	return n
}

// A run has the results of each suite.
type run map[string]results

// merge takes over what has passed when run again.
func (r run) merge(again run) {
	for suite, results := range again {
		for name, res := range results {
			if r[suite][name].action != "pass" {
				r[suite][name] = res
			}
		}
	}
}

// differing returns, for each suite, a pattern for the tests that failed in
// either run, or are missing from one.
func differing(plain, swapped run) map[string]string {
	patterns := make(map[string]string)
	for _, suite := range suites {
		names := make(map[string]bool)
		for _, pair := range [][2]results{{plain[suite], swapped[suite]}, {swapped[suite], plain[suite]}} {
			for name, res := range pair[0] {
				if res.action == "fail" || res.action != pair[1][name].action {
					top, _, _ := strings.Cut(name, "/")
					names[top] = true
				}
			}
		}
		if len(names) > 0 {
			patterns[suite] = "^(" + strings.Join(slices.Sorted(maps.Keys(names)), "|") + ")$"
		}
	}
	return patterns
}

// runBoth runs in both trees at once the tests of each suite that match its
// pattern.
func runBoth(t *testing.T, plain, swapped string, patterns map[string]string, count int) (run, run) {
	t.Helper()
	var runs [2]run
	var errs [2]error
	var wg sync.WaitGroup
	for i, tree := range []string{plain, swapped} {
		wg.Go(func() { runs[i], errs[i] = runTree(t.Context(), tree, patterns, count) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs[:]...))
	return runs[0], runs[1]
}

// runTree is runBoth for one tree.
func runTree(ctx context.Context, tree string, patterns map[string]string, count int) (run, error) {
	r := make(run)
	byPattern := make(map[string][]string)
	for suite, pattern := range patterns {
		r[suite] = make(results)
		byPattern[pattern] = append(byPattern[pattern], "./"+suite)
	}
	for pattern, packages := range byPattern {
		args := append([]string{"test", "-json", "-timeout=5m", fmt.Sprint("-count=", count), "-run=" + pattern}, packages...)
		out, err := command(ctx, tree, args...)
		if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
			return nil, err
		}
		if err := r.read(out); err != nil {
			return nil, fmt.Errorf("%s: %w", tree, err)
		}
	}
	return r, nil
}

// read takes in what go test -json printed.
func (r run) read(out []byte) error {
	printed := make(map[string]string) // by package and test
	for line := range bytes.Lines(out) {
		var event struct{ Action, Package, Test, Output string }
		if err := json.Unmarshal(line, &event); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		suite := strings.TrimPrefix(event.Package, theirs+"/")
		key := path.Join(suite, event.Test)
		switch event.Action {
		case "output", "build-output":
			printed[key] += event.Output
		case "build-fail":
			return fmt.Errorf("does not build:\n%s", printed[""])
		case "pass", "fail", "skip":
			if before := r[suite][event.Test]; event.Test != "" && before.action != "fail" { // with -count: failed once is failed
				r[suite][event.Test] = result{event.Action, printed[key]}
			}
		}
	}
	return nil
}
