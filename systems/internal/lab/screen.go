package lab

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// A screen prints lines. On a terminal it also shows a progress bar below them.
type screen struct {
	w        io.Writer
	terminal bool

	mu      sync.Mutex // guards the fields below
	head    string     // the head that was printed last
	bar     string     // the bar that is on the terminal
	news    string     // the content of the last table line
	same    string     // the last line that was left out because it had the same news
	leftOut int        // how many lines were left out
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		s.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return s
}

func (s *screen) printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.printSame()
	s.print(strings.TrimRight(fmt.Sprintf(format, args...), "\n"), s.bar)
}

// print replaces the bar on the terminal with text, and a new bar below it.
func (s *screen) print(text, bar string) {
	s.wipe()
	fmt.Fprintln(s.w, text)
	s.show(bar)
}

// show shows a bar. The old one must have been wiped.
func (s *screen) show(bar string) {
	fmt.Fprint(s.w, bar)
	s.bar = bar
}

// line prints a line of a table and the bar. If the head is new, it prints the
// head first. If several lines in a row have the same news, only the first and
// the last are printed.
func (s *screen) line(head, line, news string, done float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bar := ""
	if s.terminal {
		const width = 40
		n := min(int(done*width), width)
		bar = fmt.Sprintf("[%s%s] %3.0f%%", strings.Repeat("=", n), strings.Repeat(" ", width-n), min(100*done, 100))
	}
	if head == s.head && news == s.news {
		s.same = line
		s.leftOut++
		s.wipe()
		s.show(bar)
		return
	}
	s.printSame()
	s.news = news
	if head != s.head {
		s.head = head
		line = head + "\n" + line
	}
	s.print(line, bar)
}

// printSame prints the last line that was left out, if any. The next line is
// then printed, whatever its news.
func (s *screen) printSame() {
	s.news = ""
	if s.leftOut > 1 {
		s.print("  ... the same until", s.bar)
	}
	if s.leftOut > 0 {
		s.print(s.same, s.bar)
	}
	s.leftOut = 0
}

func (s *screen) wipe() {
	if s.bar != "" {
		fmt.Fprint(s.w, "\r\x1b[K")
	}
}

// end prints the last line if it was left out, and removes the bar.
func (s *screen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.printSame()
	s.wipe()
	s.bar = ""
}
