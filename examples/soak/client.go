package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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

// A fault is something that was done to a stream or a connection.
type fault int

const (
	careless fault = iota
	cancelled
	deadline
	reset
	shortContext
	netConnClosed
	panicked
	refused
	slow
	stalled
	unread
	limited
	connClosed
	connShutdown
	connVanished
	connRested
	connRefused
	connDrained
	drainCut
	limitLogged
	leakIdle
	leakHalfClosed
	continued
	cutClosed
	excused
	numFaults
)

func (f fault) String() string {
	return [...]string{"careless", "cancelled", "deadline", "reset", "shortContext", "netConnClosed", "panicked", "refused", "slow", "stalled", "unread",
		"limited", "connClosed", "connShutdown", "connVanished", "connRested", "connRefused", "connDrained", "drainCut", "limitLogged", "leakIdle", "leakHalfClosed", "continued", "cutClosed", "excused"}[f]
}

// pattern is what all bodies and answers are pieces of.
var pattern = func() []byte {
	b := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}()

const (
	doAnswer = iota
	doPanic
	doFail
	doSlow
	doCount
)

// An order is what a client sends: these fields, then a body.
type order struct {
	what   byte
	conn   uint32
	from   uint32 // where in the pattern body and answer begin
	body   uint32
	answer uint32
}

func (o order) header() []byte {
	b := []byte{o.what}
	for _, v := range []uint32{o.conn, o.from, o.body, o.answer} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

type wrong string

func (w wrong) Error() string { return string(w) }

func readOrder(r io.Reader) (o order, err error) {
	var b [17]byte
	if n, err := io.ReadFull(r, b[:]); err != nil {
		if err == io.ErrUnexpectedEOF {
			err = wrong(fmt.Sprintf("server: clean end after %d bytes of header", n))
		}
		return o, err
	}
	get := func(i int) uint32 { return binary.BigEndian.Uint32(b[i:]) }
	return order{b[0], get(1), get(5), get(9), get(13)}, nil
}

var buffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// expect reads just want.
func expect(r io.Reader, want []byte) (n int, err error) {
	buf := buffers.Get().(*[16 << 10]byte)
	defer buffers.Put(buf)
	for n < len(want) {
		m, err := r.Read(buf[:min(len(buf), len(want)-n)])
		if !bytes.Equal(buf[:m], want[n:n+m]) {
			return n, wrong(fmt.Sprintf("wrong bytes after %d of %d", n, len(want)))
		}
		n += m
		if err == io.EOF && n < len(want) {
			return n, wrong(fmt.Sprintf("clean end after %d of %d bytes", n, len(want)))
		}
		if err != nil && n < len(want) {
			return n, err
		}
	}
	return n, nil
}

func (o order) bodyBytes() []byte   { return pattern[o.from : o.from+o.body] }
func (o order) answerBytes() []byte { return pattern[o.from+1 : o.from+1+o.answer] }

var errFailed = errors.New("as ordered")

func (s *soak) serveStream(ctx context.Context, str *quiclife.Stream) error {
	o, err := readOrder(str)
	if err == nil && o.what == doSlow {
		time.Sleep(20 * time.Millisecond)
	}
	if err == nil {
		_, err = expect(str, o.bodyBytes())
	}
	if w, ok := err.(wrong); ok {
		s.problem("server: %v, order %+v", w, o)
	}
	if err != nil {
		return err
	}
	a := o.answerBytes()
	switch o.what {
	case doPanic:
		panic(errFailed)
	case doFail:
		str.Write(a[:len(a)/2])
		return errFailed
	case doSlow:
		str.Write(a[:len(a)/2])
		a = a[len(a)/2:]
		time.Sleep(20 * time.Millisecond)
	}
	_, err = str.Write(a)
	return err
}

func (s *soak) serveMessage(ctx context.Context, str *quiclife.ReceiveStream) error {
	o, err := readOrder(str)
	if err == nil {
		_, err = expect(str, o.bodyBytes())
	}
	if w, ok := err.(wrong); ok {
		s.problem("server, message: %v, order %+v", w, o)
	}
	if err != nil {
		return err
	}
	n, err := str.Read(make([]byte, 1))
	if n != 0 {
		s.problem("message longer than it is")
	}
	if err != io.EOF {
		return err
	}
	if l, ok := s.ledgers.Load(o.conn); ok && o.what == doCount {
		l.(*ledger).arrived.Add(1)
	}
	if o.what == doSlow {
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

type ledger struct{ sent, arrived atomic.Int64 }

const (
	alive = iota
	draining
	cut
)

type client struct {
	s      *soak
	conn   *quiclife.Conn
	server *server
	ledger *ledger
	id     uint32
	state  atomic.Int32
	leave  atomic.Bool
}

var conf = &quic.Config{MaxIdleTimeout: maxIdle, KeepAlivePeriod: maxIdle / 4, InitialStreamReceiveWindow: 32 << 10}

func (s *soak) connection(ctx context.Context, slot int, r *rand.Rand, rest func()) {
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		s.problem("%v", err)
		return
	}
	defer socket.Close()
	tr := &quiclife.Transport{Conn: socket, Guard: s.clients}
	defer tr.Close()
	c := &client{s: s, server: s.server.Load(), ledger: &ledger{}, id: s.lastID.Add(1)}
	s.ledgers.Store(c.id, c.ledger)
	defer s.ledgers.Delete(c.id)
	dialing, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c.conn, err = tr.Dial(dialing, c.server.addr, s.tls.client, conf)
	if err != nil {
		var te *quic.TransportError
		if errors.As(err, &te) && te.ErrorCode == quic.ConnectionRefused {
			s.faults[connRefused].Add(1)
		} else if !c.server.draining.Load() && ctx.Err() == nil && !limit(err) {
			s.problem("dial: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
		return
	}
	var wg sync.WaitGroup
	for i := range workers {
		r := rand.New(rand.NewPCG(r.Uint64(), 0))
		wg.Go(func() { c.work(&s.busy[slot*(workers+1)+i], r) })
	}
	select {
	case <-ctx.Done():
	case <-c.conn.Context().Done():
	case <-time.After(time.Duration(100+r.IntN(2000)) * time.Millisecond):
	}
	busy := &s.busy[slot*(workers+1)+workers]
	defer busy.end()
	if ctx.Err() != nil { // the end of the run
		c.leave.Store(true)
		wg.Wait()
		rest()
		c.check()
		return
	}
	if c.conn.Context().Err() != nil {
		s.faults[connDrained].Add(1)
		if !c.server.draining.Load() {
			s.problem("connection lost: %v", context.Cause(c.conn.Context()))
		}
		wg.Wait()
		c.check()
		return
	}
	switch r.IntN(8) {
	case 0, 1, 2:
		s.faults[connShutdown].Add(1)
		name := "Shutdown"
		busy.begin(&name)
		c.state.Store(draining)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		err := c.conn.Shutdown(ctx, 0, "done")
		wg.Wait()
		if err != nil && !c.server.draining.Load() {
			s.problem("Shutdown: %v", err)
		}
		c.checkArrived(err)
	case 3, 4:
		s.faults[connClosed].Add(1)
		c.state.Store(cut)
		c.conn.CloseWithError(1, "closed in the middle")
	case 5:
		s.faults[connVanished].Add(1)
		c.state.Store(cut)
		socket.Close()
		name := "vanished"
		busy.begin(&name)
		<-c.conn.Context().Done()
	default:
		s.faults[connRested].Add(1)
		c.leave.Store(true)
		name := "rest"
		busy.begin(&name)
		wg.Wait()
		left := func() (n int64) {
			n = c.conn.Stats().Open() + int64(held(c.conn.Unwrap()))
			for _, srv := range members(s.servers) {
				if srv.RemoteAddr().String() == socket.LocalAddr().String() {
					n += srv.Stats().Open() + int64(held(srv.Unwrap()))
				}
			}
			return n
		}
		for begin := time.Now(); left() > 0 && c.conn.Context().Err() == nil; time.Sleep(10 * time.Millisecond) {
			runtime.GC()
			if time.Since(begin) > settleTime {
				s.problem("%d left at rest", left())
				for info := range c.conn.Streams() {
					s.problem("  client: %v", info)
				}
				break
			}
		}
		c.checkArrived(nil)
		c.state.Store(cut)
		c.conn.CloseWithError(0, "")
	}
	wg.Wait()
	c.check()
}

func (c *client) checkArrived(err error) {
	if err != nil || c.server.draining.Load() || c.conn.Context().Err() != nil && c.state.Load() == alive {
		return
	}
	for begin := time.Now(); c.ledger.arrived.Load() < c.ledger.sent.Load() && time.Since(begin) < time.Second; {
		time.Sleep(5 * time.Millisecond)
	}
	if a, n := c.ledger.arrived.Load(), c.ledger.sent.Load(); a != n {
		c.s.problem("%d messages of %d arrived, state %d", a, n, c.state.Load())
	}
}

func (c *client) check() {
	stats := c.conn.Stats()
	if !balanced(stats) || stats.Open() != 0 {
		c.s.problem("ended: %+v", stats)
	}
}

func limit(err error) bool {
	var l *quiclife.LimitError
	return errors.As(err, &l)
}

func (c *client) work(b *busy, r *rand.Rand) {
	for !c.leave.Load() && c.conn.Context().Err() == nil {
		n := r.IntN(total)
		i := 0
		for ; n >= ops[i].weight; i++ {
			n -= ops[i].weight
		}
		b.begin(&ops[i].name)
		t0 := time.Now()
		err := ops[i].do(c, r)
		if d := time.Since(t0); d > 300*time.Millisecond && ops[i].name != "stall" && ops[i].name != "unread" {
			st := c.conn.ConnectionStats()
			fmt.Printf("SLOW %s %v err %v; conn %d sent %d lost %d rtt %v open %d held %d\n", ops[i].name, d, err, c.id, st.PacketsSent, st.PacketsLost, st.SmoothedRTT, c.conn.Stats().Open(), held(c.conn.Unwrap()))
		}
		b.end()
		c.s.requests.Add(1)
		if err != nil && !c.excuse(err) {
			c.s.problem("%s: %v (conn: %v)", ops[i].name, err, context.Cause(c.conn.Context()))
		}
		if errors.Is(err, quiclife.ErrShutdown) {
			return
		}
	}
}

func (c *client) excuse(err error) bool {
	var w wrong
	var se *quic.StreamError
	var ae *quic.ApplicationError
	switch {
	case errors.As(err, &w):
		return false
	case errors.Is(err, quiclife.ErrShutdown):
		return c.state.Load() == draining
	case limit(err):
		c.s.faults[limited].Add(1)
		time.Sleep(2 * time.Millisecond)
		return true
	case c.state.Load() == cut:
		return true
	case c.server.draining.Load():
		c.s.faults[excused].Add(1)
		c.leave.Store(true)
		return errors.As(err, &se) && se.ErrorCode == codes.Shutdown || errors.As(err, &ae)
	}
	return false
}

var ops = []struct {
	name   string
	weight int
	do     func(*client, *rand.Rand) error
}{
	{"ask", 100, (*client).ask},
	{"upload", 5, (*client).upload},
	{"careless", 40, (*client).careless},
	{"cancel", 10, (*client).cancel},
	{"deadline", 10, (*client).deadline},
	{"reset", 10, (*client).reset},
	{"short", 10, (*client).short},
	{"message", 100, (*client).message},
	{"netconn", 10, (*client).netConn},
	{"fail", 4, (*client).fail},
	{"slow", 4, (*client).slow},
	{"stall", 1, (*client).stall},
	{"unread", 1, (*client).unread},
}

var total = func() (n int) {
	for _, o := range ops {
		n += o.weight
	}
	return
}()

func (c *client) order(r *rand.Rand, what byte, body, answer int) order {
	return order{what, c.id, uint32(r.IntN(1000)), uint32(r.IntN(body)), 2 + uint32(r.IntN(answer))}
}

// send sends o in pieces.
func send(w io.Writer, o order, r *rand.Rand) error {
	if _, err := w.Write(o.header()); err != nil {
		return err
	}
	for body := o.bodyBytes(); len(body) > 0; {
		n := min(len(body), 1+r.IntN(1+r.IntN(40_000)))
		if _, err := w.Write(body[:n]); err != nil {
			return err
		}
		body = body[n:]
	}
	return nil
}

// receive reads the answer to its end.
func receive(rd io.Reader, o order) error {
	if n, err := expect(rd, o.answerBytes()); err != nil {
		if _, ok := err.(wrong); ok {
			return err
		}
		return fmt.Errorf("after %d of %d: %w", n, o.answer, err)
	}
	n, err := rd.Read(make([]byte, 1))
	if n > 0 {
		return wrong("the answer is too long")
	}
	if err != io.EOF {
		return fmt.Errorf("instead of EOF: %w", err)
	}
	return nil
}

type closeWriter interface {
	io.ReadWriter
	Close() error
}

func exchange(s closeWriter, o order, r *rand.Rand) error {
	if err := send(s, o, r); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	s.Close() // an error says that the server has answered already
	return receive(s, o)
}

func (c *client) with(f func(s *quiclife.Stream) error) error {
	s, err := c.conn.OpenStreamSync(context.Background())
	if err != nil {
		return err
	}
	defer s.Release()
	return f(s)
}

func (c *client) ask(r *rand.Rand) error {
	return c.with(func(s *quiclife.Stream) error { return exchange(s, c.order(r, doAnswer, 2000, 2000), r) })
}

func (c *client) upload(r *rand.Rand) error {
	o := c.order(r, doAnswer, 300_000, 10)
	if r.IntN(2) == 0 {
		o = c.order(r, doAnswer, 10, 300_000)
	}
	return c.with(func(s *quiclife.Stream) error { return exchange(s, o, r) })
}

func (c *client) slow(r *rand.Rand) error {
	c.s.faults[slow].Add(1)
	return c.with(func(s *quiclife.Stream) error { return exchange(s, c.order(r, doSlow, 100, 100_000), r) })
}

func (c *client) careless(r *rand.Rand) error {
	s, err := c.conn.OpenStreamSync(context.Background())
	if err != nil {
		return err
	}
	c.s.faults[careless].Add(1)
	o := c.order(r, doAnswer, 2000, 2000)
	if err := send(s, o, r); err != nil {
		return err
	}
	if r.IntN(2) == 0 {
		s.Close()
	}
	_, err = expect(s, o.answerBytes())
	return err
}

func (c *client) cancel(r *rand.Rand) error {
	s, err := c.conn.OpenStreamSync(context.Background())
	if err != nil {
		return err
	}
	c.s.faults[cancelled].Add(1)
	o := c.order(r, doAnswer, 1000, 100)
	o.body += 200_000
	defer time.AfterFunc(time.Duration(r.IntN(3000))*time.Microsecond, func() { s.CancelWrite(goneCode) }).Stop()
	err = send(s, o, r)
	if err == nil { // in time: must be right or reset
		s.Close()
		_, err = expect(s, o.answerBytes())
	}
	switch r.IntN(3) {
	case 0:
		s.Release()
	case 1:
		s.Close()
		s.Release()
	}
	return onlyWrong(err)
}

func onlyWrong(err error) error {
	if w, ok := errors.AsType[wrong](err); ok {
		return w
	}
	return nil
}

// deadline continues after a deadline where the Write stopped.
func (c *client) deadline(r *rand.Rand) error {
	return c.with(func(s *quiclife.Stream) error {
		c.s.faults[deadline].Add(1)
		o := c.order(r, doAnswer, 200_000, 1000)
		s.SetDeadline(time.Now().Add(time.Duration(r.IntN(3000)) * time.Microsecond))
		for p := append(o.header(), o.bodyBytes()...); len(p) > 0; {
			piece := p[:min(len(p), 1+r.IntN(20_000))]
			n, err := s.Write(piece)
			p = p[n:]
			if err == nil && n < len(piece) {
				return wrong("short Write")
			}
			if err == nil {
				continue
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				return fmt.Errorf("send: %w", err)
			}
			if n < len(piece) && r.IntN(2) == 0 {
				err := s.Close()
				if err != quiclife.ErrWriteCut && c.conn.Context().Err() == nil {
					if se, ok := errors.AsType[*quic.StreamError](err); !ok {
						return wrong(fmt.Sprintf("Close after a Write that was cut: %v", err))
					} else {
						return se
					}
				}
				c.s.faults[cutClosed].Add(1)
				return nil
			}
			c.s.faults[continued].Add(1)
			s.SetDeadline(time.Time{})
		}
		s.Close()
		n := 0
		for {
			m, err := expect(s, o.answerBytes()[n:])
			n += m
			if err == nil {
				return nil
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
			s.SetDeadline(time.Now().Add(time.Duration(r.IntN(3000)) * time.Microsecond))
		}
	})
}

func (c *client) reset(r *rand.Rand) error {
	return c.with(func(s *quiclife.Stream) error {
		c.s.faults[reset].Add(1)
		o := c.order(r, doAnswer, 20_000, 20_000)
		defer time.AfterFunc(time.Duration(r.IntN(2000))*time.Microsecond, func() { s.Reset(goneCode) }).Stop()
		err := exchange(s, o, r)
		if se, ok := errors.AsType[*quic.StreamError](err); ok && !se.Remote && se.ErrorCode == goneCode {
			return nil
		}
		if errors.Is(err, quic.ErrStreamClosed) {
			return nil
		}
		return err
	})
}

func (c *client) short(r *rand.Rand) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(3000))*time.Microsecond)
	defer cancel()
	o := c.order(r, doAnswer, 20_000, 20_000)
	c.s.faults[shortContext].Add(1)
	if r.IntN(4) == 0 {
		o.what = doSlow
		return c.timed(c.conn.DoUni(ctx, func(s *quiclife.SendStream) error { return send(s, o, r) }))
	}
	return c.timed(c.conn.Do(ctx, func(s *quiclife.Stream) error { return exchange(s, o, r) }))
}

func (c *client) timed(err error) error {
	if w, ok := errors.AsType[wrong](err); ok {
		return w
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

func (c *client) message(r *rand.Rand) error {
	size := 2000
	if r.IntN(10) == 0 {
		size = 100_000
	}
	o := c.order(r, doCount, size, 1)
	err := c.conn.DoUni(context.Background(), func(s *quiclife.SendStream) error { return send(s, o, r) })
	if err == nil {
		c.ledger.sent.Add(1)
	}
	return err
}

func (c *client) netConn(r *rand.Rand) error {
	s, err := c.conn.OpenStreamSync(context.Background())
	if err != nil {
		return err
	}
	nc := s.NetConn()
	defer nc.Close()
	o := c.order(r, doAnswer, 20_000, 20_000)
	if r.IntN(2) == 0 {
		c.s.faults[netConnClosed].Add(1)
		defer time.AfterFunc(time.Duration(r.IntN(2000))*time.Microsecond, func() { nc.Close() }).Stop()
	}
	if _, err := nc.Write(append(o.header(), o.bodyBytes()...)); err != nil { // in one: what is whole may be closed
		return c.closed(err)
	}
	if err := nc.(interface{ CloseWrite() error }).CloseWrite(); err != nil && !errors.Is(err, net.ErrClosed) {
		if _, ok := errors.AsType[*quic.StreamError](err); !ok {
			return err
		}
	}
	return c.closed(receive(nc, o))
}

func (c *client) closed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// fail orders a panic or an error, and expects the code.
func (c *client) fail(r *rand.Rand) error {
	what, code := byte(doPanic), codes.Panic
	c.s.faults[panicked].Add(1)
	if r.IntN(2) == 0 {
		what, code = doFail, codes.HandlerError
	}
	err := c.with(func(s *quiclife.Stream) error { return exchange(s, c.order(r, what, 2000, 50_000), r) })
	if err == nil {
		return wrong("a handler that failed has answered")
	}
	if se, ok := errors.AsType[*quic.StreamError](err); ok && se.Remote && se.ErrorCode == code {
		return nil
	}
	return err
}

func (c *client) stall(r *rand.Rand) error {
	return c.with(func(s *quiclife.Stream) error {
		c.s.faults[stalled].Add(1)
		o := c.order(r, doAnswer, 10, 10)
		if _, err := s.Write(o.header()[:5]); err != nil {
			return err
		}
		_, err := s.Read(make([]byte, 1))
		if se, ok := errors.AsType[*quic.StreamError](err); ok && se.ErrorCode == codes.Idle {
			return nil
		}
		return err
	})
}

func (c *client) unread(r *rand.Rand) error {
	return c.with(func(s *quiclife.Stream) error {
		c.s.faults[unread].Add(1)
		o := c.order(r, doAnswer, 10, 10)
		if err := send(s, o, r); err != nil {
			return err
		}
		s.Close()
		select {
		case <-c.conn.Context().Done():
		case <-time.After(400 * time.Millisecond):
		}
		for i := 0; i < 200 && s.Info().Receive == quiclife.HalfOpen; i++ {
			time.Sleep(50 * time.Millisecond)
		}
		_, err := s.Read(make([]byte, 1))
		if se, ok := errors.AsType[*quic.StreamError](err); ok && !se.Remote && (se.ErrorCode == codes.HalfClosed || se.ErrorCode == codes.Idle) {
			return nil
		}
		if err == nil {
			return wrong("read after HalfCloseTimeout")
		}
		return err
	})
}

var _ = refused
