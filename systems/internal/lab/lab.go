// Package lab runs the example systems. It explains a system, runs it for a
// time, and prints a line about it once a second. At the end it says in words
// whether the system stayed healthy. If asked to, it draws a picture of the run.
package lab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// A System is a whole program under load, in one process.
type System struct {
	Name  string
	Title string        // what it is, in a few words
	About string        // how it works, in two or three lines
	For   time.Duration // how long the load lasts, unless -for says otherwise
	Alone bool          // there is no version on plain quic-go, and no picture to compare
	// With names the part of quiclife that the full version uses. It is set only
	// if the system also has a version with nothing but the import line changed.
	With string
	// DrawRequests draws the answered requests beside the streams, instead of
	// the heap.
	DrawRequests bool

	Requests string // what the columns "requests" and "failed" count
	Columns  []Term // the columns that only this system has
	Events   []Term // the events that the system passes to Run.Event

	// Run builds the system, loads it until ctx is done, and lets it come to rest.
	// It calls r.Check to say what was expected and what was seen. It returns an
	// error if it could not do that. If r.Plain is set it builds the system on
	// quic-go, otherwise on quiclife. After ctx is done Run must not wait for
	// ever, because the system may be stuck.
	Run func(ctx context.Context, r *Run) error
}

// A Term is a word on the screen, and its meaning.
type Term struct{ Name, Meaning string }

// Options are the flags of a system.
type Options struct {
	For    time.Duration
	Plain  bool
	Import bool
	Plot   string // file to draw to
	HTTP   string // address at which to serve the page and the metrics
}

// Main is the main function of a system. The exit status is 1 if the system was
// not healthy. With -plain this is what one expects to see.
func (s System) Main() {
	opt := Options{For: s.For}
	flag.DurationVar(&opt.For, "for", s.For, "how long to load the system")
	if !s.Alone {
		flag.BoolVar(&opt.Plain, "plain", false, "build the system on plain quic-go")
		flag.StringVar(&opt.Plot, "plot", "", "run every version, one after another, and draw them into this `file.svg`")
	}
	if s.With != "" {
		flag.BoolVar(&opt.Import, "import", false, "build the system on quiclife, with only the import line changed")
	}
	flag.StringVar(&opt.HTTP, "http", "", HTTPUsage)
	flag.Parse()
	if err := s.Do(os.Stdout, opt); err != nil {
		os.Exit(1)
	}
}

// Do runs the system as opt says. It returns an error that says what is wrong
// with the system. With Plot it runs all versions, and returns what is wrong
// with those on quiclife.
func (s System) Do(w io.Writer, opt Options) error {
	if err := opt.check(); err != nil {
		fmt.Fprintln(w, err)
		return err
	}
	if opt.HTTP != "" {
		stop, err := ServeHTTP(w, opt.HTTP)
		if err != nil {
			fmt.Fprintln(w, err)
			return err
		}
		defer stop()
	}
	if opt.Plot == "" {
		_, err := s.once(w, opt)
		return err
	}
	var runs []*Run
	var verdict error
	run := func(plain, imported bool) {
		opt.Plain, opt.Import = plain, imported
		r, err := s.once(w, opt)
		if !plain {
			verdict = errors.Join(verdict, err)
		}
		runs = append(runs, r)
		fmt.Fprintln(w)
	}
	run(true, false)
	if s.With != "" {
		run(false, true)
	}
	run(false, false)
	err := s.draw(opt.Plot, runs...)
	if err != nil {
		fmt.Fprintln(w, err)
	} else {
		fmt.Fprintf(w, "drawn: %s\n", opt.Plot)
	}
	return errors.Join(verdict, err)
}

func (opt Options) check() error {
	if opt.For <= 0 {
		return fmt.Errorf("-for has to be positive, not %v", opt.For)
	}
	if opt.Plain && opt.Import {
		return errors.New("-plain and -import are two different versions: choose one")
	}
	if ext := filepath.Ext(opt.Plot); opt.Plot != "" && ext != ".svg" {
		return fmt.Errorf("-plot draws .svg files, not %q", ext)
	}
	return nil
}

func (s System) once(w io.Writer, opt Options) (*Run, error) {
	r := &Run{
		Plain: opt.Plain, Import: opt.Import, For: opt.For, Start: time.Now(),
		system: s, screen: newScreen(w), keep: opt.Plot != "",
	}
	s.explain(w, r)
	if opt.Plain && opt.HTTP != "" {
		fmt.Fprintln(w, "Plain quic-go has no Guard: the page shows nothing of this run, and the metrics are those of\nthe Go runtime.")
	}
	runtime.GC() // measures the live heap, and frees what an earlier run left
	ctx, cancel := context.WithTimeout(context.Background(), opt.For)
	defer cancel()
	err := s.Run(ctx, r)
	r.StopWatching()
	r.screen.end()
	return r, r.conclude(w, err)
}

// explain prints what the system is, and what the words on the screen mean.
func (s System) explain(w io.Writer, r *Run) {
	fmt.Fprintln(w, wrap(fmt.Sprintf("%s: %s. On %s, under load for %v.", s.Name, s.Title, r.Library(), r.For), 0))
	fmt.Fprintln(w, s.About)
	fmt.Fprintln(w, "Columns (streams are those of all connections, counted at both ends):")
	list(w, []Term{
		{"requests, failed", s.Requests},
		{"open, limit", `streams that the program counts as open ("?": it does not); the limit`},
		{"held", "streams that quic-go keeps in memory; one whose request is over is a leak"},
		{"heap MiB, goroutines", "live heap at the last garbage collection; goroutines of this process"},
	})
	list(w, s.Columns)
	fmt.Fprintln(w, "Events:")
	list(w, s.Events)
	fmt.Fprintln(w)
}

const width = 100 // of the screen

// list prints one term and its meaning per line.
func list(w io.Writer, terms []Term) {
	for _, t := range terms {
		fmt.Fprintf(w, "  %-*s  %s\n", meanings-4, t.Name, wrap(t.Meaning, meanings))
	}
}

const meanings = 24 // the column in which meanings begin
