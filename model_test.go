package quiclife_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// A reference model of the two ends of a stream, and drivers that compare it
// with real quic-go connections.
//
// The model follows from the promises, not from the code. For each end it
// records what was written, which codes were sent for each half, and whether
// the end has closed. From this follows what the other end may see.

// modelEnd is one end of a stream.
type modelEnd struct {
	name string
	s    *quiclife.Stream // nil after a drop
	peer *modelEnd

	written   int64 // bytes that Write has taken
	cut       bool  // the last write took less than it was given
	closed    bool  // Close has returned nil, before any abort
	reset     bool  // the send half was aborted, before or after Close
	stopped   bool  // the receive half was aborted before its end was read
	reliable  int64 // bytes that a reset still delivers
	detached  bool
	partial   bool // EnableStreamResetPartialDelivery
	sendCodes map[quiclife.StreamErrorCode]bool
	stopCodes map[quiclife.StreamErrorCode]bool

	read int64 // bytes read
	eof  bool
}

var modelCodes = quiclife.Codes{Release: 101, Cut: 102, Abandoned: 103, HalfClosed: 104}

// byteAt returns the byte that the end writes at an offset.
func (e *modelEnd) byteAt(offset int64) byte { return byte(offset*7+offset>>8) ^ e.name[0] }

func (e *modelEnd) abortSend(code quiclife.StreamErrorCode) {
	e.sendCodes[code] = true
	e.reset = true
}

func (e *modelEnd) abortReceive(code quiclife.StreamErrorCode) {
	e.stopCodes[code] = true
	e.stopped = e.stopped || !e.eof
}

// An op is something that an end may do. It returns an error if the model does
// not allow the result.
type op struct {
	name string
	do   func(e *modelEnd) error
}

var modelOps = []op{
	{"write small", func(e *modelEnd) error { return e.write(10) }},
	{"write large", func(e *modelEnd) error { return e.write(6000) }},
	{"write 0", func(e *modelEnd) error { return e.write(0) }},
	{"read part", func(e *modelEnd) error { return e.readUpTo(7) }},
	{"read to end", func(e *modelEnd) error { return e.readUpTo(1 << 30) }},
	{"Close", (*modelEnd).close},
	{"CancelWrite", func(e *modelEnd) error { e.abortSend(1); e.s.CancelWrite(1); return nil }},
	{"CancelRead", func(e *modelEnd) error { e.abortReceive(2); e.s.CancelRead(2); return nil }},
	{"Release", (*modelEnd).release},
	{"Reset", (*modelEnd).resetBoth},
	{"drop", func(e *modelEnd) error {
		if e.detached {
			e.endDetached()
			e.s = nil
			return nil
		}
		if e.s.Info().Send == quiclife.HalfOpen {
			e.abortSend(modelCodes.Abandoned)
		}
		e.abortReceive(modelCodes.Abandoned)
		e.s = nil
		return nil
	}},
	{"peek", func(e *modelEnd) error { return e.peek(5) }},
	{"try write", (*modelEnd).tryWrite},
	{"limited write", (*modelEnd).limitedWrite},
	{"boundary", func(e *modelEnd) error {
		if !e.reset {
			e.reliable = e.written
		}
		e.s.SetReliableBoundary()
		return nil
	}},
	{"Detach", func(e *modelEnd) error { e.detached = true; e.s.Detach(); return nil }},
}

// exhaustiveOps are the ops that the exhaustive test combines: all but the last
// five.
var exhaustiveOps = modelOps[:11]

func (e *modelEnd) bytes(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = e.byteAt(e.written + int64(i))
	}
	return p
}

func (e *modelEnd) write(n int) error {
	m, err := e.s.Write(e.bytes(n))
	return e.wrote(n, m, err)
}

func (e *modelEnd) tryWrite() error {
	err := e.s.TryWriteAll(e.bytes(50))
	if err == quiclife.ErrWouldBlock {
		return nil
	}
	n := 50
	if err != nil {
		n = 0
	}
	cut := e.cut
	bad := e.wrote(50, n, err)
	e.cut = cut && err != nil
	return bad
}

func (e *modelEnd) limitedWrite() error {
	left := 30
	n, err := e.s.WriteWithLimit(e.bytes(100), func(most int) int {
		most = min(most, left)
		left -= most
		return most
	})
	if err == quiclife.ErrWriteLimitReached && n == 30 {
		e.written += int64(n)
		e.cut = true
		return nil
	}
	return e.wrote(100, n, err)
}

// wrote checks the outcome of a write of n bytes that took m.
func (e *modelEnd) wrote(n, m int, err error) error {
	e.written += int64(m)
	if n > 0 || m < n {
		e.cut = m < n
	}
	var stream *quiclife.StreamError
	switch {
	case err != nil && m == n && n > 0:
		return fmt.Errorf("took all, and failed: %w", err)
	case err == nil:
		if m != n {
			return fmt.Errorf("took %d of %d bytes without an error", m, n)
		}
		if e.closed || e.reset {
			return errors.New("write after the end succeeded")
		}
	case errors.Is(err, os.ErrDeadlineExceeded):
		if e.closed || e.reset {
			return errors.New("deadline instead of the end")
		}
	case errors.As(err, &stream):
		if stream.Remote && !e.peer.stopCodes[stream.ErrorCode] {
			return fmt.Errorf("write: %w: the peer did not send that", err)
		}
		if !stream.Remote && !e.sendCodes[stream.ErrorCode] {
			return fmt.Errorf("write: %w: this end did not do that", err)
		}
	case err == quiclife.ErrStreamClosed:
		if !e.closed {
			return fmt.Errorf("write: %w: not closed", err)
		}
	default:
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

func (e *modelEnd) close() error {
	err := e.s.Close()
	var stream *quiclife.StreamError
	switch {
	case err != nil && e.detached: // quic-go's own error without a type
		e.reset = true
	case err == nil:
		if e.cut && !e.reset && !e.closed && !e.detached {
			return errors.New("Close of a cut stream succeeded")
		}
		e.closed = e.closed || !e.reset
	case err == quiclife.ErrWriteCut:
		if !e.cut {
			return errors.New("ErrWriteCut of a stream that is not cut")
		}
		e.abortSend(modelCodes.Cut)
	case errors.As(err, &stream):
		if !stream.Remote || !e.peer.stopCodes[stream.ErrorCode] {
			return fmt.Errorf("Close: %w: the peer did not send that", err)
		}
		e.reset = true
	default:
		return fmt.Errorf("Close: %w", err)
	}
	return nil
}

func (e *modelEnd) readUpTo(n int) error {
	p := make([]byte, min(n, 5000))
	for got := 0; got < n; {
		m, err := e.s.Read(p[:min(len(p), n-got)])
		got += m
		if bad := e.got(p[:m], err, true); bad != nil || err != nil {
			return bad
		}
	}
	return nil
}

func (e *modelEnd) peek(n int) error {
	p := make([]byte, n)
	m, err := e.s.Peek(p)
	return e.got(p[:m], err, false)
}

// got checks what a Read or a Peek returned.
func (e *modelEnd) got(p []byte, err error, consumed bool) error {
	for i, b := range p {
		if b != e.peer.byteAt(e.read+int64(i)) {
			return fmt.Errorf("wrong byte at offset %d", e.read+int64(i))
		}
	}
	// A write in progress may have sent more than it has returned.
	if consumed {
		e.read += int64(len(p))
	}
	var stream *quiclife.StreamError
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
	case err == io.EOF:
		total := e.read
		if !consumed {
			total += int64(len(p))
		}
		if !e.peer.closed {
			return errors.New("io.EOF, but the peer has not closed")
		}
		if total != e.peer.written {
			return fmt.Errorf("io.EOF after %d of %d bytes", total, e.peer.written)
		}
		e.eof = e.eof || consumed || len(p) == 0
	case errors.As(err, &stream):
		if stream.Remote {
			// quic-go answers a STOP_SENDING with a reset of the same code.
			if !e.peer.sendCodes[stream.ErrorCode] && !e.stopCodes[stream.ErrorCode] {
				return fmt.Errorf("read: %w: the peer did not send that", err)
			}
			if consumed && e.partial && len(e.stopCodes) == 0 && e.read < e.peer.reliable {
				return fmt.Errorf("read: %w after %d of %d reliable bytes", err, e.read, e.peer.reliable)
			}
		} else if !e.stopCodes[stream.ErrorCode] {
			return fmt.Errorf("read: %w: this end did not do that", err)
		}
	default:
		return fmt.Errorf("read: %w", err)
	}
	return nil
}

func (e *modelEnd) resetBoth() error {
	if !e.detached {
		e.abortSend(3)
		e.abortReceive(3)
	}
	e.s.Reset(3)
	return nil
}

// endDetached ends a detached stream, which Release does not end.
func (e *modelEnd) endDetached() {
	if !e.closed {
		e.abortSend(4)
		e.s.CancelWrite(4)
	}
	e.abortReceive(4)
	e.s.CancelRead(4)
	e.s.ReleaseStreamCredit()
}

func (e *modelEnd) release() error {
	info := e.s.Info()
	if e.detached {
		e.s.Release()
		return nil
	}
	if info.Send == quiclife.HalfOpen {
		e.abortSend(modelCodes.Release)
	}
	if info.Receive == quiclife.HalfOpen {
		e.abortReceive(modelCodes.Release)
	}
	e.s.Release()
	return nil
}

// A modelConn is a connection on which sequences run.
type modelConn struct {
	ends
	partial bool         // EnableStreamResetPartialDelivery
	drops   atomic.Int64 // how many collections may still find something
}

func newModelConn(e ends, partial bool) *modelConn {
	c := &modelConn{ends: e, partial: partial}
	// A collection takes longer than a sequence, and most would find nothing.
	// If so, only the steps after it run.
	for _, end := range []*quiclife.Conn{e.client, e.server} {
		quiclife.CollectWith(end, func() {
			if c.drops.Load() > 0 {
				c.drops.Add(-1)
				runtime.GC()
			}
		})
	}
	return c
}

// dropped looks for dropped streams. If a collection of another test runs at
// the same time, the look may keep a handle alive until the next collection.
func (c *modelConn) dropped() {
	c.drops.Store(3)
	c.collect()
}

func (c *modelConn) collect() {
	collectAndLook(c.client, c.server)
}

// pair opens a stream for a sequence. The first byte makes the stream known to
// the peer.
func (c *modelConn) pair() (client, server *modelEnd, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	s, err := c.client.OpenStreamSync(ctx)
	if err != nil {
		return nil, nil, err
	}
	end := func(name string, s *quiclife.Stream) *modelEnd {
		return &modelEnd{name: name, s: s, partial: c.partial, sendCodes: map[quiclife.StreamErrorCode]bool{}, stopCodes: map[quiclife.StreamErrorCode]bool{}}
	}
	client, server = end("client", s), end("server", nil)
	client.peer, server.peer = server, client
	if err := client.write(1); err != nil {
		return nil, nil, err
	}
	if server.s, err = c.server.AcceptStream(ctx); err != nil {
		return nil, nil, err
	}
	if _, err := server.s.Read(make([]byte, 1)); err != nil {
		return nil, nil, err
	}
	server.read = 1
	return client, server, nil
}

// A sequence is what each end does, one after the other.
type sequence struct{ client, server []op }

func (s sequence) String() string {
	names := func(ops []op) string {
		var n []string
		for _, o := range ops {
			n = append(n, o.name)
		}
		return strings.Join(n, ", ")
	}
	return fmt.Sprintf("client: %s; server: %s", names(s.client), names(s.server))
}

// step runs one op, with its own deadline.
func (e *modelEnd) step(o op) error {
	if e.s == nil {
		return nil
	}
	start := time.Now()
	e.s.SetDeadline(start.Add(modelPatience))
	err := o.do(e)
	if took := time.Since(start); err == nil && took > modelPatience {
		err = fmt.Errorf("hung for %v", took)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", e.name, o.name, err)
	}
	return nil
}

const modelPatience = 200 * time.Millisecond

// finish checks that nothing that was closed is lost, and releases the stream.
func (e *modelEnd) finish() error {
	if e.s == nil {
		return nil
	}
	if e.peer.closed && !e.peer.reset && !e.stopped && !e.eof {
		e.s.SetDeadline(time.Now().Add(time.Hour))
		if err := e.readUpTo(1 << 30); err != nil {
			return err
		}
		if !e.eof {
			return fmt.Errorf("%s: lost what the peer finished: %d of %d bytes", e.name, e.read, e.peer.written)
		}
	}
	err := e.release()
	if e.detached {
		e.endDetached()
	}
	return err
}

// nothingLeft checks that neither end holds a stream, and that the connection
// has not ended.
func (c *modelConn) nothingLeft() error {
	for _, conn := range []*quiclife.Conn{c.client, c.server} {
		if err := context.Cause(conn.Context()); err != nil {
			return fmt.Errorf("the connection has ended: %w", err)
		}
		if open := conn.Stats().Open(); open != 0 {
			return fmt.Errorf("%d streams counted open", open)
		}
	}
	if a, b := quictest.Held(c.rawClient), quictest.Held(c.rawServer); a+b != 0 {
		return fmt.Errorf("quic-go holds %d and %d streams", a, b)
	}
	return nil
}

// TestAllSmallCases runs every sequence of up to two ops on each end, in both
// orders, then Release. Each sequence has its own stream. Those with the same
// client ops run together on one connection. With -short it runs all with one
// op on the client, and every eighth with two. QUICLIFE_EXHAUSTIVE sets another
// number of ops on each end than 2.
func TestAllSmallCases(t *testing.T) {
	depth := number(t, "QUICLIFE_EXHAUSTIVE", 2)
	sequences := [][]op{nil}
	for from := 0; depth > 0; depth-- {
		for n := len(sequences); from < n; from++ {
			for _, o := range exhaustiveOps {
				sequences = append(sequences, append(slices.Clone(sequences[from]), o))
			}
		}
	}
	progress := startProgress(t, 2*int64(len(sequences)*len(sequences)))
	t.Run("all", func(t *testing.T) {
		for _, serverFirst := range []bool{false, true} {
			for i, client := range sequences {
				if testing.Short() && len(client) > 1 && i%8 != 0 {
					continue
				}
				t.Run(fmt.Sprintf("server first %v, client %d", serverFirst, i), func(t *testing.T) {
					t.Parallel()
					conf := matrixConf.Clone()
					conf.MaxIncomingStreams = 2 * int64(len(sequences)) // never crowded
					conf.InitialConnectionReceiveWindow = 64 << 20
					setup{guard: &quiclife.Guard{Codes: modelCodes}, clientConf: conf, serverConf: conf}.in(t, func(t *testing.T, e ends) {
						if err := playTogether(t, e, client, sequences, serverFirst); err != nil {
							t.Error(err)
						}
						progress.played.Add(int64(len(sequences)))
					})
				})
			}
		}
	})
	t.Log(progress)
}

// playTogether runs one client sequence against all server sequences. In each
// step all streams do their next op, and then garbage is collected.
func playTogether(t *testing.T, e ends, client []op, servers [][]op, serverFirst bool) error {
	c := newModelConn(e, false)
	type played struct {
		sequence
		client, server *modelEnd
	}
	var all []played
	for _, server := range servers {
		a, b, err := c.pair()
		if err != nil {
			return err
		}
		all = append(all, played{sequence{client, server}, a, b})
	}
	for i := range max(len(client), len(servers[len(servers)-1])) {
		for _, p := range all {
			sides := []struct {
				end *modelEnd
				ops []op
			}{{p.client, p.sequence.client}, {p.server, p.sequence.server}}
			if serverFirst {
				sides[0], sides[1] = sides[1], sides[0]
			}
			for _, side := range sides {
				if i < len(side.ops) {
					if err := side.end.step(side.ops[i]); err != nil {
						return fmt.Errorf("%v (server first: %v): %w", p.sequence, serverFirst, err)
					}
				}
			}
		}
		c.dropped() // at least one of the servers drops its stream
	}
	for _, p := range all {
		for _, end := range []*modelEnd{p.client, p.server} {
			if err := end.finish(); err != nil {
				return fmt.Errorf("%v (server first: %v): %w", p.sequence, serverFirst, err)
			}
		}
	}
	c.collect()
	time.Sleep(2 * time.Second) // AbandonGrace
	synctest.Wait()
	if err := c.nothingLeft(); err != nil {
		for info := range e.client.Streams() {
			t.Log("client", info)
		}
		for info := range e.server.Streams() {
			t.Log("server", info)
		}
		return fmt.Errorf("after %v: %w", client, err)
	}
	return nil
}

// modelProgress counts the sequences that have run. With -v, or on a terminal,
// it prints the progress every ten seconds.
type modelProgress struct {
	name   string
	total  int64
	start  time.Time
	played atomic.Int64
}

func startProgress(t *testing.T, total int64) *modelProgress {
	p := &modelProgress{name: t.Name(), total: total, start: time.Now()}
	out, err := os.Stderr.Stat()
	if terminal := err == nil && out.Mode()&os.ModeCharDevice != 0; testing.Verbose() || terminal {
		done := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { p.print(done) })
		t.Cleanup(func() { close(done); wg.Wait() })
	}
	return p
}

func (p *modelProgress) print(done <-chan struct{}) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fmt.Fprintln(os.Stderr, p.name+":", p)
		case <-done:
			return
		}
	}
}

func (p *modelProgress) String() string {
	return fmt.Sprintf("%d of %d sequences in %v", p.played.Load(), p.total, time.Since(p.start).Round(time.Second))
}

// TestModel runs random sequences on many kinds of networks, on all CPUs. It
// prints the seed of a failed run; QUICLIFE_SEED replays it. It runs 10,000
// sequences (2,000 with -short), or as many as fit into a minute.
// QUICLIFE_SEQUENCES sets another number.
func TestModel(t *testing.T) {
	const perRun = 50
	if seed := number(t, "QUICLIFE_SEED", 0); seed != 0 {
		playRandom(t, seed, perRun)
		return
	}
	total, limit := uint64(10_000), time.Minute
	if testing.Short() {
		total = 2000
	}
	if n := number(t, "QUICLIFE_SEQUENCES", 0); n > 0 {
		total, limit = n, 24*time.Hour
	}
	first := rand.Uint64() >> 1
	t.Logf("first seed %d", first)
	progress := startProgress(t, int64(total))
	var next atomic.Uint64
	var failed atomic.Bool
	t.Run("on all processors", func(t *testing.T) {
		for worker := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				for !failed.Load() && time.Since(progress.start) < limit {
					n := next.Add(1)
					if n*perRun > total {
						return
					}
					playRandom(t, first+n, perRun)
					progress.played.Add(perRun)
					failed.Store(failed.Load() || t.Failed())
				}
			})
		}
	})
	t.Log(progress)
}

// FuzzModel is TestModel for go test -fuzz.
func FuzzModel(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { playRandom(t, seed, 5) })
}

// playRandom runs n sequences on one connection. Both are made from seed.
func playRandom(t *testing.T, seed uint64, n int) {
	r := rand.New(rand.NewPCG(seed, 0))
	pick := func(of ...int) int { return of[r.IntN(len(of))] }
	loss, jitter := pick(0, 0, 5, 20), pick(0, 0, 20)
	var mu sync.Mutex
	dice := rand.New(rand.NewPCG(seed, 1))
	lossy := false
	network := quictest.Net{
		Latency: time.Duration(pick(1, 10, 50)) * time.Millisecond,
		Drop: func(simnet.Packet) bool {
			mu.Lock()
			defer mu.Unlock()
			return lossy && dice.IntN(100) < loss
		},
	}
	if jitter > 0 { // reorders packets
		network.Jitter = func() time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return time.Duration(dice.IntN(jitter)) * time.Millisecond
		}
	}
	window := uint64(pick(1000, 10_000, 512<<10))
	limit := int64(pick(1, 2, 4))
	conf := &quic.Config{
		MaxIdleTimeout:                   10 * time.Hour,
		InitialStreamReceiveWindow:       window,
		MaxStreamReceiveWindow:           window,
		InitialConnectionReceiveWindow:   uint64(pick(10_000, 1<<20)),
		MaxIncomingStreams:               limit,
		RequireStreamCreditRelease:       pick(0, 1) == 1,
		EnableStreamResetPartialDelivery: pick(0, 1) == 1,
	}
	if conf.EnableStreamResetPartialDelivery { // see TestDefectPartialResetKeepsCredit
		conf.InitialConnectionReceiveWindow = 64 << 20
	}
	bubble(t, func(t *testing.T) {
		rc, rs := network.Pair(t, conf, conf)
		e := setup{clientConf: conf, serverConf: conf, guard: &quiclife.Guard{Codes: modelCodes}}.wrap(rc, rs)
		mu.Lock()
		lossy = true
		mu.Unlock()
		c := newModelConn(e, conf.EnableStreamResetPartialDelivery)
		for range n {
			var seq sequence
			for range r.IntN(6) {
				seq.client = append(seq.client, randomOp(r))
			}
			for range r.IntN(6) {
				seq.server = append(seq.server, randomOp(r))
			}
			if err := c.play(seq, r.IntN(3)); err != nil {
				t.Errorf("seed %d: loss %d%%, jitter %d ms, window %d, credit %v, partial delivery %v: %v: %v", seed, loss, jitter, window,
					conf.RequireStreamCreditRelease, conf.EnableStreamResetPartialDelivery, seq, err)
				return
			}
		}
		for wait := time.Second; ; wait *= 2 { // lost packets are sent again
			time.Sleep(wait)
			synctest.Wait()
			err := c.nothingLeft()
			if err == nil {
				return
			}
			if wait > time.Hour {
				t.Errorf("seed %d: %v", seed, err)
				return
			}
		}
	})
}

func randomOp(r *rand.Rand) op {
	for {
		o := modelOps[r.IntN(len(modelOps))]
		if o.name != "drop" || r.IntN(20) == 0 { // each costs a collection
			return o
		}
	}
}

// play runs one sequence: the client first, the server first, or both at once.
// Then both ends finish.
func (c *modelConn) play(seq sequence, order int) error {
	client, server, err := c.pair()
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	run := func(e *modelEnd, ops []op) error {
		for _, o := range ops {
			if err := e.step(o); err != nil {
				return err
			}
			if o.name == "drop" {
				c.dropped()
			}
		}
		return nil
	}
	switch order {
	case 0:
		err = errors.Join(run(client, seq.client), run(server, seq.server))
	case 1:
		err = errors.Join(run(server, seq.server), run(client, seq.client))
	default:
		for i := range max(len(seq.client), len(seq.server)) {
			if i < len(seq.client) {
				err = errors.Join(err, run(client, seq.client[i:i+1]))
			}
			if i < len(seq.server) {
				err = errors.Join(err, run(server, seq.server[i:i+1]))
			}
		}
	}
	if err == nil {
		err = errors.Join(client.finish(), server.finish())
	}
	// With RequireStreamCreditRelease, a stream that Close and EOF have ended
	// still holds its slot.
	for _, e := range []*modelEnd{client, server} {
		if e.s != nil {
			e.s.Release()
		}
	}
	return err
}
