package lab

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// A screen prints lines, and below them, on a terminal, a progress bar.
type screen struct {
	w        io.Writer
	terminal bool

	mu      sync.Mutex // guards the fields below
	head    string     // as last printed
	bar     string     // as it is on the terminal
	news    string     // what the last line of the table had to say
	same    string     // the last of the lines left out, that said it again
	leftOut int
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

// print prints text, and a bar below it in place of the one there is.
func (s *screen) print(text, bar string) {
	s.wipe()
	fmt.Fprintln(s.w, text)
	s.show(bar)
}

// show shows the bar where there is none.
func (s *screen) show(bar string) {
	fmt.Fprint(s.w, bar)
	s.bar = bar
}

// line prints a line of a table, under its head if that is new, and the bar. Of
// the lines that have the same news only the first and the last are printed.
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

// printSame prints the last of the lines left out. Those that follow are new.
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

// end prints what is left to print, and removes the bar.
func (s *screen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.printSame()
	s.wipe()
	s.bar = ""
}
