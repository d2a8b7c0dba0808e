// Logs is a collector of log lines. Producers send batches of lines, each batch
// on its own unidirectional stream. The collector parses the lines, appends them
// to a file and syncs the file to the disk. Then it acknowledges the batch on a
// control stream.
//
//	go run ./systems/logs         # on quiclife
//	go run ./systems/logs -plain  # the same code on quic-go
//
// This happened to a real program. Its memory grew under load, by gigabytes,
// until the producers were stuck. Three mistakes add up:
//
//   - The collector returns records to their pool with a defer in a loop. So all
//     the records of a batch are kept until the handler returns.
//   - If a producer's source fails in the middle of a batch, the producer
//     forgets the stream. So the handler never returns.
//   - If a record cannot be parsed, or the parser panics, the handler leaves the
//     rest of the stream unread. So its slot and its data are never freed.
//
// Both versions have this code. One batch in five goes wrong, so that ten seconds
// show what would otherwise take days. Early in the load the collector is shut
// down, and another takes its place. In the middle of the load a producer, which
// is a separate process, is killed with SIGKILL. At the end each acknowledged
// line has to be in the file, once and byte for byte.
//
// On quic-go the number of streams held and the heap grow until the producers
// are stuck. On quiclife both stay flat. Each stream ends when its handler
// returns, fails or panics. A deadline keeps a handler from waiting for a stream
// that was forgotten (see [guarded.serve]). So the deferred calls run, and there
// are few of them. After a garbage collection quiclife resets and reports the
// streams that a producer forgot.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

const (
	producers  = 3                    // in this process; one more is a separate process
	batchLines = 200                  // lines in a batch
	batchEvery = 6 * time.Millisecond // from each producer
	batchTime  = time.Second          // how long a batch may take to arrive, on quiclife
	maxBatches = 100                  // the collector's MaxIncomingUniStreams, for each producer
	maxGrowth  = 8 << 20              // bytes by which the heap may have grown at the end
	slowStart  = 20 * time.Second     // how long a process may take to start and do something, on a slow machine
)

// quicConf lets a connection buffer a lot of unread data. With the default,
// flow control would block a connection before its slots are used up.
var quicConf = &quic.Config{
	MaxIncomingUniStreams:          maxBatches,
	InitialConnectionReceiveWindow: 16 << 20,
	MaxConnectionReceiveWindow:     64 << 20,
}

// patience says how long to wait for things that may never happen.
type patience struct {
	stall time.Duration // for a producer to send a batch
	dead  time.Duration // for a sign of life from another process: MaxIdleTimeout
	rest  time.Duration // for the system to come to rest, after the load and after dead has passed
	drain time.Duration // for a collector to shut down
}

func system(p patience) lab.System {
	return lab.System{
		Name:  "logs",
		Title: "a collector of log lines, faulty batches, a restart, and kill -9",
		About: fmt.Sprintf("%d producers send batches of %d lines, each batch on a unidirectional stream. The collector parses\n"+
			"them, writes and syncs them to a file, and then acknowledges the batch. One in five goes wrong: a\n"+
			"line is malformed, or the parser panics, or the producer stops in the middle and forgets it.", producers+1, batchLines),
		For:      10 * time.Second,
		Requests: "batches stored; batches that were refused, or that the parser panicked at",
		Columns:  []lab.Term{{Name: "lines", Meaning: "lines stored"}},
		Events: []lab.Term{
			{Name: shutdown, Meaning: "the collector is asked to finish what it has begun and to stop"},
			{Name: restarted, Meaning: "another collector has taken its place"},
			{Name: kill, Meaning: "a producer in a separate process is killed; another takes its place"},
			{Name: loadEnds, Meaning: "the producers stop; what is open should come to its end"},
		},
		Run: func(ctx context.Context, r *lab.Run) error { return run(ctx, r, p) },
	}
}

func main() {
	if isChild() {
		os.Exit(childMain())
	}
	system(patience{stall: 3 * time.Second / 2, dead: 6 * time.Second, rest: 5 * time.Second, drain: 8 * time.Second}).Main()
}

const (
	shutdown  = "shutdown"
	restarted = "restarted"
	kill      = "kill -9"
	loadEnds  = "load ends"
)

// A service is a collector on the network, on quic-go or on quiclife.
type service interface {
	listen() error
	shutdown(context.Context) error // after it, listen may be called again
	close() error
}

func run(ctx context.Context, r *lab.Run, p patience) (err error) {
	dir, err := os.MkdirTemp("", "logs")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	col, err := newCollector(filepath.Join(dir, "lines"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, col.file.Close()) }()
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, socket.Close()) }()

	y := &site{Run: r, patience: p, collector: col, addr: socket.LocalAddr().String()}
	if r.Plain {
		y.drain = min(y.drain, 2*time.Second) // some handlers never end, so waiting longer does not help
		y.service = &plain{collector: col, tr: &quic.Transport{Conn: socket}, conns: &y.conns}
		return load(ctx, y, quic.DialAddr)
	}
	y.service = newGuarded(socket, col, &y.conns, func(quiclife.Leak) { y.leaks.Add(1) })
	return load(ctx, y, producerGuard(func(quiclife.Leak) { y.forgotten.Add(1) }).DialAddr)
}

// A site is the whole system.
type site struct {
	*lab.Run
	patience
	*collector
	service   service
	addr      string
	conns     lab.Conns // all ends of connections in this process
	told      ledger
	producers []*producer // those in this process
	killed    int         // id of the producer that was killed
	killedAt  time.Time
	leaks     atomic.Int64 // streams that the collector leaked
	forgotten atomic.Int64 // streams that the producers in this process forgot
	wrong     []error      // what else went wrong
}
