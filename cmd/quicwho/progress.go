package main

import (
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// A progress shows on a terminal how much was read, if reading takes long.
type progress struct {
	bar  *progressbar.ProgressBar // nil if there is no terminal
	done int64                    // bytes
}

// newProgress returns a progress that shows nothing before patience is over. total
// is the number of bytes to read, or -1 if it is not known.
func newProgress(terminal io.Writer, patience time.Duration, total int64) *progress {
	return &progress{bar: progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(&lateWriter{terminal, time.Now().Add(patience)}),
		progressbar.OptionSetDescription("reading"),
		progressbar.OptionShowBytes(true),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetSpinnerChangeInterval(0), // no goroutine
		progressbar.OptionClearOnFinish(),
	)}
}

// A lateWriter discards what is written before the time from.
type lateWriter struct {
	w    io.Writer
	from time.Time
}

func (l *lateWriter) Write(b []byte) (int, error) {
	if time.Now().Before(l.from) {
		return len(b), nil
	}
	return l.w.Write(b)
}

// reader returns a reader of r that counts the bytes.
func (p *progress) reader(r io.Reader) io.Reader {
	if p.bar == nil {
		return r
	}
	return &countedReader{r, p}
}

type countedReader struct {
	r io.Reader
	p *progress
}

func (c *countedReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.p.done += int64(n)
	c.p.bar.Set64(c.p.done) // ignore an error: if the terminal fails, nobody can see it
	return n, err
}

// clear makes room for other output. The bar comes back when more is read.
func (p *progress) clear() {
	if p.bar != nil {
		p.bar.Clear()
	}
}
