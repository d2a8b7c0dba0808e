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
)

// draw has systems/plot, which not every system is to be built with,
// draw the runs into a file.
func draw(file, title string, runs ...*Run) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/quiclife/quiclife/systems").Output()
	if err != nil {
		return fmt.Errorf("-plot is for a clone of the repository, with Go installed: %w", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(module)), "plot")
	cmd := exec.Command("go", "-C", dir, "run", ".", "-title", title, "-o", file)
	cmd.Stdin = table(runs)
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("drawing failed: %w", err), errors.New(string(out)))
	}
	return nil
}

// table is what systems/plot reads.
func table(runs []*Run) *bytes.Buffer {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.Write([]string{"library", "seconds", "held", "heap"})
	for _, r := range runs {
		for _, s := range r.samples {
			w.Write([]string{
				r.Library(),
				strconv.FormatFloat(s.At.Seconds(), 'f', 3, 64),
				strconv.FormatInt(s.Held, 10),
				strconv.FormatUint(s.Heap, 10),
			})
		}
	}
	w.Flush()
	return &b
}
