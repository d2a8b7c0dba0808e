// Mutation breaks quiclife in one place at a time, and requires that a test
// fails. From the root of the repository:
//
//	go -C mutation run .
//
// It prints a line for each mutation, and the score. Its exit status is 1 if a
// mutation survived that is not known to be equivalent, could not be applied,
// or did not compile.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

var (
	runFlag  = flag.String("run", "", "only the mutations that match this `regexp`, as \"closer.go: claim: ...\"")
	list     = flag.Bool("list", false, "print the mutations and do nothing")
	root     = flag.String("root", "..", "the `directory` of the library")
	parallel = flag.Int("parallel", 2, "how many mutations to try at once")
	trust    = flag.Bool("trust", false, "do not run the tests without a mutation first")
	timeout  = flag.Duration("timeout", 2*time.Minute, "after this time a test that still runs has failed")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "mutation:", err)
		os.Exit(1)
	}
}

func run() error {
	match, err := regexp.Compile(*runFlag)
	if err != nil {
		return err
	}
	chosen := slices.DeleteFunc(all(), func(m mutation) bool { return !match.MatchString(m.String()) })
	if *list {
		for _, m := range chosen {
			fmt.Println(m)
		}
		return nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "mutation")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := &runner{lib: filepath.Join(dir, "lib"), work: dir}
	if err := copyModule(r.lib, *root); err != nil {
		return err
	}
	start := time.Now()
	if !*trust {
		if err := r.baseline(ctx); err != nil {
			return err
		}
		fmt.Printf("the library as it is: ok (%v)\n", time.Since(start).Round(time.Second))
	}
	if err := r.buildCombined(ctx, chosen); err != nil {
		return err
	}

	var mu sync.Mutex // guards what follows, and the output
	var count [numVerdicts]int
	var wg sync.WaitGroup
	next := make(chan mutation)
	for i := range *parallel {
		wg.Go(func() {
			for m := range next {
				start := time.Now()
				v, how := r.try(ctx, m, strconv.Itoa(i))
				if ctx.Err() != nil {
					continue
				}
				mu.Lock()
				count[v]++
				fmt.Printf("%-10v %v%s (%.1fs)\n", v, m, how, time.Since(start).Seconds())
				mu.Unlock()
			}
		})
	}
	for _, m := range chosen {
		next <- m
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	fmt.Printf("%d mutations: %d killed, %d equivalent, %d equivalent but killed, %d survived, %d stale, %d do not compile (%v)\n",
		len(chosen), count[killed], count[equivalent], count[mistaken], count[survived], count[stale], count[broken], time.Since(start).Round(time.Second))
	if count[survived]+count[stale]+count[broken] > 0 {
		return errors.New("the tests or the list have holes")
	}
	return nil
}

// A verdict is what came of a mutation.
type verdict int

const (
	killed     verdict = iota // a test fails
	equivalent                // no test fails, and the list says why none can
	mistaken                  // a test fails, though the list says that none can
	survived                  // no test fails
	stale                     // the old text is not in the file, or more than once
	broken                    // the mutated library does not compile
	numVerdicts
)

func (v verdict) String() string {
	return [...]string{"killed", "equivalent", "MISTAKEN", "SURVIVED", "STALE", "BROKEN"}[v]
}

// A runner tries mutations on its copy of the library, which it never writes
// to: mutated files are an overlay of the build.
type runner struct {
	lib, work  string
	slow       []string        // tests that take more than slowTest
	inCombined map[string]bool // mutations that the combined library has
}

func (r *runner) combined() string { return filepath.Join(r.work, "combined.test") }

const slowTest = 2 * time.Second

// baseline requires that the tests pass without a mutation, and learns which
// are slow. One that fails gets a second chance: the machine may be busy.
func (r *runner) baseline(ctx context.Context) error {
	test := filepath.Join(r.work, "unmodified.test")
	if out, err := r.build(ctx, test, nil); err != nil {
		return fmt.Errorf("the library does not compile: %w\n%s", err, out)
	}
	res := r.tests(ctx, test, mutation{}, "-test.timeout", (10 * *timeout).String())
	for _, name := range res.failed {
		if again := r.tests(ctx, test, mutation{}, "-test.run", only(name)); again.failure != "" {
			return fmt.Errorf("the library as it is fails:\n%s", again.out)
		}
		fmt.Println("failed once without a mutation:", name)
	}
	if res.failure != "" && len(res.failed) == 0 {
		return fmt.Errorf("the library as it is fails:\n%s", res.out)
	}
	for _, m := range regexp.MustCompile(`(?m)^--- \w+: (\w+) \((.*)s\)$`).FindAllStringSubmatch(res.out, -1) {
		if s, _ := strconv.ParseFloat(m[2], 64); s > slowTest.Seconds() {
			r.slow = append(r.slow, m[1])
		}
	}
	return nil
}

// try applies m and runs tests until one fails: first the one that is known to
// fail, or else those of the file, then the fast ones, then the slow ones.
func (r *runner) try(ctx context.Context, m mutation, worker string) (verdict, string) {
	source, err := os.ReadFile(filepath.Join(r.lib, m.file))
	if err != nil {
		return stale, ": " + err.Error()
	}
	mutated, err := m.apply(string(source))
	if err != nil {
		return stale, ": " + err.Error()
	}
	test := r.combined()
	if !r.inCombined[m.String()] {
		test = filepath.Join(r.work, worker+".test")
		if out, err := r.build(ctx, test, map[string]string{m.file: mutated}); err != nil {
			return broken, "\n" + out
		}
	}
	by, flaky := r.kill(ctx, test, m)
	how := ""
	if len(flaky) > 0 {
		how = ", though once failed " + strings.Join(flaky, ", ")
	}
	switch {
	case by != "" && m.equivalent != "":
		return mistaken, " by " + by
	case by != "":
		return killed, " by " + by
	case m.equivalent != "":
		return equivalent, how + ": " + m.equivalent
	}
	return survived, how
}

// kill returns the test that fails, or "". A test that is not known to fail
// for m has to fail twice, as the machine may be busy; flaky are those that
// did not.
func (r *runner) kill(ctx context.Context, test string, m mutation) (by string, flaky []string) {
	if m.killer != "" {
		if res := r.tests(ctx, test, m, "-test.run", only(m.killer)); res.failure != "" {
			return res.failure, nil
		}
	}
	type pass struct{ run, skip []string }
	passes := []pass{{skip: r.slow}}
	if own := r.testsOf(m.file); m.killer == "" && len(own) > 0 {
		passes = slices.Insert(passes, 0, pass{run: own, skip: r.slow})
	}
	if len(r.slow) > 0 {
		passes = append(passes, pass{run: r.slow})
	}
	for _, p := range passes {
		for ctx.Err() == nil {
			args := []string{"-test.failfast"}
			if len(p.run) > 0 {
				args = append(args, "-test.run", only(p.run...))
			}
			if skip := slices.Concat(p.skip, flaky); len(skip) > 0 {
				args = append(args, "-test.skip", only(skip...))
			}
			res := r.tests(ctx, test, m, args...)
			if res.failure == "" {
				break
			}
			if res.hangs { // or there was no time for all
				if r.tests(ctx, test, m, "-test.run", only(res.failed...)).failure != "" {
					return res.failure, flaky
				}
				p.skip = slices.Concat(p.skip, res.passed, res.failed)
				continue
			}
			if len(res.failed) > 0 {
				args = []string{"-test.run", only(res.failed...)}
			}
			for range 3 {
				if r.tests(ctx, test, m, args...).failure != "" {
					return res.failure, flaky
				}
			}
			if len(res.failed) == 0 { // the check for leaks after all tests
				break
			}
			flaky = append(flaky, res.failed...)
		}
	}
	return "", flaky
}

var testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// testsOf returns the tests that are in the test file of a file.
func (r *runner) testsOf(file string) (names []string) {
	source, _ := os.ReadFile(filepath.Join(r.lib, strings.TrimSuffix(file, ".go")+"_test.go"))
	for _, m := range testFunc.FindAllStringSubmatch(string(source), -1) {
		names = append(names, m[1])
	}
	return names
}

// only is a pattern that matches the tests of these names.
func only(names ...string) string { return "^(" + strings.Join(names, "|") + ")$" }

// build compiles the tests of the library, with some files replaced or added.
func (r *runner) build(ctx context.Context, to string, files map[string]string) (string, error) {
	replace := make(map[string]string)
	for file, source := range files {
		replacement := to + "." + file
		if err := os.WriteFile(replacement, []byte(source), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(r.lib, file)] = replacement
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err == nil {
		err = os.WriteFile(to+".json", data, 0o600)
	}
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-ldflags", "-s -w", "-o", to, "-overlay", to+".json", ".")
	cmd.Dir = r.lib
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// buildCombined builds the library that has most of the mutations. If it does
// not compile, each is built by itself, which tells whose fault it is.
func (r *runner) buildCombined(ctx context.Context, ms []mutation) error {
	byFile := make(map[string][]mutation)
	for _, m := range ms {
		byFile[m.file] = append(byFile[m.file], m)
	}
	files := map[string]string{"mutation_selector.go": selector}
	in := make(map[string]bool)
	for file, ms := range byFile {
		source, err := os.ReadFile(filepath.Join(r.lib, file))
		if err != nil {
			return err
		}
		combined, done, err := combine(file, string(source), ms)
		if err != nil {
			return err
		}
		files[file] = combined
		maps.Copy(in, done)
	}
	if out, err := r.build(ctx, r.combined(), files); err != nil {
		fmt.Printf("the mutations do not compile together:\n%s", out)
		return ctx.Err()
	}
	r.inCombined = in
	fmt.Printf("%d of %d mutations are built together\n", len(in), len(ms))
	return nil
}

// result is what came of a run of tests. failure is "" if they passed, else it
// says what failed first; failed are the tests that did, passed those that did
// not.
type result struct {
	failure string
	failed  []string
	passed  []string
	hangs   bool
	out     string
}

var (
	passLine = regexp.MustCompile(`(?m)^--- PASS: (\w+)`)
	failLine = regexp.MustCompile(`(?m)^--- FAIL: (\w+)`)
	runLine  = regexp.MustCompile(`(?m)^=== RUN   (\w+)`)
)

// tests runs a binary made by build.
func (r *runner) tests(ctx context.Context, test string, m mutation, args ...string) (res result) {
	cmd := exec.CommandContext(ctx, test, append([]string{"-test.short", "-test.v", "-test.timeout", timeout.String()}, args...)...)
	cmd.Dir = r.lib
	cmd.Env = append(os.Environ(), variable+"="+m.String())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	res.out = out.String()
	if err == nil {
		return res
	}
	for _, m := range passLine.FindAllStringSubmatch(res.out, -1) {
		res.passed = append(res.passed, m[1])
	}
	for _, m := range failLine.FindAllStringSubmatch(res.out, -1) {
		res.failed = append(res.failed, m[1])
	}
	last := "?"
	if runs := runLine.FindAllStringSubmatch(res.out, -1); len(runs) > 0 {
		last = runs[len(runs)-1][1]
	}
	switch {
	case strings.Contains(res.out, "panic: test timed out"):
		res.hangs, res.failed, res.failure = true, []string{last}, last+", which hangs"
	case len(res.failed) > 0:
		res.failure = res.failed[0]
	case strings.Contains(res.out, "goleak: Errors on successful test run"):
		res.failure = "the check for leaked goroutines"
	default:
		res.failed, res.failure = []string{last}, last+", which crashes"
	}
	return res
}

// copyModule copies what belongs to the root module.
func copyModule(to, from string) error {
	files, err := filepath.Glob(filepath.Join(from, "*.go"))
	if err != nil {
		return err
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		files = append(files, filepath.Join(from, name))
	}
	err = filepath.WalkDir(filepath.Join(from, "internal"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, file := range files {
		name, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		copied := filepath.Join(to, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(copied), 0o700), os.WriteFile(copied, data, 0o600)); err != nil {
			return err
		}
	}
	return nil
}
