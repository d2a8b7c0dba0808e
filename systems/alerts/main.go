// Alerts tries the alerts of metrics/alerts.yml with a real Prometheus. It
// scrapes three runs of systems/cluster side by side:
//
//   - faulty: the clients keep streams in a list that nobody clears, and drop
//     others. quiclife cannot end streams that the program still refers to. So
//     every alert has to fire, QuiclifeConnectionsFull last.
//   - careless: the clients have the usual handler of systems/cluster, which
//     forgets streams. quiclife ends these, so QuiclifeStreamsLeak has to fire,
//     and no other alert.
//   - mended: the same program with that handler corrected. No alert may fire.
//
// Run it with
//
//	go run ./systems/alerts                  # about a minute
//	go run ./systems/alerts -board board.svg # also draws the dashboard of the faulty run
//
// The trial takes a minute instead of two hours, because all durations in
// alerts.yml are divided by 120, in windows, offsets and thresholds. So 10
// minutes are 5 seconds. Nothing else in the rules is changed. The trial needs
// Go and Debian's package prometheus. It listens on loopback only, and leaves
// nothing behind. The exit status is 1 if an alert does not do what it should.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	faster   = 120
	scraped  = 500 * time.Millisecond // the scrape interval: one minute of the real rules
	patience = 120 * time.Second      // how long all alerts may take to fire
)

// longer is how long the trial goes on after all expected alerts have fired. A
// wrong alert that comes a little late is seen in this time. It also gives the
// board time to show what full connections do.
var longer = 6 * time.Second

// A program is a run of systems/cluster.
type program struct {
	name string                  // the value of the flag -clients, and the name of the job
	fire func(alert string) bool // reports whether an alert should fire
}

var programs = []program{
	{"faulty", func(string) bool { return true }},
	{"careless", func(alert string) bool { return alert == "QuiclifeStreamsLeak" }},
	{"mended", func(string) bool { return false }},
}

func main() {
	board := flag.String("board", "", "draw the dashboard into this `file.svg`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, *board); err != nil {
		fmt.Fprintln(os.Stderr, "FAILED:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer, board string) (err error) {
	if _, err := exec.LookPath("prometheus"); err != nil {
		return fmt.Errorf("this needs Debian's package prometheus: %w", err)
	}
	dir, err := os.MkdirTemp("", "alerts")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	metrics, err := moduleDir("metrics")
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(metrics, "alerts.yml"))
	if err != nil {
		return err
	}
	rules, names := shorten(string(text)), alertNames(string(text))
	fmt.Fprintf(w, "metrics/alerts.yml, its durations divided by %d: 5 minutes are %v, an hour is %v. Scraped every %v.\n",
		faster, 5*time.Minute/faster, time.Hour/faster, scraped)

	ctx, cancel := context.WithCancel(ctx)
	var children []*child
	defer func() {
		cancel()
		for _, c := range children {
			<-c.ended
		}
	}()
	targets, err := startPrograms(ctx, dir, &children)
	if err != nil {
		return err
	}
	start := time.Now()
	p, err := startPrometheus(ctx, dir, rules, targets, &children)
	if err != nil {
		return err
	}
	fired, err := watch(ctx, w, p, children, names, start)
	if err != nil {
		return err
	}
	wrong := judge(w, names, fired, start)
	if err := p.check(ctx, time.Since(start)); err != nil {
		wrong = append(wrong, err)
	}
	if board != "" {
		if err := drawBoard(ctx, p, filepath.Join(metrics, "dashboard.json"), board, start); err != nil {
			return errors.Join(append(wrong, err)...)
		}
		fmt.Fprintf(w, "drawn: %s\n", board)
	}
	return errors.Join(wrong...)
}

func moduleDir(name string) (string, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/quiclife/quiclife/"+name).Output()
	if err != nil {
		return "", fmt.Errorf("this is for a clone of the repository, with Go installed: %w", err)
	}
	return strings.TrimSpace(string(dir)), nil
}

// An event is an alert that concerns a program.
type event struct{ alert, program string }

// watch waits until all expected alerts have fired, and then for the time longer.
// It gives up when patience has passed. It returns the time at which each alert
// first fired.
func watch(ctx context.Context, w io.Writer, p *prometheus, children []*child, names []string, start time.Time) (map[event]time.Time, error) {
	told := make(map[event]bool)
	var complete time.Time // when the last expected alert had fired
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(scraped):
		}
		for _, c := range children {
			select {
			case <-c.ended:
				return nil, fmt.Errorf("%s has ended early: %w\n%s", c.name, c.err, c.output())
			default:
			}
		}
		fired, err := p.fired(ctx, time.Since(start))
		if err != nil {
			return nil, err
		}
		missing := 0
		for _, name := range names {
			for _, program := range programs {
				e := event{name, program.name}
				at, ok := fired[e]
				if ok && !told[e] {
					told[e] = true
					fmt.Fprintf(w, "%5.1f s  %s: %s\n", at.Sub(start).Seconds(), program.name, name)
				}
				if !ok && program.fire(name) {
					missing++
				}
			}
		}
		if missing == 0 && complete.IsZero() {
			complete = time.Now()
		}
		if missing == 0 && time.Since(complete) > longer || time.Since(start) > patience {
			return fired, nil
		}
	}
}

// judge prints the table, and returns what is wrong.
func judge(w io.Writer, names []string, fired map[event]time.Time, start time.Time) (wrong []error) {
	fmt.Fprintf(w, "\n%-28s", "alert")
	for _, program := range programs {
		fmt.Fprintf(w, "%-22s", program.name)
	}
	fmt.Fprintln(w)
	for _, name := range names {
		fmt.Fprintf(w, "%-28s", name)
		for _, program := range programs {
			at, ok := fired[event{name, program.name}]
			said := "silent"
			if ok {
				said = fmt.Sprintf("firing after %.0f s", at.Sub(start).Seconds())
			}
			if ok != program.fire(name) {
				said += ", WRONG"
				wrong = append(wrong, fmt.Errorf("%s of the %s program: %s", name, program.name, said))
			}
			fmt.Fprintf(w, "%-22s", said)
		}
		fmt.Fprintln(w)
	}
	return wrong
}

// startPrograms builds systems/cluster and starts each program. It returns the
// addresses of their metrics.
func startPrograms(ctx context.Context, dir string, children *[]*child) (targets []string, err error) {
	systems, err := moduleDir("systems")
	if err != nil {
		return nil, err
	}
	cluster := filepath.Join(dir, "cluster")
	build := exec.CommandContext(ctx, "go", "build", "-o", cluster, "./cluster")
	build.Dir = systems
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the cluster: %w\n%s", err, out)
	}
	for _, program := range programs {
		c, err := startChild(ctx, program.name, cluster, "-clients", program.name, "-http", "localhost:0", "-for", (2 * patience).String())
		if err != nil {
			return nil, err
		}
		*children = append(*children, c)
		addr, err := c.await(ctx, `metrics: http://(\S+)/metrics`)
		if err != nil {
			return nil, err
		}
		targets = append(targets, addr)
	}
	return targets, nil
}
