//go:build unix

package hostile_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// costParts are the things to measure. Each runs in its own process, so that the
// cost of one does not delay the collections of the next.
var costParts = []struct {
	letter, name string
	measure      func(t *testing.T, wrapped bool) []figure
}{
	{"a", "one holds all 100 slots, the server drops each stream, LIVE", holdSlots("drop")},
	{"a", "one holds all 100 slots, each handler blocked in Write, LIVE", holdSlots("write")},
	{"b", "two open unidirectional streams in a loop, nobody handles them", openRefused},
	{"c", "20 connections, 100 idle streams each, again and again, IdleTimeout 1 s", idleStreams},
	{"d", "one stalls while 1,000 streams write", stallWriters},
	{"e", "Guard.Shutdown, 200 connections with a datagram each 50 ms, handlers that do not end", drain(true)},
	{"e", "the same without handlers", drain(false)},
	{"f", "10,000 long polls, which wait for half a minute", longPolls},
}

// TestHostileCost measures what a hostile peer can cost a server, on plain quic-go
// and on quiclife side by side, and prints a table. The server and the peers are
// in different processes, so that the processor time is the server's only.
//
// QUICLIFE_HOSTILE_ONLY=abe runs only these parts. QUICLIFE_HOSTILE_HEAP is the
// live heap of part a, in bytes.
func TestHostileCost(t *testing.T) {
	if os.Getenv("QUICLIFE_HOSTILE") == "" {
		t.Skip("run QUICLIFE_HOSTILE=1 go test -count=1 -run '^TestHostileCost$' -v ./integrationtests/hostile, which takes three minutes and up to 4 GiB of memory")
	}
	table := "| hostile peers | figure | quic-go | quiclife |\n|---|---|---|---|\n"
	for i, part := range costParts {
		if only := os.Getenv("QUICLIFE_HOSTILE_ONLY"); only != "" && !strings.Contains(only, part.letter) {
			continue
		}
		p := startProcess(t, "TestHostileCostPart", partEnv+"="+strconv.Itoa(i))
		var result partResult
		p.stop(&result)
		name := "(" + part.letter + ") " + strings.Replace(part.name, "LIVE", fmt.Sprintf("%.1f GiB of live heap", float64(result.Live)/(1<<30)), 1)
		for i, plain := range result.Plain {
			table += fmt.Sprintf("| %s | %s | %s | %s |\n", name, plain.Name, plain.Value, result.Wrapped[i].Value)
			name = ""
		}
	}
	fmt.Print("\n" + table + "\n")
}

const partEnv = "QUICLIFE_HOSTILE_PART" // the index in costParts

type partResult struct {
	Live           int // bytes of heap
	Plain, Wrapped []figure
}

// TestHostileCostPart measures one part of TestHostileCost.
func TestHostileCostPart(t *testing.T) {
	env := os.Getenv(partEnv)
	if env == "" {
		t.Skip("started by TestHostileCost")
	}
	i, err := strconv.Atoi(env)
	require.NoError(t, err)
	part := costParts[i]
	var result partResult
	if part.letter == "a" {
		result.Live = fillHeap(t)
	}
	ready()
	result.Plain = part.measure(t, false)
	result.Wrapped = part.measure(t, true)
	printResult(t, result)
	runtime.KeepAlive(ballast)
}

// A figure is a cell of the table.
type figure struct{ Name, Value string }

const costWindow = 5 * time.Second // the time for which each server is measured

// ballast is live heap with pointers in it, as in a server with many clients.
var ballast []*ballastNode

type ballastNode struct {
	next *ballastNode
	_    [120]byte
}

func fillHeap(t *testing.T) int {
	size := 3 << 29
	if s := os.Getenv("QUICLIFE_HOSTILE_HEAP"); s != "" {
		var err error
		size, err = strconv.Atoi(s)
		require.NoError(t, err)
	}
	ballast = make([]*ballastNode, size/(128*1000)+1)
	for i := range ballast {
		for range 1000 {
			ballast[i] = &ballastNode{next: ballast[i]}
		}
	}
	return size
}

// A usage is what this process has used so far.
type usage struct {
	at     time.Time
	cpu    time.Duration
	forced uint32 // collections asked for
}

func used(t *testing.T) usage {
	var ru syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &ru))
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{time.Now(), time.Duration(ru.Utime.Nano() + ru.Stime.Nano()), m.NumForcedGC}
}

func (u usage) figures(t *testing.T) []figure {
	now := used(t)
	return []figure{
		{"of one processor", fmt.Sprintf("%.1f%%", 100*float64(now.cpu-u.cpu)/float64(now.at.Sub(u.at)))},
		{"collections asked for", fmt.Sprint(now.forced - u.forced)},
	}
}

// A costStream is a bidirectional stream, plain or wrapped.
type costStream interface {
	io.ReadWriteCloser
	CancelRead(quic.StreamErrorCode)
	CancelWrite(quic.StreamErrorCode)
}

// A costServer is a server to be measured.
type costServer struct {
	addr  string
	ln    *quiclife.Listener // nil if plain
	conns func(ctx context.Context) (accept func(context.Context) (costStream, error), err error)
}

func newCostServer(t *testing.T, wrapped bool, guard *quiclife.Guard, conf *quic.Config) (s *costServer, stop func()) {
	serverTLS, _ := quictest.TLS()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	s = &costServer{addr: socket.LocalAddr().String()}
	if !wrapped {
		tr := &quic.Transport{Conn: socket}
		ln, err := tr.Listen(serverTLS, conf)
		require.NoError(t, err)
		s.conns = func(ctx context.Context) (func(context.Context) (costStream, error), error) {
			c, err := ln.Accept(ctx)
			return func(ctx context.Context) (costStream, error) { return c.AcceptStream(ctx) }, err
		}
		return s, func() { tr.Close(); socket.Close() }
	}
	if guard.Logger == nil {
		guard.Logger = slog.New(slog.DiscardHandler)
	}
	tr := &quiclife.Transport{Conn: socket, Guard: guard}
	s.ln, err = tr.Listen(serverTLS, conf)
	require.NoError(t, err)
	s.conns = func(ctx context.Context) (func(context.Context) (costStream, error), error) {
		c, err := s.ln.Accept(ctx)
		return func(ctx context.Context) (costStream, error) { return c.AcceptStream(ctx) }, err
	}
	return s, func() { tr.Close(); socket.Close() }
}

// serve handles all streams until ctx is done, with the same loops whether plain or
// wrapped.
func (s *costServer) serve(ctx context.Context, handle func(costStream)) {
	for {
		accept, err := s.conns(ctx)
		if err != nil {
			return
		}
		go func() {
			for {
				str, err := accept(ctx)
				if err != nil {
					return
				}
				go handle(str)
			}
		}()
	}
}

// serveListener serves in the background, with Listener.Serve if wrapped. The func
// that it returns ends that, and the server.
func (s *costServer) serveListener(t *testing.T, handle func(context.Context, costStream), stop func()) func() {
	ctx, cancel := context.WithCancel(t.Context())
	var served sync.WaitGroup
	served.Go(func() {
		if s.ln == nil {
			s.serve(ctx, func(str costStream) { handle(ctx, str) })
			return
		}
		s.ln.Serve(ctx, quiclife.Handlers{Stream: func(ctx context.Context, str *quiclife.Stream) error {
			handle(ctx, str)
			return nil
		}})
	})
	return func() { cancel(); stop(); served.Wait() }
}

// costEcho answers a good client.
func costEcho(s costStream) {
	io.Copy(s, s)
	s.Close()
	s.CancelRead(0)
}

// byFirst answers a stream whose first byte is g. Others go to the func other.
func byFirst(other func(costStream)) func(costStream) {
	return func(s costStream) {
		b := make([]byte, 1)
		if _, err := io.ReadFull(s, b); err == nil && b[0] != 'g' {
			other(s)
			return
		}
		costEcho(s)
	}
}

// holdSlots lets a peer hold all slots, while a good client asks.
func holdSlots(what string) func(t *testing.T, wrapped bool) []figure {
	return func(t *testing.T, wrapped bool) []figure {
		s, stop := newCostServer(t, wrapped, &quiclife.Guard{}, nil)
		defer stop()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go s.serve(ctx, byFirst(func(str costStream) {
			if what == "drop" {
				return
			}
			str.Write(make([]byte, 1<<20))
			str.CancelWrite(0)
			str.CancelRead(0)
		}))
		peer := startPeer(t, what, s.addr)
		before := used(t)
		time.Sleep(costWindow)
		figures := before.figures(t)
		var result map[string]float64
		peer.stop(&result)
		return append(figures, figure{"p99 of a good client", fmt.Sprintf("%.2f ms", result["p99"])})
	}
}

// openRefused lets two peers open streams of a kind that nobody handles.
func openRefused(t *testing.T, wrapped bool) []figure {
	s, stop := newCostServer(t, wrapped, &quiclife.Guard{}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var served sync.WaitGroup
	defer func() { cancel(); stop(); served.Wait() }()
	served.Go(func() {
		if !wrapped {
			s.serve(ctx, costEcho)
			return
		}
		s.ln.Serve(ctx, quiclife.Handlers{Stream: func(_ context.Context, str *quiclife.Stream) error { costEcho(str); return nil }})
	})
	peer := startPeer(t, "uni", s.addr)
	before := used(t)
	time.Sleep(costWindow)
	figures := before.figures(t)[:1]
	var result map[string]float64
	peer.stop(&result)
	return append(figures, figure{"streams refused a second", fmt.Sprintf("%.0f", result["rate"])})
}

// idleStreams lets streams time out, while their peers open others.
func idleStreams(t *testing.T, wrapped bool) []figure {
	lines := new(lineCounter)
	s, stop := newCostServer(t, wrapped, &quiclife.Guard{IdleTimeout: time.Second, Logger: slog.New(slog.NewTextHandler(lines, nil))}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var served sync.WaitGroup
	defer func() { cancel(); stop(); served.Wait() }()
	served.Go(func() {
		if !wrapped {
			s.serve(ctx, costEcho)
			return
		}
		s.ln.Serve(ctx, quiclife.Handlers{Stream: func(_ context.Context, str *quiclife.Stream) error { costEcho(str); return nil }})
	})
	peer := startPeer(t, "idle", s.addr)
	time.Sleep(1500 * time.Millisecond) // until the first have timed out
	before, had := used(t), lines.Load()
	time.Sleep(costWindow)
	figures, wrote := before.figures(t)[:1], lines.Load()-had
	var result map[string]float64
	peer.stop(&result)
	return append(figures,
		figure{"log lines a second", fmt.Sprintf("%.0f", float64(wrote)/costWindow.Seconds())},
		figure{"streams opened a second", fmt.Sprintf("%.0f", result["rate"])})
}

type lineCounter struct{ atomic.Int64 }

func (l *lineCounter) Write(p []byte) (int, error) {
	l.Add(int64(strings.Count(string(p), "\n")))
	return len(p), nil
}

// stallWriters lets handlers write to a peer that has stopped answering.
func stallWriters(t *testing.T, wrapped bool) []figure {
	const streams = 1000
	s, stop := newCostServer(t, wrapped, &quiclife.Guard{}, &quic.Config{MaxIncomingStreams: streams})
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var handlers atomic.Int64
	stalled := make(chan struct{})
	message := make([]byte, 100)
	go s.serve(ctx, byFirst(func(str costStream) {
		handlers.Add(1)
		<-stalled
		for {
			if _, err := str.Write(message); err != nil {
				break
			}
		}
		str.CancelWrite(0)
		str.CancelRead(0)
	}))
	peer := startPeer(t, "stall", s.addr)
	eventually(t, func() bool { return handlers.Load() == streams })
	peer.tell("stall")
	before := quictest.HeapAlloc()
	close(stalled)
	time.Sleep(costWindow)
	pinned := int64(quictest.HeapAlloc()) - int64(before)
	peer.stop(new(map[string]float64))
	return []figure{{"heap of a stream", fmt.Sprintf("%.1f kB", float64(pinned)/streams/1000)}}
}

// longPolls lets 10,000 handlers hold streams that nobody reads or writes. From
// outside that looks like a stalled connection.
func longPolls(t *testing.T, wrapped bool) []figure {
	const streams = 10_000
	s, stop := newCostServer(t, wrapped, &quiclife.Guard{}, &quic.Config{MaxIncomingStreams: 1 << 20, KeepAlivePeriod: 10 * time.Second})
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var handlers atomic.Int64
	go s.serve(ctx, byFirst(func(str costStream) {
		handlers.Add(1)
		<-ctx.Done()
		str.CancelWrite(0)
		str.CancelRead(0)
	}))
	peer := startPeer(t, "polls", s.addr)
	eventually(t, func() bool { return handlers.Load() == streams })
	before := used(t)
	time.Sleep(30 * time.Second)
	figures := before.figures(t)
	peer.stop(new(map[string]float64))
	return figures
}

// drain lets peers keep the transports busy while the server shuts down.
func drain(handlers bool) func(t *testing.T, wrapped bool) []figure {
	return func(t *testing.T, wrapped bool) []figure {
		mode := "datagrams"
		if handlers {
			mode = "datagrams and streams"
		}
		guard := new(quiclife.Guard)
		s, stop := newCostServer(t, wrapped, guard, &quic.Config{EnableDatagrams: true})
		defer s.serveListener(t, func(ctx context.Context, _ costStream) { <-ctx.Done() }, stop)()
		peer := startPeer(t, mode, s.addr)
		time.Sleep(500 * time.Millisecond)
		before, quiet := used(t), false
		if wrapped {
			until, cancel := context.WithTimeout(t.Context(), costWindow)
			quiet = guard.Shutdown(until) == nil
			cancel()
		} else {
			time.Sleep(costWindow) // quic-go has no Shutdown: measure the traffic only
		}
		figures := before.figures(t)[:1]
		if quiet { // there is enough time between the datagrams
			figures[0].Value += fmt.Sprintf(", all quiet after %.1f s", time.Since(before.at).Seconds())
		}
		peer.stop(new(map[string]float64))
		return figures
	}
}

// A process is another process of this test binary. It is a server to be measured,
// or the peers of one. Each line on its stdin is a command. It prints "ready" when
// it has done one. When its stdin ends, it prints its figures and ends.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

// startProcess runs a test in another process.
func startProcess(t *testing.T, test string, env ...string) *process {
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(append(os.Environ(), "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING=true"), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	p := &process{t, cmd, in, bufio.NewScanner(out)}
	p.next("ready")
	return p
}

const peerModeEnv, peerAddrEnv = "QUICLIFE_HOSTILE_PEER", "QUICLIFE_HOSTILE_ADDR"

func startPeer(t *testing.T, mode, addr string) *process {
	return startProcess(t, "TestHostileCostPeer", peerModeEnv+"="+mode, peerAddrEnv+"="+addr, partEnv+"=")
}

func (p *process) next(prefix string) string {
	for p.lines.Scan() {
		line := p.lines.Text()
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return rest
		}
		p.t.Log(line)
	}
	require.FailNow(p.t, "the process has ended", "before %q: %v", prefix, p.lines.Err())
	return ""
}

func (p *process) tell(command string) {
	_, err := fmt.Fprintln(p.in, command)
	require.NoError(p.t, err)
	p.next("ready")
}

// stop ends the process, and puts its figures into result.
func (p *process) stop(result any) {
	p.in.Close()
	require.NoError(p.t, json.Unmarshal([]byte(p.next("result")), result))
}

// The funcs below are called in the process.

func ready() { fmt.Println("ready") }

func printResult(t *testing.T, result any) {
	b, err := json.Marshal(result)
	require.NoError(t, err)
	fmt.Println("result" + string(b))
}

func stdinClosed() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(done)
	}()
	return done
}

// TestHostileCostPeer is the peers of TestHostileCost.
func TestHostileCostPeer(t *testing.T) {
	mode, addr := os.Getenv(peerModeEnv), os.Getenv(peerAddrEnv)
	if mode == "" {
		t.Skip("started by TestHostileCost")
	}
	p := newPeers(t, addr, mode == "stall")
	defer func() {
		p.tr.Close()
		p.socket.Close()
	}()
	result := map[string]float64{}
	switch mode {
	case "drop", "write":
		p.holdSlots(t, mode)
		ready()
		result["p99"] = p.askUntil(t, stdinClosed())
	case "uni", "idle":
		if mode == "uni" {
			for range 2 {
				p.openUni(t)
			}
		} else {
			for range 20 {
				p.openIdle(t)
			}
		}
		time.Sleep(500 * time.Millisecond) // until the first burst is over
		ready()
		start, before := time.Now(), p.opened.Load()
		<-stdinClosed()
		result["rate"] = float64(p.opened.Load()-before) / time.Since(start).Seconds()
	case "polls":
		p.openMany(t, 10_000)
		ready()
		<-stdinClosed()
	case "stall":
		p.openMany(t, 1000)
		ready()
		bufio.NewReader(os.Stdin).ReadString('\n')
		p.socket.deaf.Store(true)
		time.Sleep(100 * time.Millisecond) // for packets that were on their way
		ready()
		<-stdinClosed()
	default:
		for range 200 {
			p.sendDatagrams(t, strings.Contains(mode, "streams"))
		}
		ready()
		<-stdinClosed()
	}
	printResult(t, result)
}

// peers are the connections of a process.
type peers struct {
	ctx    context.Context
	tr     *quic.Transport
	socket *deafSocket
	addr   *net.UDPAddr
	opened atomic.Int64
}

// A deafSocket drops all packets that come, once deaf is set.
type deafSocket struct {
	net.PacketConn
	deaf atomic.Bool
}

func (s *deafSocket) ReadFrom(p []byte) (n int, addr net.Addr, err error) {
	for {
		n, addr, err = s.PacketConn.ReadFrom(p)
		if err != nil || !s.deaf.Load() {
			return n, addr, err
		}
	}
}

func newPeers(t *testing.T, addr string, stall bool) *peers {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	to, err := net.ResolveUDPAddr("udp", addr)
	require.NoError(t, err)
	p := &peers{ctx: t.Context(), tr: &quic.Transport{Conn: udp}, socket: &deafSocket{PacketConn: udp}, addr: to}
	if stall {
		p.tr.Conn = p.socket
	}
	return p
}

func (p *peers) dial(t *testing.T, conf *quic.Config) *quic.Conn {
	c, err := p.tr.Dial(p.ctx, p.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"rig"}}, conf)
	require.NoError(t, err)
	return c
}

// await frees the slot of s when the server has ended the stream.
func await(s *quic.Stream) {
	io.Copy(io.Discard, s)
	s.CancelWrite(0)
	s.CancelRead(0)
}

// holdSlots opens a stream whenever there is a slot. It returns when the slots
// are taken for the first time.
func (p *peers) holdSlots(t *testing.T, mode string) {
	c := p.dial(t, &quic.Config{InitialStreamReceiveWindow: 1000, MaxStreamReceiveWindow: 1000})
	taken := make(chan struct{})
	go func() {
		for n := 1; ; n++ {
			s, err := c.OpenStreamSync(p.ctx)
			if err != nil {
				return
			}
			s.Write([]byte("x"))
			if mode == "drop" {
				go await(s)
			}
			if n == 100 {
				close(taken)
			}
		}
	}()
	<-taken
	time.Sleep(300 * time.Millisecond)
}

// askUntil asks as a good client does, 200 times a second, until done is closed.
// It returns the 99th percentile of the times, in milliseconds.
func (p *peers) askUntil(t *testing.T, done <-chan struct{}) float64 {
	c := p.dial(t, nil)
	var times []time.Duration
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			start := time.Now()
			s, err := c.OpenStreamSync(p.ctx)
			require.NoError(t, err)
			s.Write([]byte("good"))
			s.Close()
			_, err = io.Copy(io.Discard, s)
			require.NoError(t, err)
			times = append(times, time.Since(start))
		case <-done:
			slices.Sort(times)
			return float64(times[len(times)*99/100].Microseconds()) / 1000
		}
	}
}

// openUni opens and resets unidirectional streams as fast as it can.
func (p *peers) openUni(t *testing.T) {
	c := p.dial(t, nil)
	go func() {
		for {
			s, err := c.OpenUniStreamSync(p.ctx)
			if err != nil {
				return
			}
			s.Write([]byte("x"))
			s.CancelWrite(0)
			p.opened.Add(1)
		}
	}()
}

// openIdle opens bidirectional streams as fast as it can, and leaves them idle.
func (p *peers) openIdle(t *testing.T) {
	c := p.dial(t, nil)
	go func() {
		for {
			s, err := c.OpenStreamSync(p.ctx)
			if err != nil {
				return
			}
			s.Write([]byte("x"))
			go await(s)
			p.opened.Add(1)
		}
	}()
}

func (p *peers) openMany(t *testing.T, n int) {
	c := p.dial(t, &quic.Config{InitialConnectionReceiveWindow: 64 << 20, MaxConnectionReceiveWindow: 64 << 20})
	for range n {
		s, err := c.OpenStreamSync(p.ctx)
		require.NoError(t, err)
		s.Write([]byte("x"))
	}
}

func (p *peers) sendDatagrams(t *testing.T, stream bool) {
	c := p.dial(t, &quic.Config{EnableDatagrams: true})
	if stream {
		s, err := c.OpenStream()
		require.NoError(t, err)
		s.Write([]byte("x"))
	}
	go func() {
		for {
			time.Sleep(50 * time.Millisecond)
			if c.SendDatagram([]byte("x")) != nil {
				return
			}
		}
	}()
}
