package lab

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// A finding says what was expected of a system, and what was seen.
type finding struct {
	ok             bool
	expected, seen string
}

// Check notes what was expected of the system, what was seen, and whether the
// two agree.
func (r *Run) Check(ok bool, expected, seen string, args ...any) {
	r.findings = append(r.findings, finding{ok, expected, fmt.Sprintf(seen, args...)})
}

// Left says in words what closing a system has left: an error, or goroutines.
func Left(err error, goroutines int) string {
	s := "all closed"
	if err != nil {
		s = err.Error()
	}
	if goroutines > 0 {
		return fmt.Sprintf("%s; %d goroutines left", s, goroutines)
	}
	return s + ", no goroutine left"
}

// conclude prints the verdict, and returns what is wrong. err is the error of
// System.Run: if it is not nil, the system could not do its work.
func (r *Run) conclude(w io.Writer, err error) error {
	fmt.Fprintln(w)
	longest := len("Expected")
	var wrong []error
	for _, f := range r.findings {
		longest = max(longest, len(f.expected))
		if !f.ok {
			wrong = append(wrong, fmt.Errorf("%s: %s", f.expected, f.seen))
		}
	}
	if len(r.findings) > 0 {
		fmt.Fprintf(w, "%-8s%-*s  Seen\n", "Verdict", longest, "Expected")
	}
	for _, f := range r.findings {
		is := "ok"
		if !f.ok {
			is = "FAILED"
		}
		fmt.Fprintf(w, "%-8s%-*s  %s\n", is, longest, f.expected, wrap(f.seen, longest+10))
	}
	if err != nil {
		wrong = append(wrong, err)
		fmt.Fprintf(w, "FAILED (%s): %s\n", r.Library(), wrap(err.Error(), 2))
		return errors.Join(wrong...)
	}
	fmt.Fprintln(w, wrap(r.summary(len(wrong)), 0))
	return errors.Join(wrong...)
}

// summary says in one or two sentences what was shown.
func (r *Run) summary(wrong int) string {
	all := len(r.findings)
	if wrong == 0 {
		s := fmt.Sprintf("ok (%s): all %d as expected.", r.Library(), all)
		if r.Plain {
			return s + " This run was too short to show the leak."
		}
		return s + " " + r.Shown
	}
	s := fmt.Sprintf("FAILED (%s): %d of %d not as expected.", r.Library(), wrong, all)
	if r.Plain {
		return s + " " + r.Shown
	}
	return s + " This is not as it should be."
}

// wrap indents all lines but the first. It breaks lines that are too long for
// the screen.
func wrap(text string, indent int) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = wrapLine(line, indent, indent)
	}
	return strings.Join(lines, "\n"+strings.Repeat(" ", indent))
}

// wrapLine breaks a line if it is too long for the screen. The line begins in
// column at. The lines after the break begin in column indent.
func wrapLine(line string, at, indent int) string {
	if at+len(line) <= width {
		return line
	}
	var b strings.Builder
	lead := line[:len(line)-len(strings.TrimLeft(line, " "))]
	b.WriteString(lead)
	at += len(lead)
	for i, word := range strings.Fields(line) {
		switch {
		case i > 0 && at+1+len(word) > width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			at = indent
		case i > 0:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += len(word)
	}
	return b.String()
}
