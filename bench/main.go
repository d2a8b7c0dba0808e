// Bench measures quiclife beside what else a Go program can use for many
// streams on one connection:
//
//	go run ./bench                  # tables in markdown, in about four minutes
//	go run ./bench -svg bench.svg   # and a picture
//	go run ./bench -quick           # does it run? Its figures say little
//	go run ./bench -scale           # 30, 300 and 3,000 connections
//
// # What is measured
//
// All of it over loopback, with both ends on the same library, in one process.
// The libraries take turns in rounds, so that what else the machine does hits
// them alike. A run has a connection of its own, which is warmed up first.
//
//   - A cycle: open a stream, send 100 bytes, read the same 100 bytes to the
//     io.EOF, let the stream go. One after the other, and 64 at a time on one
//     connection. CPU is the processor time of the process, so both ends and the
//     garbage collector.
//   - Throughput: one stream, Writes of one size, until the peer has read all.
//   - Heap: what an open stream adds to the live heap, both ends together, once
//     a byte has gone each way. 800 streams on 10 connections.
//   - What is left behind: eight ways of being done with a stream, 20 streams
//     each, one after the other. In each one end does what programs do, and the
//     other one does everything right. What the library keeps is then counted at
//     each end, the connection still open: a second later, and once more after
//     garbage collections, up to three seconds later.
//
// The first table has medians and, in brackets, quartiles. Those of quic-go and
// of allocations and heap are absolute. The others are ratios to quic-go in
// the same round: less is better for time and CPU, more is for throughput. In
// the second table "20 + 0" means that of 20 streams the client keeps 20 and the
// server none, and "0 (GC)" that none are left, once the garbage collector has
// run.
//
// # The libraries
//
// Each is used as its documentation says, with its defaults, in the version that
// go.mod names.
//
//   - quic-go and quiclife. For quiclife both ends are wrapped, and each stream
//     is released.
//   - go-libp2p's QUIC transport without a host around it: no resource manager,
//     no negotiation of a protocol. v0.51.0 asks for quic-go v0.64.1, and builds
//     with v0.65.0, which it gets here. It has a configuration of its own, with
//     256 streams and 10 MB windows. Streams are half-closed with CloseWrite, and
//     closed when done.
//   - golang.org/x/net/quic. It buffers until Flush or CloseWrite. It counts a
//     stream as open until both of its halves were closed here, so CloseRead
//     follows the io.EOF. It does not tell which streams it keeps: those that are
//     reachable after a collection are counted.
//   - hashicorp/yamux over TLS over TCP. Its Close ends the send half. No call
//     stops reading. A stream that was closed here and that the peer does not
//     close is dropped after five minutes (StreamCloseTimeout); the table shows
//     what is left after seconds.
//   - HTTP/2 of net/http: a cycle is a POST.
//
// webtransport-go is missing: no released version, v0.13.0 being the newest,
// builds with the quic-go that quiclife needs, v0.65.0. Its http3 has changed.
//
// # Scale
//
// With -scale a process holds 30, 300 and then 3,000 connections, each with 100
// open streams. The other ends are in a process of their own, so that CPU is
// that of one end. There is one such pair of processes on quic-go and one on
// quiclife, at the same time, and they take turns. Each process has one UDP
// socket for all of its connections, which are at rest but for what is measured:
//
//   - a cycle, as above, 16 at a time: on the same 30 connections at each scale,
//     and on all of them in turn, which are cold in the processor's caches then;
//   - a collection: the processor time from runtime.GC until the process is at
//     rest again. quiclife looks for dropped streams then;
//   - Guard.Stats, and Guard.Shutdown with a deadline 5 s ahead, which passes.
//
// With 3,000 connections the four processes take 8 GB of memory together.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

func main() {
	// It is an option of quic-go's that is read when a socket is first used.
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	if role := os.Getenv(roleVariable); role != "" {
		if err := play(role); err != nil {
			fmt.Fprintf(os.Stderr, "bench, %s: %v\n", role, err)
			os.Exit(1)
		}
		return
	}
	rounds := flag.Int("rounds", 9, "how many `rounds` there are")
	run := flag.Duration("run", 400*time.Millisecond, "how long a run lasts")
	quick := flag.Bool("quick", false, "measure as little as possible, in less than 20 s")
	scale := flag.Bool("scale", false, "measure 30, 300 and 3,000 connections instead")
	svg := flag.String("svg", "", "draw into this `file` too")
	flag.Parse()
	if err := do(os.Stdout, options{*rounds, *run}, *quick, *scale, *svg); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// do measures, and writes the tables to w. What it is at goes to stderr.
func do(w io.Writer, o options, quick, scale bool, svg string) error {
	if o.rounds < 1 || o.run <= 0 {
		return fmt.Errorf("-rounds and -run have to be positive")
	}
	if svg != "" && filepath.Ext(svg) != ".svg" {
		return fmt.Errorf("-svg draws .svg files, not %q", svg)
	}
	if scale {
		s := scaleOptions{conns: []int{30, 300, 3000}, streams: 100, rounds: 7, cycles: 10_000, deadline: 5 * time.Second}
		if quick {
			s = scaleOptions{conns: []int{3, 30}, streams: 10, rounds: 2, cycles: 500, deadline: 100 * time.Millisecond}
		}
		return doScale(w, s, svg)
	}
	streams := 20
	if quick {
		o, streams = options{2, 20 * time.Millisecond}, 3
	}
	fmt.Fprintln(os.Stderr, "what is left behind")
	cells, err := leftBehind(patterns, subjects, streams)
	if err != nil {
		return err
	}
	all, err := measureAll(o, measures(), subjects, os.Stderr)
	if err != nil {
		return err
	}
	writeFigures(w, measures(), subjects, all)
	fmt.Fprintf(w, "\nOf %d streams, the client and the server keep:\n\n", streams)
	writeCells(w, patterns, subjects, cells)
	if svg != "" {
		return drawFigures(svg, subjects, all)
	}
	return nil
}
