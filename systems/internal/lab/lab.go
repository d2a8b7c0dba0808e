// Package lab runs the example systems: it gives a system time, prints what it
// does once a second, draws it if asked to, and says whether it stayed healthy.
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
	About string        // what it does and what is to be seen, printed first
	For   time.Duration // how long the load lasts, unless -for says otherwise
	Alone bool          // there is no version on plain quic-go, and nothing to draw

	// Run builds the system, loads it until ctx is done, lets it come to rest,
	// and returns nil if it stayed healthy, else what is wrong. With r.Plain
	// it is built on quic-go, otherwise on quiclife. Run should bound what it
	// waits for after ctx is done: a system that is stuck is not healthy.
	Run func(ctx context.Context, r *Run) error
}

// Options are the flags of a system.
type Options struct {
	For   time.Duration
	Plain bool
	Plot  string // file to draw to
	HTTP  string // address to serve the page and the metrics at
}

// Main is the main function of a system. The exit status is 1 if the system was
// not healthy, also with -plain, where that is what is to be seen.
func (s System) Main() {
	opt := Options{For: s.For}
	flag.DurationVar(&opt.For, "for", s.For, "how long to load the system")
	if !s.Alone {
		flag.BoolVar(&opt.Plain, "plain", false, "build the system on plain quic-go")
		flag.StringVar(&opt.Plot, "plot", "", "run it on both, one after the other, and draw them into this `file.svg`")
	}
	flag.StringVar(&opt.HTTP, "http", "", HTTPUsage)
	flag.Parse()
	if err := s.Do(os.Stdout, opt); err != nil {
		os.Exit(1)
	}
}

// Do runs the system as opt says. It returns what is wrong with it; with Plot,
// where both are run, with the one on quiclife.
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
		_, err := s.once(w, opt.Plain, opt)
		return err
	}
	plain, _ := s.once(w, true, opt)
	fmt.Fprintln(w)
	guarded, verdict := s.once(w, false, opt)
	err := draw(opt.Plot, s.Name, plain, guarded)
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
	if ext := filepath.Ext(opt.Plot); opt.Plot != "" && ext != ".svg" {
		return fmt.Errorf("-plot draws .svg files, not %q", ext)
	}
	return nil
}

func (s System) once(w io.Writer, plain bool, opt Options) (*Run, error) {
	r := &Run{Plain: plain, For: opt.For, Start: time.Now(), screen: newScreen(w), keep: opt.Plot != ""}
	fmt.Fprintf(w, "%s on %s, %v\n%s\n", s.Name, r.Library(), opt.For, s.About)
	fmt.Fprintln(w, "Streams (open, limit, held by quic-go) are those of all connections, at both ends.")
	if plain && opt.HTTP != "" {
		fmt.Fprintln(w, "Plain quic-go has no Guard: the page has nothing to show of this run, and the metrics are those of the Go runtime.")
	}
	runtime.GC() // so that the live heap is known, and nothing of an earlier run is in it
	ctx, cancel := context.WithTimeout(context.Background(), opt.For)
	defer cancel()
	err := s.Run(ctx, r)
	r.stopWatching()
	if err != nil {
		fmt.Fprintf(w, "FAILED (%s): %v\n", r.Library(), err)
	} else {
		fmt.Fprintf(w, "ok (%s)\n", r.Library())
	}
	return r, err
}
