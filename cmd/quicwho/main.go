// Quicwho reads qlog files of QUIC connections and says who holds their
// streams: the application at the end that wrote the file, the peer's, or the
// network.
//
//	QLOGDIR=/tmp/qlog ./program # on quic-go, with Tracer: qlog.DefaultConnectionTracer
//	quicwho /tmp/qlog/*.sqlog
//
// It prints two tables. The first shows the connections, with the most held
// streams first. The second shows the held streams, the oldest first. Below each
// stream it says which frames prove whose move it is. Both tables are about the
// moment of the last event in a file. Package
// [github.com/quiclife/quiclife/ledger] explains the rules, and what cannot be
// known.
//
// A file may be cut short, and then the output says what is missing. Unknown
// events are skipped. Several files are read one after the other. "-" reads the
// standard input, which may be several files joined, or the output of another
// program: zcat FILE.sqlog.gz | quicwho -. Files may have any size: they are read
// in one pass, and only the held streams are kept in memory. If reading takes
// more than a second, a terminal shows a progress bar.
//
// # Flags
//
//	-json      print one line of JSON for each connection, with all its streams held, instead of the tables
//	-plot F    draw the streams held over time, by whose move it is, to the SVG file F
//	-rows N    print at most N rows of each table; 0 means all (10)
//
// # Exit status
//
// The status is 0 if all files were read, even if some of them lack something. It
// is 1 for wrong flags, or if a file could not be read or written, or is not
// qlog. The files that could be read are still shown.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/quiclife/quiclife/ledger"
)

const usage = `Usage: quicwho [flags] FILE.sqlog...

Says who holds the streams of the QUIC connections in qlog files: our
application, the peer's, or the network. "-" reads the standard input.

`

func main() {
	c := command{in: os.Stdin, out: os.Stdout, err: os.Stderr, patience: time.Second}
	c.terminal = term.IsTerminal(int(os.Stderr.Fd()))
	os.Exit(c.run(os.Args[1:]))
}

// A command is one run of quicwho.
type command struct {
	in       io.Reader
	out, err io.Writer
	terminal bool          // err is a terminal
	patience time.Duration // the time before a progress bar appears
}

// run runs the command with args, and returns the exit status.
func (c *command) run(args []string) int {
	flags := flag.NewFlagSet("quicwho", flag.ContinueOnError)
	flags.SetOutput(c.err)
	flags.Usage = func() {
		fmt.Fprint(c.err, usage)
		flags.PrintDefaults()
		fmt.Fprint(c.err, "\nThe exit status is 0 if all went well, even if files lack something, and 1 if not.\n")
	}
	asJSON := flags.Bool("json", false, "print one line of JSON for each connection, with all its streams held, instead of the tables")
	plotTo := flags.String("plot", "", "draw the streams held over time to this SVG `file`")
	rows := flags.Int("rows", 10, "print at most this `number` of rows of each table; 0 means all")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 1
	case flags.NArg() == 0 || *rows < 0:
		flags.Usage()
		return 1
	}

	out := bufio.NewWriter(c.out)
	p := new(progress)
	if c.terminal {
		p = newProgress(c.err, c.patience, sizeOf(flags.Args()))
	}
	status := 0
	fail := func(err error) {
		p.clear()
		fmt.Fprintln(c.err, "quicwho:", harmless(err.Error(), 500))
		status = 1
	}
	s := summary{rows: *rows}
	var pictures *plots
	if *plotTo != "" {
		pictures = new(plots)
	}
	for _, name := range flags.Args() {
		conns, err := c.read(name, p, pictures)
		if err != nil {
			fail(fmt.Errorf("%s: %w", name, err))
			continue
		}
		for _, conn := range conns {
			b := bookOf(name, conn)
			if !*asJSON {
				s.add(b)
				continue
			}
			p.clear()
			err = errors.Join(err, b.writeJSON(out))
		}
		if err = errors.Join(err, out.Flush()); err != nil {
			fail(err)
			return status
		}
	}
	p.clear()
	if !*asJSON && len(s.books) > 0 {
		s.write(out)
	}
	if err := out.Flush(); err != nil {
		fail(err)
	}
	if pictures != nil && len(pictures.panels) > 0 {
		if err := pictures.write(*plotTo); err != nil {
			fail(err)
		}
	}
	return status
}

func (c *command) read(name string, p *progress, pictures *plots) ([]*ledger.Conn, error) {
	in := c.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, withoutPath(err)
		}
		defer f.Close()
		in = f
	}
	in = p.reader(in)
	if pictures == nil {
		conns, err := ledger.Read(in, nil)
		return conns, withoutPath(err)
	}
	var s sampler
	conns, err := ledger.Read(in, s.each)
	if err == nil {
		pictures.add(&s, conns)
	}
	return conns, withoutPath(err)
}

// withoutPath removes the file name from err, because the caller adds it.
func withoutPath(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}

// sizeOf returns the sum of the sizes of the files in bytes, or -1 if it is not
// known.
func sizeOf(names []string) (sum int64) {
	for _, name := range names {
		if name == "-" {
			return -1
		}
		info, err := os.Stat(name)
		switch {
		case err != nil: // opening the file will report it
		case !info.Mode().IsRegular():
			return -1
		default:
			sum += info.Size()
		}
	}
	return sum
}
