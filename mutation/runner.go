package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A runner tries mutations on its copy of the library. It never writes to the
// copy: mutated files are an overlay of the build.
type runner struct {
	lib       *library
	work      string
	tests     []*test
	inLibrary map[int]bool  // mutations that are built together; we know which tests reach these
	slack     time.Duration // extra time for tests with a mutation
}

// A test is a top-level test of a package that may have mutations.
type test struct {
	pkg     *goPackage
	binary  string
	name    string
	long    bool          // skips something with -test.short, so it runs without
	failed  int           // how often it failed without a mutation
	lingers bool          // leaves goroutines that end later; if only this test runs, the check for leaks sees them
	took    time.Duration // without a mutation; 0 if not known
	reaches map[int]bool  // mutations; nil if not known
}

// prepare builds one library with as many of ms as possible, and runs its tests
// with no mutation chosen.
func (r *runner) prepare(ctx context.Context, ms []mutation) error {
	files, in := r.lib.combined(ms)
	r.inLibrary = in
	files["internal/mutant/mutant.go"] = helperSource
	out, err := r.build(ctx, "all", files)
	if err != nil {
		return fmt.Errorf("the mutations do not compile together:\n%s", out)
	}
	if r.tests, err = r.list(ctx, "all"); err != nil || *trust {
		return err
	}
	return each(ctx, r.tests, func(t *test) error { return r.learn(ctx, t) })
}

// learn runs a test without a mutation, in its own process, and requires that it
// passes. It learns which mutations the test reaches, and how long it takes. A
// test that fails gets more chances, since the machine may be busy.
func (r *runner) learn(ctx context.Context, t *test) error {
	for {
		reached := filepath.Join(r.work, t.name+"."+path.Base(t.pkg.ImportPath)+".reached")
		start := time.Now()
		res := r.run(ctx, 0, []*test{t}, reached)
		if res.failure != "" {
			switch t.failed++; {
			case t.failed == 1:
				fmt.Printf("failed without a mutation: %s, by %s\n", t.name, res.failure)
			case res.failure == leaked:
				t.lingers = true
			case t.failed == 3:
				return fmt.Errorf("the library as it is fails:\n%s", res.out)
			}
			continue
		}
		if !t.long && strings.Contains(res.out, "--- SKIP: ") {
			t.long = true
			continue
		}
		t.took = time.Since(start)
		t.reaches = make(map[int]bool)
		data, err := os.ReadFile(reached)
		if errors.Is(err, fs.ErrNotExist) { // the library is not loaded, or the test reaches nothing
			err = nil
		}
		for _, id := range strings.Fields(string(data)) {
			n, _ := strconv.Atoi(id)
			t.reaches[n] = true
		}
		return err
	}
}

// try tries m. It runs the test that is known to fail, if there is one. Then it
// runs all tests that reach m, the fast ones first, until one fails.
func (r *runner) try(ctx context.Context, m mutation) outcome {
	o := outcome{mutation: m}
	tests := slices.DeleteFunc(slices.Clone(r.tests), func(t *test) bool {
		return r.inLibrary[m.id] && t.reaches != nil && !t.reaches[m.id]
	})
	if m.alone || !r.inLibrary[m.id] {
		source, err := os.ReadFile(filepath.Join(r.lib.dir, filepath.FromSlash(m.file)))
		mutated := ""
		if err == nil {
			mutated, err = m.apply(string(source))
		}
		if err != nil {
			o.verdict, o.how = stale, err.Error()
			return o
		}
		name := strconv.Itoa(m.id)
		if out, err := r.build(ctx, name, map[string]string{m.file: mutated}); err != nil {
			o.verdict, o.how = broken, out
			return o
		}
		defer os.RemoveAll(filepath.Join(r.work, name))
		for i, t := range tests {
			alone := *t
			alone.binary = filepath.Join(r.work, name, filepath.Base(t.binary))
			tests[i] = &alone
		}
	}
	for _, batch := range batches(tests, m.killer) {
		by, flaky := r.kill(ctx, m.id, batch)
		for _, name := range flaky {
			o.how += name + " failed, but not twice; "
		}
		if by == "" {
			continue
		}
		o.how += "by " + by
		if o.verdict = killed; m.equivalent != "" {
			o.verdict = mistaken
		}
		return o
	}
	o.how += fmt.Sprintf("of %d tests that reach it", len(tests))
	if o.verdict = survived; m.equivalent != "" {
		o.verdict, o.how = equivalent, o.how+": "+m.equivalent
	}
	return o
}

// batches distributes tests to processes: first the killer by itself, then the
// fast tests, then slower tests in larger batches, then those that are run in a
// different way.
func batches(tests []*test, killer string) (bs [][]*test) {
	tests = slices.Clone(tests)
	kind := func(t *test) string { return fmt.Sprint(t.name != killer, t.long, t.lingers, t.binary) }
	slices.SortStableFunc(tests, func(a, b *test) int { return cmp.Or(cmp.Compare(kind(a), kind(b)), cmp.Compare(a.took, b.took)) })
	budget, total := 500*time.Millisecond, time.Duration(0)
	for i, t := range tests {
		switch {
		case i == 0 || kind(t) != kind(tests[i-1]):
			bs, total = append(bs, nil), 0
		case total+t.took > budget:
			bs, total, budget = append(bs, nil), 0, 4*budget
		}
		total += t.took
		bs[len(bs)-1] = append(bs[len(bs)-1], t)
	}
	return bs
}

// kill runs tests of one binary, and returns the one that fails, or "". The test
// has to fail again, since the machine may be busy. A test that has failed without
// a mutation has to fail again twice in a row. flaky are the tests that did not.
func (r *runner) kill(ctx context.Context, id int, tests []*test) (by string, flaky []string) {
	for len(tests) > 0 && ctx.Err() == nil {
		res := r.run(ctx, id, tests, "")
		if res.failure == "" {
			return "", flaky
		}
		suspects := slices.DeleteFunc(slices.Clone(tests), func(t *test) bool { return !slices.Contains(res.failed, t.name) })
		if len(suspects) == 0 { // the check for leaks failed after all tests, or a crash came before or after them
			suspects = tests
		}
		again := 1 // how many more failures it takes
		if doubtful := slices.ContainsFunc(suspects, func(t *test) bool { return t.failed > 0 }); doubtful {
			again = 2
		}
		for range 2 {
			n := 0
			for n < again && r.run(ctx, id, suspects, "").failure != "" {
				n++
			}
			if n == again {
				return res.failure, flaky
			}
		}
		flaky = append(flaky, res.failure)
		tests = slices.DeleteFunc(slices.Clone(tests), func(t *test) bool {
			return slices.Contains(suspects, t) || slices.Contains(res.passed, t.name)
		})
	}
	return "", flaky
}

// build compiles the tests of the mutated packages, with some files replaced or
// added, into a directory of that name.
func (r *runner) build(ctx context.Context, name string, files map[string]string) (string, error) {
	dir := filepath.Join(r.work, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	replace := make(map[string]string)
	for file, source := range files {
		replacement := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(replacement, []byte(source), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(r.lib.dir, filepath.FromSlash(file))] = replacement
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	overlay := filepath.Join(dir, "overlay.json")
	if err == nil {
		err = os.WriteFile(overlay, data, 0o600)
	}
	if err != nil {
		return "", err
	}
	args := []string{"test", "-c", "-vet", "off", "-ldflags", "-s -w", "-o", dir + string(filepath.Separator), "-overlay", overlay}
	for _, p := range r.lib.packages {
		args = append(args, p.ImportPath)
	}
	out, err := goCommand(ctx, r.lib.dir, args...).CombinedOutput()
	return string(out), err
}

// list lists the tests of what was built into a directory of that name.
func (r *runner) list(ctx context.Context, name string) (tests []*test, err error) {
	for _, p := range r.lib.packages {
		binary := filepath.Join(r.work, name, path.Base(p.ImportPath)+".test")
		if _, err := os.Stat(binary); err != nil {
			continue // no tests
		}
		cmd := exec.CommandContext(ctx, binary, "-test.list", "^(Test|Example|Fuzz)")
		cmd.Dir = p.Dir
		out, err := cmd.Output()
		if err != nil {
			return nil, err
		}
		for _, name := range strings.Fields(string(out)) {
			tests = append(tests, &test{pkg: p, binary: binary, name: name})
		}
	}
	return tests, nil
}

// result is the result of a run of tests. failure is "" if they passed. Otherwise
// it says what failed first.
type result struct {
	failure string
	failed  []string
	passed  []string
	out     string
}

const leaked = "the check for leaked goroutines"

var (
	passLine = regexp.MustCompile(`(?m)^--- (?:PASS|SKIP): (\w+)`)
	failLine = regexp.MustCompile(`(?m)^--- FAIL: (\w+)`)
	runLine  = regexp.MustCompile(`(?m)^=== RUN   (\w+)$`)
	// in the output of a timeout
	runningLine = regexp.MustCompile(`(?m)^\t\t(\w+)(?:/.*)? \(.*\)$`)
)

// limit returns how long tests may take.
func (r *runner) limit(tests []*test) time.Duration {
	var sum, most time.Duration
	for _, t := range tests {
		if t.took == 0 {
			return *timeout
		}
		sum, most = sum+t.took, max(most, t.took)
	}
	return r.slack + 2*sum + 8*most
}

// run runs tests of one binary, with mutation id. If the file has a name, the
// tests write there which mutations they reach.
func (r *runner) run(ctx context.Context, id int, tests []*test, reached string) (res result) {
	var names []string
	for _, t := range tests {
		names = append(names, t.name)
	}
	args := []string{"-test.v", "-test.failfast", "-test.run", "^(" + strings.Join(names, "|") + ")$", "-test.timeout", r.limit(tests).String()}
	if !tests[0].long {
		args = append(args, "-test.short")
	}
	ctx, cancel := context.WithTimeout(ctx, r.limit(tests)+10*time.Second) // a loop may block even -test.timeout
	defer cancel()
	cmd := command(ctx, tests[0].binary, args...)
	cmd.Dir = tests[0].pkg.Dir
	cmd.Env = append(os.Environ(), "GOMEMLIMIT=1GiB", chosenID+"="+strconv.Itoa(id), reachLog+"="+reached)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	res.out = out.String()
	if err == nil {
		return res
	}
	find := func(line *regexp.Regexp) (names []string) {
		for _, m := range line.FindAllStringSubmatch(res.out, -1) {
			names = append(names, m[1])
		}
		return names
	}
	res.passed, res.failed = find(passLine), find(failLine)
	unfinished := slices.DeleteFunc(find(runLine), func(name string) bool { return slices.Contains(res.passed, name) })
	switch {
	case strings.Contains(res.out, "panic: test timed out"), ctx.Err() != nil:
		if running := find(runningLine); len(running) > 0 {
			unfinished = running
		}
		res.failed, res.failure = unfinished, oneOf(unfinished)+", which hangs"
	case len(res.failed) > 0:
		res.failure = res.failed[0]
	case strings.Contains(res.out, "goleak: Errors on successful test run"):
		res.failure = leaked
		if tests[0].lingers {
			res.failure = ""
		}
	default:
		res.failed, res.failure = unfinished, oneOf(unfinished)+", which crashes"
	}
	return res
}

// oneOf names the test, if only one is possible.
func oneOf(names []string) string {
	switch len(names) {
	case 0:
		return "what is outside of tests"
	case 1:
		return names[0]
	}
	return fmt.Sprintf("%s or another of %d", names[0], len(names))
}

// copyModule copies a module, without modules and hidden directories inside it,
// and without its workspace.
func copyModule(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if name != "." && (err == nil || strings.HasPrefix(d.Name(), ".")) {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		}
		if !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "go.work") {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), data, 0o600)
	})
}
