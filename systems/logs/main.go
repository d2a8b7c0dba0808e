// Logs is a collector of log lines. Producers send batches of them, each on a
// unidirectional stream of its own; the collector parses them, appends them to
// a file, syncs it to the disk, and then acknowledges the batch on a control stream.
//
//	go run ./systems/logs         # on quiclife
//	go run ./systems/logs -plain  # the same code on quic-go
//
// The case is one from the field: memory grows under load, by gigabytes, until
// the producers are stuck. Three things add up. The collector defers the return
// of each record, in a loop, so that all are kept until the handler ends. A
// producer whose source fails in the middle of a batch forgets the stream, so
// that the handler never ends. And a record that cannot be parsed, or that the
// parser panics at, has the handler return with the rest of the stream unread:
// its slot and its data are never given back.
//
// Both runs have that code, and one batch in five goes wrong, so that ten seconds
// show what takes days. Early in the load the collector is shut down and another
// takes its place; in the middle a producer, a process of its own, is killed
// with SIGKILL. In the end each line that was acknowledged has to be in the
// file, once and byte for byte.
//
// To be seen: on quic-go the streams held and the heap grow, until the producers
// are stuck. On quiclife both stay flat: a handler's stream ends with it, however
// it ends, and a handler need not wait for a stream that was forgotten
// ([guarded.serve]); what it deferred is run, and is not much. A stream that a
// producer forgets is reset after a garbage collection, and reported.
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
	producers  = 3                    // in this process; one more is a process of its own
	batchLines = 200                  // lines in a batch
	batchEvery = 6 * time.Millisecond // from each producer
	batchTime  = time.Second          // for a batch to arrive, on quiclife
	maxBatches = 100                  // the collector's MaxIncomingUniStreams, for each producer
	maxGrowth  = 8 << 20              // bytes of heap that may be left at the end
	slowStart  = 20 * time.Second     // for a process to start and do something, where all is slow
)

// quicConf lets a connection keep much unread data, as one does who was bitten
// by its flow control: else it is stuck before its slots are used up.
var quicConf = &quic.Config{
	MaxIncomingUniStreams:          maxBatches,
	InitialConnectionReceiveWindow: 16 << 20,
	MaxConnectionReceiveWindow:     64 << 20,
}

// patience is how long to wait for what may never come.
type patience struct {
	stall time.Duration // for a producer to send a batch
	dead  time.Duration // for a sign of life from another process: MaxIdleTimeout
	rest  time.Duration // for the system to come to rest, once that has passed and the load has ended
	drain time.Duration // for a collector that shuts down
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
			{Name: kill, Meaning: "a producer, a process of its own, is killed; another takes its place"},
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
	shutdown(context.Context) error // it can listen again afterwards
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
		y.drain = min(y.drain, 2*time.Second) // its handlers do not end, however long one waits
		y.service = &plain{collector: col, tr: &quic.Transport{Conn: socket}, conns: &y.conns}
		return load(ctx, y, quic.DialAddr)
	}
	y.service = newGuarded(socket, col, &y.conns, func(quiclife.Leak) { y.leaks.Add(1) })
	return load(ctx, y, producerGuard(func(quiclife.Leak) { y.forgotten.Add(1) }).DialAddr)
}

// A site is all there is of the system.
type site struct {
	*lab.Run
	patience
	*collector
	service   service
	addr      string
	conns     lab.Conns // both ends, but for those of the child processes
	told      ledger
	producers []*producer // those in this process
	killed    int         // id of the one that was
	killedAt  time.Time
	leaks     atomic.Int64 // by the collector
	forgotten atomic.Int64 // by the producers in this process
	wrong     []error      // what else went wrong
}
