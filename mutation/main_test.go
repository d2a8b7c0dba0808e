package main

import (
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestMutationsApply: no mutation is stale, no two have the same name, and each is
// killed by an existing test.
func TestMutationsApply(t *testing.T) {
	seen, tests := make(map[string]bool), testNames(t)
	for _, m := range all() {
		source, err := os.ReadFile(filepath.Join("..", m.file))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.apply(string(source)); err != nil {
			t.Error(err)
		}
		if m.name == "" || seen[m.String()] {
			t.Errorf("%v: another mutation has the same name", m)
		}
		if m.killer != "" && !tests[m.killer] {
			t.Errorf("%v: there is no test %s", m, m.killer)
		}
		seen[m.String()] = true
	}
	if len(seen) < 100 {
		t.Errorf("%d mutations", len(seen))
	}
}

// TestMutationsCompile: a mutation that does not compile tests nothing.
func TestMutationsCompile(t *testing.T) {
	lib, err := load(t.Context(), "..")
	if err != nil {
		t.Fatal(err)
	}
	ms := all()
	number(ms)
	check := func(files map[string]string) {
		t.Helper()
		err := lib.check(files, func(where token.Position, err error) {
			line := strings.Split(files[where.Filename], "\n")[where.Line-1]
			t.Errorf("%v in %q", err, line)
		})
		if err != nil {
			t.Error(err)
		}
	}
	files, in := lib.combined(ms)
	check(files)
	for _, m := range ms {
		if in[m.id] {
			continue
		}
		for _, p := range lib.packages {
			if i := slices.Index(p.files, m.file); i >= 0 {
				mutated, err := m.apply(p.sources[i])
				if err != nil {
					t.Error(err)
				}
				check(map[string]string{m.file: mutated})
			}
		}
	}
}

var testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// testNames returns the names of the library's tests.
func testNames(t *testing.T) map[string]bool {
	paths, err := filepath.Glob(filepath.Join("..", "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, path := range paths {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testFunc.FindAllStringSubmatch(string(source), -1) {
			names[m[1]] = true
		}
	}
	return names
}
