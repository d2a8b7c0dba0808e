// Soak runs clients and servers against each other over loopback for as long
// as it is told, with faults of every kind, and looks whether anything is lost,
// wrong, stuck or left behind.
//
//	go run ./examples/soak -for 10m
//
// It prints a line a second and ends with a verdict, and exit status 1 if that
// is bad.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife"
)

const (
	workers     = 6                // goroutines that use a connection
	maxStreams  = 16               // of a kind and connection: the server's limit
	maxMessages = 8                // unidirectional streams: the client's own limit, below the server's
	maxIdle     = 4 * time.Second  // of a connection, after which the server knows that a client has vanished
	stuckTime   = 30 * time.Second // nothing that a client does takes this long unless it hangs
	settleTime  = 10 * time.Second // for the last streams to come back
	maxGrowth   = 8 << 20          // bytes of heap that may be added after the first tenth
	maxProblems = 20               // that are told; one is enough for a verdict
)

// The codes tell the client why a stream was reset.
var codes = quiclife.Codes{
	Release: 1, Cut: 2, Abandoned: 3, HalfClosed: 4, Idle: 5, Refused: 6, HandlerError: 7, Panic: 8, Shutdown: 9,
}

const goneCode = quiclife.StreamErrorCode(10) // the client's own, for CancelWrite and Reset

type options struct {
	duration time.Duration
	seed     uint64
	conns    int
}

// A soak is one run. Nothing in it grows with the number of requests.
type soak struct {
	opt              options
	clients, servers *quiclife.Guard
	tls              tlsConfigs
	busy             []busy // of each worker, for the watchdog

	server  atomic.Pointer[server] // the one to dial
	ledgers sync.Map               // *ledger by the number of a connection that lives
	lastID  atomic.Uint32

	requests, leaks atomic.Int64
	faults          [numFaults]atomic.Int64

	mu       sync.Mutex // guards the fields below
	problems []string
	found    int
}

// problem is for what must not happen.
func (s *soak) problem(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found++; len(s.problems) < maxProblems {
		s.problems = append(s.problems, fmt.Sprintf(format, args...))
	}
}

func main() {
	var opt options
	flag.DurationVar(&opt.duration, "for", 15*time.Second, "how long")
	flag.Uint64Var(&opt.seed, "seed", uint64(time.Now().UnixNano()), "of the random choices")
	flag.IntVar(&opt.conns, "conns", 8, "connections at a time")
	flag.Parse()
	if err := run(os.Stdout, opt); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// run is the program. Its error is a bad verdict.
func run(w io.Writer, opt options) error {
	goroutines, heapAtStart := runtime.NumGoroutine(), heap()
	start := time.Now()
	s := &soak{opt: opt, busy: make([]busy, opt.conns*(workers+1))}
	var err error
	if s.tls, err = certificate(); err != nil {
		return err
	}
	logger := slog.New(quietLog{s})
	s.servers = &quiclife.Guard{
		Codes:        codes,
		MaxConns:     int64(opt.conns) + 2, // which vanished clients hold up for a while
		IdleTimeout:  3 * time.Second,
		AbandonGrace: 100 * time.Millisecond,
		DrainTimeout: settleTime,
		Logger:       logger,
		OnLeak:       s.leaked,
	}
	s.clients = &quiclife.Guard{
		Codes:                 codes,
		MaxOutgoingUniStreams: maxMessages,
		MaxStreams:            int64(opt.conns) * 10,
		IdleTimeout:           2 * time.Second,
		HalfCloseTimeout:      300 * time.Millisecond,
		AbandonGrace:          100 * time.Millisecond,
		Logger:                logger,
		OnLeak:                s.leaked,
	}
	if err := s.listen(); err != nil {
		return err
	}

	go func() {
		last := time.Now()
		for {
			time.Sleep(50 * time.Millisecond)
			if d := time.Since(last); d > 250*time.Millisecond {
				fmt.Fprintln(w, "PAUSE", d)
			}
			last = time.Now()
		}
	}()
	fmt.Fprintf(w, "%v with %d connections at a time, -seed %d\n", opt.duration, opt.conns, opt.seed)
	clientsDone, stop := context.WithTimeout(context.Background(), opt.duration)
	defer stop()
	end := make(chan struct{}) // for connections that are left alive
	var clients, resting sync.WaitGroup
	for i := range opt.conns {
		resting.Add(1)
		clients.Go(func() {
			r := rand.New(rand.NewPCG(opt.seed, uint64(i)))
			rest := sync.OnceFunc(func() { resting.Done(); <-end })
			for clientsDone.Err() == nil {
				s.connection(clientsDone, i, r, rest)
			}
			rest()
		})
	}

	heapEarly := uint64(0)
	heapLate := uint64(0)
	restart := max(min(opt.duration/4, 5*time.Second), 100*time.Millisecond)
	restarted := time.Now()
	seen := map[*quiclife.Conn]bool{}
	for tick := time.NewTicker(min(time.Second, opt.duration/10)); clientsDone.Err() == nil; {
		<-tick.C
		if heapEarly == 0 && time.Since(start) >= opt.duration/10 {
			heapEarly = heap()
		}
		s.sample(w, time.Since(start), seen)
		if stuck := s.stuck(); stuck != "" {
			buf := make([]byte, 1<<22)
			w.Write(buf[:runtime.Stack(buf, true)])
			return fmt.Errorf("stuck: %s", stuck)
		}
		if time.Since(restarted) > restart {
			restarted = time.Now()
			if err := s.listen(); err != nil {
				return err
			}
		}
	}
	heapLate = heap()
	resting.Wait()

	for begin := time.Now(); s.left() > 0 && time.Since(begin) < settleTime; time.Sleep(20 * time.Millisecond) {
		runtime.GC()
	}
	alive := 0
	for _, g := range []*quiclife.Guard{s.clients, s.servers} {
		for _, c := range members(g) {
			if c.Context().Err() != nil {
				continue
			}
			alive++
			if n := held(c.Unwrap()); n > 0 {
				s.problem("quic-go holds %d streams of a connection at rest: %+v", n, c.Stats())
			}
			if c.Stats().Open() > 0 {
				for info := range c.Streams() {
					s.problem("open at rest: %v", info)
				}
			}
			if !balanced(c.Stats()) {
				s.problem("unbalanced: %+v", c.Stats())
			}
		}
	}
	drain, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	if err := s.clients.Shutdown(drain); err != nil {
		s.problem("Shutdown of the clients: %v", err)
	}
	close(end)
	clients.Wait()
	if err := s.servers.Shutdown(drain); err != nil {
		s.problem("Shutdown of the servers: %v", err)
	}
	s.server.Load().stop()
	for begin := time.Now(); runtime.NumGoroutine() > goroutines && time.Since(begin) < settleTime; {
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		buf := make([]byte, 1<<20)
		s.problem("%d goroutines, %d at the start\n%s", n, goroutines, buf[:runtime.Stack(buf, true)])
	}
	heapEnd := heap()
	fmt.Fprintf(w, "heap %.1f start, %.1f first tenth, %.1f last, %.1f end; %d connection ends alive at the end\n",
		mib(heapAtStart), mib(heapEarly), mib(heapLate), mib(heapEnd), alive)
	for f := range numFaults {
		fmt.Fprintf(w, "  %8d %s\n", s.faults[f].Load(), f)
	}
	if int64(heapLate) > int64(heapEarly)+maxGrowth {
		s.problem("heap")
	}
	c, n := groupCounts(s.clients)
	c2, n2 := groupCounts(s.servers)
	if c+n+c2+n2 != 0 {
		s.problem("group counts: %d %d %d %d", c, n, c2, n2)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.problems {
		fmt.Fprintln(w, "problem:", p)
	}
	if s.found > 0 {
		return fmt.Errorf("%d problems", s.found)
	}
	return nil
}

func (s *soak) left() (n int64) {
	for _, g := range []*quiclife.Guard{s.clients, s.servers} {
		for _, c := range members(g) {
			if c.Context().Err() == nil {
				n += c.Stats().Open() + int64(held(c.Unwrap()))
			}
		}
	}
	return n
}

func balanced(stats quiclife.Stats) bool {
	for _, k := range []quiclife.StreamStats{stats.Outgoing, stats.OutgoingUni, stats.Incoming, stats.IncomingUni} {
		if k.Open < 0 || k.Peak < k.Open || k.Opened != k.Open+k.Finished+k.Reset+k.Reclaimed+k.Detached {
			return false
		}
	}
	return true
}

func (s *soak) sample(w io.Writer, t time.Duration, seen map[*quiclife.Conn]bool) {
	var open int64
	var kept int
	now := map[*quiclife.Conn]bool{}
	for _, g := range []*quiclife.Guard{s.clients, s.servers} {
		for _, c := range members(g) {
			now[c] = true
			delete(seen, c)
			stats := c.Stats()
			if !balanced(stats) {
				s.problem("unbalanced: %+v", stats)
			}
			if g == s.clients && stats.OutgoingUni.Peak > maxMessages {
				s.problem("above limit: %+v", stats)
			}
			open += stats.Open()
			kept += held(c.Unwrap())
		}
	}
	for c := range seen {
		delete(seen, c)
		if stats := c.Stats(); stats.Open() != 0 || !balanced(stats) {
			s.problem("ended: %+v", stats)
		}
	}
	for c := range now {
		seen[c] = true
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	var faults int64
	for f := range s.faults {
		faults += s.faults[f].Load()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(w, "%6.1fs  requests %8d  streams %4d open %4d held  conns %d  heap %5.1f MiB  goroutines %4d  leaks %6d  faults %7d  problems %d\n",
		t.Seconds(), s.requests.Load(), open, kept, len(now), mib(m.HeapAlloc), runtime.NumGoroutine(), s.leaks.Load(), faults, s.found)
	if s.found > 0 {
		fmt.Fprintln(w, s.problems[len(s.problems)-1])
	}
}

func (s *soak) leaked(l quiclife.Leak) {
	s.leaks.Add(1)
	switch l.Reason {
	case quiclife.Idle:
		s.faults[leakIdle].Add(1)
	case quiclife.HalfClosed:
		s.faults[leakHalfClosed].Add(1)
	}
}

// quietLog counts.
type quietLog struct{ s *soak }

func (quietLog) Enabled(context.Context, slog.Level) bool { return true }
func (q quietLog) WithAttrs([]slog.Attr) slog.Handler     { return q }
func (q quietLog) WithGroup(string) slog.Handler          { return q }
func (q quietLog) Handle(_ context.Context, r slog.Record) error {
	switch r.Message {
	case "quiclife: stream leaked", "quiclife: handler panicked":
	case "quiclife: limit reached", "quiclife: stream limit reached":
		q.s.faults[limitLogged].Add(1)
	default:
		if os.Getenv("SOAKLOG") != "" {
			fmt.Print(r.Message)
			r.Attrs(func(a slog.Attr) bool { fmt.Print(" ", a); return true })
			fmt.Println()
		}
		q.s.faults[drainCut].Add(1)
	}
	return nil
}

type busy struct {
	since atomic.Int64
	what  atomic.Pointer[string]
}

func (b *busy) begin(what *string) { b.what.Store(what); b.since.Store(time.Now().UnixNano()) }
func (b *busy) end()               { b.since.Store(0) }

func (s *soak) stuck() string {
	for i := range s.busy {
		since := s.busy[i].since.Load()
		if d := time.Duration(time.Now().UnixNano() - since); since != 0 && d > stuckTime {
			return fmt.Sprintf("%s for %v", *s.busy[i].what.Load(), d)
		}
	}
	return ""
}

// A server serves until the next takes over.
type server struct {
	addr     net.Addr
	draining atomic.Bool
	stop     func()
}

// listen starts a server, and then stops the one before, whose connections are
// drained under load.
func (s *soak) listen() error {
	ln, err := s.servers.ListenAddr("127.0.0.1:0", s.tls.server, &quic.Config{
		MaxIncomingStreams:         maxStreams,
		MaxIncomingUniStreams:      maxStreams,
		MaxIdleTimeout:             maxIdle,
		InitialStreamReceiveWindow: 64 << 10, // small, so that large writes block
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	srv := &server{addr: ln.Addr()}
	done := make(chan struct{})
	srv.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		ln.Serve(ctx, quiclife.Handler{Stream: s.serveStream, UniStream: s.serveMessage})
	}()
	if old := s.server.Swap(srv); old != nil {
		old.draining.Store(true)
		go old.stop()
	}
	return nil
}
