package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"gonum.org/v1/plot"
)

type scaleOptions struct {
	conns    []int
	streams  int // open on each connection
	rounds   int
	cycles   int // in each round
	deadline time.Duration
}

// The figures of a scale, in the order of the table.
const (
	cycleSame  = "CPU of a cycle on the same few connections"
	cycleAll   = "CPU of a cycle on all connections in turn"
	collection = "CPU of a garbage collection"
	stats      = "CPU of Guard.Stats"
	late       = "Guard.Shutdown returns after its deadline"
	closing    = "CPU of Guard.Shutdown"
)

// A scaleResult has the values for one number of connections, by figure and
// library.
type scaleResult map[string]map[string][]float64

func (r scaleResult) add(figure, library string, v float64) {
	if r[figure] == nil {
		r[figure] = map[string][]float64{}
	}
	r[figure][library] = append(r[figure][library], v)
}

// ratios returns quiclife's values divided by quic-go's in the same round.
func (r scaleResult) ratios(figure string) (all []float64) {
	for i, v := range r[figure]["quiclife"] {
		all = append(all, v/r[figure][baseline][i])
	}
	return all
}

// differences returns quiclife's values minus quic-go's in the same round.
func (r scaleResult) differences(figure string) (all []float64) {
	for i, v := range r[figure]["quiclife"] {
		all = append(all, v-r[figure][baseline][i])
	}
	return all
}

func doScale(w io.Writer, o scaleOptions, svg string) error {
	var all []scaleResult
	for _, conns := range o.conns {
		fmt.Fprintf(os.Stderr, "%d connections\n", conns)
		r, err := scaleOf(o, conns)
		if err != nil {
			return fmt.Errorf("%d connections: %w", conns, err)
		}
		all = append(all, r)
	}
	writeScale(w, o, all)
	if svg != "" {
		return drawScale(svg, o, all)
	}
	return nil
}

// scaleOf measures conns connections on both libraries.
func scaleOf(o scaleOptions, conns int) (_ scaleResult, err error) {
	clients := map[string]*worker{}
	order := []string{baseline, "quiclife"}
	for _, library := range order {
		peer, err := startWorker(peerRole, strconv.Itoa(o.streams))
		if err != nil {
			return nil, err
		}
		defer peer.stop()
		addr, err := peer.line()
		if err != nil {
			return nil, err
		}
		c, err := startWorker(library, addr, strconv.Itoa(conns), strconv.Itoa(o.streams))
		if err != nil {
			return nil, err
		}
		defer c.stop()
		clients[library] = c
	}
	for _, library := range order {
		if _, err := clients[library].line(); err != nil { // it has all connections
			return nil, err
		}
	}
	r := scaleResult{}
	ask := func(figure, library, command string, args ...any) {
		if err == nil {
			var v float64
			if v, err = clients[library].ask(command, args...); err == nil {
				r.add(figure, library, v)
			}
		}
	}
	// One more round, the first, warms up.
	for round := range o.rounds + 1 {
		if round == 1 {
			r = scaleResult{}
		}
		for _, f := range []struct {
			figure, command string
			args            []any
		}{
			{cycleSame, "cycle", []any{o.conns[0], o.cycles}},
			{cycleAll, "cycle", []any{conns, o.cycles}},
			{collection, "collect", nil},
		} {
			for i := range order {
				ask(f.figure, order[(i+round)%2], f.command, f.args...)
			}
		}
		ask(stats, "quiclife", "stats")
	}
	ask(late, "quiclife", "shutdown", o.deadline)
	ask(closing, "quiclife", "closed")
	return r, err
}

// A worker is another process of this program. It does one thing at a time.
type worker struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
}

func startWorker(role string, args ...string) (*worker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &worker{cmd, stdin, bufio.NewReader(stdout)}, cmd.Start()
}

// line returns the next line of the worker's output.
func (w *worker) line() (string, error) {
	s, err := w.stdout.ReadString('\n')
	if err != nil {
		return "", errors.New("a process of the benchmark has ended")
	}
	return strings.TrimSpace(s), nil
}

// ask lets the worker measure something.
func (w *worker) ask(command string, args ...any) (float64, error) {
	fmt.Fprintln(w.stdin, append([]any{command}, args...)...)
	s, err := w.line()
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(s, 64)
}

// stop ends the worker. Its output is lost.
func (w *worker) stop() {
	w.stdin.Close()
	timer := time.AfterFunc(5*time.Second, func() { w.cmd.Process.Kill() })
	defer timer.Stop()
	w.cmd.Wait()
}

func writeScale(w io.Writer, o scaleOptions, all []scaleResult) {
	cells := []string{""}
	for _, n := range o.conns {
		cells = append(cells, fmt.Sprintf("%d connections", n))
	}
	header(w, cells...)
	line := func(name string, of func(scaleResult) string) {
		cells := []string{name}
		for _, r := range all {
			cells = append(cells, of(r))
		}
		row(w, cells...)
	}
	for _, f := range []string{cycleSame, cycleAll, collection} {
		unit, by := "µs", 1e3
		if f == collection {
			unit, by = "ms", 1e6
		}
		line(f+": quic-go", func(r scaleResult) string { return spread(r[f][baseline], by, unit, -1) })
		line(f+": quiclife", func(r scaleResult) string { return spread(r[f]["quiclife"], by, unit, -1) })
		if unit == "ms" {
			line(f+": difference", func(r scaleResult) string { return spread(r.differences(f), by, unit, 1) })
		} else {
			line(f+": ratio", func(r scaleResult) string { return spread(r.ratios(f), 1, "", 2) })
		}
	}
	line(stats, func(r scaleResult) string { return spread(r[stats]["quiclife"], 1e6, "ms", -1) })
	line(late, func(r scaleResult) string { return digits(median(r[late]["quiclife"])/1e6) + " ms" })
	line(closing, func(r scaleResult) string { return digits(median(r[closing]["quiclife"])/1e6) + " ms" })
}

func drawScale(file string, o scaleOptions, all []scaleResult) error {
	of := func(figure, library string) (at [][]float64) {
		for _, r := range all {
			at = append(at, r[figure][library])
		}
		return at
	}
	both := func(figure, title, unit string, by float64) (*plot.Plot, error) {
		return drawLines(title, unit, by, o.conns, map[string][][]float64{
			baseline: of(figure, baseline), "quiclife": of(figure, "quiclife"),
		}, []string{baseline, "quiclife"})
	}
	var panels []*plot.Plot
	for _, f := range []struct {
		figure, title, unit string
		by                  float64
	}{
		{cycleSame, fmt.Sprintf("CPU of a cycle, %d of them busy", o.conns[0]), "µs", 1e3},
		{cycleAll, "CPU of a cycle, all busy in turn", "µs", 1e3},
		{collection, "CPU of a garbage collection", "ms", 1e6},
	} {
		p, err := both(f.figure, f.title, f.unit, f.by)
		if err != nil {
			return err
		}
		panels = append(panels, p)
	}
	return save(file, [][]*plot.Plot{panels})
}
