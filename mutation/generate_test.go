package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// candidates returns the generated mutations of a library that compile.
func candidates(t *testing.T, dir string) (*library, []mutation) {
	t.Helper()
	lib, err := load(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ms, err := lib.compiling(generate(lib))
	if err != nil {
		t.Fatal(err)
	}
	return lib, ms
}

func names(ms []mutation) (names []string) {
	for _, m := range ms {
		names = append(names, m.name)
	}
	return names
}

// TestGeneratedMutationsOfTheLibrary: they compile together (candidates checks
// that), they move no line, and no two have the same name, so that an entry of
// equivalents is about one mutation.
func TestGeneratedMutationsOfTheLibrary(t *testing.T) {
	lib, ms := candidates(t, "..")
	if len(ms) < 1000 {
		t.Errorf("%d mutations are generated", len(ms))
	}
	files, _ := lib.rewritten(ms)
	for _, p := range lib.packages {
		for i, file := range p.files {
			was, is := strings.Count(p.sources[i], "\n"), strings.Count(files[file], "\n")
			if files[file] != "" && was != is {
				t.Errorf("%s has %d lines, and %d with mutations", file, was, is)
			}
		}
	}
	seen := make(map[string]bool)
	for _, m := range ms {
		if seen[m.name] {
			t.Errorf("two mutations have the name %s", m.name)
		}
		seen[m.name] = true
	}
	for name, reason := range equivalents {
		if !seen[name] {
			t.Errorf("stale: no mutation has the name %s", name)
		}
		if reason == "" {
			t.Errorf("there is no reason why this changes nothing: %s", name)
		}
	}
}

func TestSampleIsTheSameForASeed(t *testing.T) {
	_, ms := candidates(t, "testdata/sample")
	first := names(sample(ms, 20, 1))
	_, again := candidates(t, "testdata/sample")
	if !slices.Equal(first, names(sample(again, 20, 1))) {
		t.Error("two samples of the same seed differ")
	}
	if slices.Equal(first, names(sample(ms, 20, 2))) {
		t.Error("samples of two seeds are the same")
	}
	if n := len(slices.Compact(slices.Sorted(slices.Values(first)))); n != 20 {
		t.Errorf("%d of 20 in the sample are different", n)
	}
	if all := names(sample(ms, len(ms)+1, 1)); !slices.Equal(all, names(ms)) {
		t.Error("a sample of more than all is not all")
	}
}

func TestSampleIsSpreadByFile(t *testing.T) {
	var ms []mutation
	for i := range 300 {
		m := mutation{id: i + 1, file: "large.go"}
		if i < 100 {
			m.file = "small.go"
		}
		ms = append(ms, m)
	}
	for seed := range uint64(10) {
		count := make(map[string]int)
		for _, m := range sample(ms, 30, seed) {
			count[m.file]++
		}
		if count["small.go"] != 10 || count["large.go"] != 20 {
			t.Errorf("of the seed %d: %v, want 10 of the small file and 20 of the large one", seed, count)
		}
	}
}

// TestNamesSurviveThatLinesMove: equivalent.go refers to mutations by name.
func TestNamesSurviveThatLinesMove(t *testing.T) {
	dir := t.TempDir()
	if err := copyModule(dir, "testdata/sample"); err != nil {
		t.Fatal(err)
	}
	_, ms := candidates(t, dir)
	before := names(ms)
	edit := func(name string, f func(string) string) { rewriteFile(t, filepath.Join(dir, name), f) }
	edit("weak.go", func(s string) string {
		return strings.Replace(s, "// weak is", "func added(n int) int { return n + 1 }\n\n// weak is", 1)
	})
	edit("strong.go", func(s string) string { return strings.Replace(s, "call(\"seven\")", "\tcall(\"seven\") // once", 1) })
	_, ms = candidates(t, dir)
	after := slices.DeleteFunc(names(ms), func(name string) bool { return strings.HasPrefix(name, "added: ") })
	if len(after) == len(ms) {
		t.Error("the added code has no mutation")
	}
	if !slices.Equal(before, after) {
		t.Errorf("names changed:\n%s\nto\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

// TestVerdicts tries all mutations of a small library: its tests pass if none
// is chosen, or prepare would fail.
func TestVerdicts(t *testing.T) {
	lib, ms := candidates(t, "testdata/sample")
	const reason = "it is a sample"
	for i := range ms {
		if strings.HasPrefix(ms[i].name, "largest: if a > b: a > b: ") {
			ms[i].equivalent = reason
		}
	}
	r := &runner{lib: lib, work: t.TempDir(), slack: time.Second / 2}
	if err := r.prepare(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, m := range ms {
		if strings.HasPrefix(m.name, "odd: n++") || strings.Contains(m.name, "close(done)") { // these hang, which takes long to find
			continue
		}
		o := r.try(t.Context(), m)
		got[m.name] = o.verdict.String() + " " + o.how
		if strings.HasPrefix(m.name, "strong") && o.verdict != killed {
			t.Errorf("the strong test does not see it: %v", o)
		}
	}
	for name, want := range map[string]string{
		"strongEffects: go send(out): dropped":                            "killed by TestStrong, which hangs",
		"strongEffects: sum -= x: -= becomes +=":                          "killed by TestStrong",
		"weak: return limit, n > 0: n > 0: negated":                       "killed by TestWeak",
		"loop: n--: dropped":                                              "killed by TestWeak, which hangs",
		"crash: _ = make([]int, n)[n-1]: n-1: - becomes +":                "killed by TestWeak, which crashes",
		"slow: func slow(n int) int { return n + 1 }: n + 1: + becomes -": "killed by TestSlow",
		"weak: if n > 10: 10 becomes 10+1":                                "SURVIVED of 2 tests that reach it",
		"weak: limit = grace: dropped":                                    "SURVIVED of 0 tests that reach it",
		"largest: if a > b: a > b: > becomes >=":                          "equivalent of 1 tests that reach it: " + reason,
		"largest: if a > b: a > b: negated":                               "MISTAKEN by TestWeak",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	for name := range got {
		if strings.Contains(name, "panic(") || strings.Contains(name, "127+1") {
			t.Errorf("does not compile, but was tried: %s", name)
		}
	}
}

func rewriteFile(t *testing.T, path string, f func(string) string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := f(string(data))
	if changed == string(data) {
		t.Fatalf("%s has not changed", path)
	}
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}
