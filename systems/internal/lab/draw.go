package lab

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// draw draws the runs into a file. It runs systems/plot as a command, so that
// the systems need not link a plotting library.
func (s System) draw(file string, runs ...*Run) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/quiclife/quiclife/systems").Output()
	if err != nil {
		return fmt.Errorf("-plot is for a clone of the repository, with Go installed: %w", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(module)), "plot")
	cmd := exec.Command("go", "-C", dir, "run", ".", "-title", s.Name+": "+s.Title, "-o", file, fmt.Sprintf("-requests=%t", s.DrawRequests))
	cmd.Stdin = table(runs)
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("drawing failed: %w", err), errors.New(string(out)))
	}
	return nil
}

// table returns what systems/plot reads: a line for each sample and each event.
// Only events have a name.
func table(runs []*Run) *bytes.Buffer {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.Write([]string{"library", "seconds", "held", "heap", "requests", "event"})
	for _, r := range runs {
		for _, s := range r.samples {
			w.Write([]string{
				r.Library(),
				seconds(s.At),
				strconv.FormatInt(s.Held, 10),
				strconv.FormatUint(s.Heap, 10),
				strconv.FormatInt(s.Requests, 10),
				"",
			})
		}
		r.mu.Lock()
		for _, e := range r.events {
			w.Write([]string{r.Library(), seconds(e.at), "", "", "", e.name})
		}
		r.mu.Unlock()
	}
	w.Flush()
	return &b
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }
