// Mutation breaks quiclife in one place at a time, and requires that a test
// fails. From the root of the repository:
//
//	go -C mutation run .
//
// It prints a line for each mutation, and the score. Its exit status is 1 if a
// mutation could not be applied, did not compile, or survived without being known
// as equivalent.
//
// These mutations were written by hand. Others are made from the syntax tree, so
// that nobody chooses them. This tries 300, spread over the files, and lists those
// that survive:
//
//	go -C mutation run . -generate 300 -seed 1
//
// It is no error if some survive. To try one again, or all of a file:
//
//	go -C mutation run . -generate 300 -run '^write.go:123:'
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"
)

var (
	generated = flag.Int("generate", 0, "try `n` generated mutations in place of the list")
	seed      = flag.Uint64("seed", 1, "the seed that chooses the generated mutations")
	runFlag   = flag.String("run", "", "try only the mutations that match this `regexp`; they look like \"closer.go: claim: ...\" or \"closer.go:12:3: ...\"")
	list      = flag.Bool("list", false, "print the mutations, and do not try them")
	root      = flag.String("root", "..", "the `directory` of the library")
	parallel  = flag.Int("parallel", 2, "how many mutations to try at a time")
	trust     = flag.Bool("trust", false, "do not first run the tests without a mutation")
	timeout   = flag.Duration("timeout", 2*time.Minute, "how long a test may run, if nothing is known of its usual time")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "mutation:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	match, err := regexp.Compile(*runFlag)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutation")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	start := time.Now()
	if err := copyModule(filepath.Join(dir, "lib"), *root); err != nil {
		return err
	}
	lib, err := load(ctx, filepath.Join(dir, "lib"))
	if err != nil {
		return err
	}
	var chosen []mutation
	if *generated > 0 {
		if chosen, err = lib.compiling(generate(lib)); err != nil {
			return err
		}
	} else {
		chosen = all()
	}
	chosen = slices.DeleteFunc(chosen, func(m mutation) bool { return !match.MatchString(m.String()) })
	if *generated > 0 {
		chosen = sample(chosen, *generated, *seed)
	}
	number(chosen)
	if *list {
		for _, m := range chosen {
			fmt.Println(m)
		}
		return nil
	}
	r := &runner{lib: lib, work: dir, slack: 5 * time.Second}
	if err := r.prepare(ctx, chosen); err != nil {
		return err
	}
	fmt.Printf("%d mutations, %d tests (%v)\n", len(chosen), len(r.tests), time.Since(start).Round(time.Second))

	var mu sync.Mutex // guards the variables below, and the output
	var count [numVerdicts]int
	var survivors []outcome
	err = each(ctx, chosen, func(m mutation) error {
		start := time.Now()
		o := r.try(ctx, m)
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() == nil {
			count[o.verdict]++
			if o.verdict == survived {
				survivors = append(survivors, o)
			}
			fmt.Printf("%v (%.1fs)\n", o, time.Since(start).Seconds())
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Printf("%d mutations: %d killed, %d equivalent, %d equivalent but killed, %d survived, %d stale, %d do not compile (%v)\n",
		len(chosen), count[killed], count[equivalent], count[mistaken], count[survived], count[stale], count[broken], time.Since(start).Round(time.Second))
	if *generated > 0 {
		dead := count[killed] + count[mistaken]
		fmt.Printf("score: %.1f%% of the mutations that are not equivalent\n", 100*float64(dead)/float64(max(1, dead+count[survived])))
		slices.SortFunc(survivors, func(a, b outcome) int { return cmp.Compare(a.id, b.id) })
		for _, o := range survivors {
			fmt.Println(o)
		}
		return nil
	}
	if count[survived]+count[stale]+count[broken] > 0 {
		return errors.New("the tests or the list have holes")
	}
	return nil
}

// A verdict is the result of trying a mutation.
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

type outcome struct {
	mutation
	verdict
	how string // by which test, or why
}

func (o outcome) String() string { return fmt.Sprintf("%-10v %v: %s", o.verdict, o.mutation, o.how) }

// each calls f with each of the values, -parallel at a time, until ctx ends or
// one fails.
func each[T any](ctx context.Context, values []T, f func(T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan T)
	var wg sync.WaitGroup
	for range *parallel {
		wg.Go(func() {
			for v := range next {
				if ctx.Err() == nil {
					if err := f(v); err != nil {
						cancel(err)
					}
				}
			}
		})
	}
	for _, v := range values {
		next <- v
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}
