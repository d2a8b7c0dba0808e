// Bench compares quiclife with other libraries that give a Go program many
// streams on one connection:
//
//	go run ./bench                  # tables in markdown, in about four minutes
//	go run ./bench -svg bench.svg   # and a picture
//	go run ./bench -quick           # only to see that it runs: the figures say little
//	go run ./bench -scale           # 30, 300 and 3,000 connections
//
// # What is measured
//
// Everything runs over loopback, with both ends on the same library, in one
// process. The libraries take turns in rounds, so that other work of the machine
// slows all of them alike. A run makes its own connection, and warms it up first.
//
//   - A cycle: open a stream, send 100 bytes, read the same 100 bytes and the
//     io.EOF, end the stream. Cycles run one after the other, and 64 at a time
//     on one connection. CPU is the processor time of the process, so it has
//     both ends and the garbage collector.
//   - Throughput: one stream, Writes of one size, until the peer has read all.
//   - Heap: what an open stream adds to the live heap, both ends together, once
//     a byte has gone each way. It is measured with 800 streams on 10
//     connections.
//   - What is left behind: eight ways to stop using a stream, with 20 streams
//     each, one after the other. One end does what programs often do, and the
//     other end does everything right. While the connection is open, the streams
//     that the library keeps are counted at each end: within a second, and again
//     after garbage collections, within three more seconds.
//
// The first table has medians, and quartiles in brackets. Allocations, heap and
// all figures of quic-go are absolute. The others are ratios to quic-go in the
// same round. For time and CPU, less is better; for throughput, more is better.
// In the second table "20 + 0" means that of 20 streams the client keeps 20 and
// the server none. "0 (GC)" means that none is left, once the garbage collector
// has run.
//
// # The libraries
//
// Each is used as its documentation says, with its defaults, in the version of
// go.mod.
//
//   - quic-go and quiclife. For quiclife both ends are wrapped, and each stream
//     is released.
//   - go-libp2p's QUIC transport without a host around it: no resource manager,
//     no protocol negotiation. v0.51.0 asks for quic-go v0.64.1, and also builds
//     with v0.65.0, which it gets here. It has its own configuration, with 256
//     streams and 10 MB windows. Streams are half-closed with CloseWrite, and
//     closed in the end.
//   - golang.org/x/net/quic. It buffers until Flush or CloseWrite. It counts a
//     stream as open until this side has closed both halves, so CloseRead follows
//     the io.EOF. It does not say which streams it keeps. So we count those that
//     are reachable after a collection.
//   - hashicorp/yamux over TLS over TCP. Its Close ends the send half. No call
//     stops reading. If the peer does not close a stream that this side has
//     closed, yamux drops it after five minutes (StreamCloseTimeout). The table
//     shows what is left after seconds.
//   - HTTP/2 of net/http. A cycle is a POST.
//
// webtransport-go is missing. Its newest release, v0.13.0, does not build with
// quic-go v0.65.0, whose http3 has changed.
//
// # Scale
//
// With -scale a process holds 30, 300 and then 3,000 connections, each with 100
// open streams. The other ends are in another process, so CPU is that of one end.
// One such pair of processes is on quic-go and one on quiclife. They run at the
// same time, and take turns. Each process has one UDP socket for all of its
// connections. The connections are at rest, except for what is measured:
//
//   - cycles, as above, 16 at a time: on the same 30 connections at each scale,
//     and on all connections in turn, which are then cold in the processor's
//     caches;
//   - a collection: the processor time from runtime.GC until the process is at
//     rest again, while quiclife looks for dropped streams;
//   - Guard.Stats;
//   - Guard.Shutdown with a deadline of 5 s, which passes.
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
	// quic-go reads this option when it first uses a socket.
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	if role := os.Getenv(roleVariable); role != "" {
		if err := play(role); err != nil {
			fmt.Fprintf(os.Stderr, "bench, %s: %v\n", role, err)
			os.Exit(1)
		}
		return
	}
	rounds := flag.Int("rounds", 9, "number of `rounds`")
	run := flag.Duration("run", 400*time.Millisecond, "duration of a run")
	quick := flag.Bool("quick", false, "measure as little as possible, in less than 20 s, to see that it runs")
	scale := flag.Bool("scale", false, "measure 30, 300 and 3,000 connections instead")
	svg := flag.String("svg", "", "also draw the figures into this SVG `file`")
	flag.Parse()
	if err := do(os.Stdout, options{*rounds, *run}, *quick, *scale, *svg); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// do measures, and writes the tables to w. It shows its progress on stderr.
func do(w io.Writer, o options, quick, scale bool, svg string) error {
	if o.rounds < 1 || o.run <= 0 {
		return fmt.Errorf("-rounds and -run must be positive")
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
