package quiclife

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife/internal/heap"
	"github.com/quiclife/quiclife/internal/pace"
)

// RawStream returns quic-go's stream of s, for tests that check that it is
// freed.
func RawStream(s *Stream) *quic.Stream { return s.raw }

// AfterClose makes s call f when it has closed quic-go's stream but has not
// settled the half yet.
func AfterClose(s *SendStream, f func()) { s.st.put(afterClose{s.st.send(), f}, nil) }

type afterClose struct {
	sender
	f func()
}

func (s afterClose) Close() error {
	err := s.sender.Close()
	s.f()
	return err
}

// CollectionsAsked returns how many collections c's collector has run. c is in
// a bubble.
func CollectionsAsked(c *Conn) int {
	c.collector.mu.Lock()
	defer c.collector.mu.Unlock()
	return c.collector.ran
}

// CreditRequired returns the value of Config.RequireStreamCreditRelease in c.
func CreditRequired(c *Conn) bool { return c.creditRequired }

// AfterAccept makes l call f when an Accept has quic-go's connection but the
// group does not have it yet.
func AfterAccept(l *Listener, f func()) { l.l.raw = afterAccept{l.l.raw, f} }

type afterAccept struct {
	rawListener
	f func()
}

func (l afterAccept) Accept(ctx context.Context) (*quic.Conn, error) {
	c, err := l.rawListener.Accept(ctx)
	if err == nil {
		l.f()
	}
	return c, err
}

// ResolveUDPAddr is how DialAddr resolves addresses.
func ResolveUDPAddr(ctx context.Context, addr string) (*net.UDPAddr, error) {
	return resolveUDPAddr(ctx, addr)
}

// AfterTryWriteAll makes s call f when it has queued something with quic-go but
// has not noted it yet.
func AfterTryWriteAll(s *Stream, f func()) { s.st.put(afterTryWriteAll{s.st.send(), f}, nil) }

type afterTryWriteAll struct {
	sender
	f func()
}

func (s afterTryWriteAll) TryWriteAll(p []byte) error {
	err := s.sender.TryWriteAll(p)
	s.f()
	return err
}

// BeforeCancelWrite makes s call f just before each CancelWrite of quic-go.
func BeforeCancelWrite(s *Stream, f func()) { s.st.put(beforeCancelWrite{s.st.send(), f}, nil) }

type beforeCancelWrite struct {
	sender
	f func()
}

func (s beforeCancelWrite) CancelWrite(code quic.StreamErrorCode) {
	s.f()
	s.sender.CancelWrite(code)
}

// LastLook returns a value that changes with each sweep of c.
func LastLook(c *Conn) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spare
}

// AroundDrainedReads makes s call f around each Read of a drain.
func AroundDrainedReads(s *ReceiveStream, f func(read func())) {
	s.st.put(nil, aroundReads{s.st.receive(), f})
}

type aroundReads struct {
	receiver
	f func(func())
}

func (s aroundReads) Read(p []byte) (n int, err error) {
	s.f(func() { n, err = s.receiver.Read(p) })
	return n, err
}

// put wraps quic-go's halves; nil means that a half is not wrapped. It holds
// the lock that timers take, so that they see the wrapped halves.
func (st *streamState) put(send sender, receive receiver) {
	st.conn.mu.Lock()
	defer st.conn.mu.Unlock()
	if send == nil && st.kind.sends() {
		send = st.send()
	}
	if receive == nil && st.kind.receives() {
		receive = st.receive()
	}
	st.raw = behind{send, receive}
}

type behind struct {
	sender
	receiver
}

func (b behind) StreamID() quic.StreamID {
	if b.sender != nil {
		return b.sender.StreamID()
	}
	return b.receiver.StreamID()
}

// Adopt makes raw a stream of c, as the last step of OpenStream does.
func Adopt(c *Conn, raw *quic.Stream) *Stream { return newStream(c, outgoing, raw, false) }

// ForgetHeapTries lets the next refusal above MaxHeap ask for a collection at
// once.
func ForgetHeapTries() {
	heapTries = &pace.Tries{First: heapTries.First, Most: heapTries.Most, Share: heapTries.Share}
}

// OwnCollector gives g its own collector, which has spent nothing yet, and
// returns g. Call it before g is used.
func OwnCollector(g *Guard) *Guard {
	g.collector = &collector{collect: collectGarbage}
	return g
}

// BeforeCancelRead makes s call f just before each CancelRead of quic-go.
func BeforeCancelRead(s *Stream, f func()) { s.st.put(nil, beforeCancelRead{s.st.receive(), f}) }

type beforeCancelRead struct {
	receiver
	f func()
}

func (s beforeCancelRead) CancelRead(code quic.StreamErrorCode) {
	s.f()
	s.receiver.CancelRead(code)
}

// OpenStreamSlowly is OpenStream, but calls f when quic-go has opened the
// stream and c does not have it yet.
func OpenStreamSlowly(c *Conn, f func()) (*Stream, error) {
	raw, err := open(c, outgoing, c.raw.OpenStream)
	if err != nil {
		return nil, err
	}
	f()
	return newStream(c, outgoing, raw, false), nil
}

// CollectWith makes c's collector call collect instead of the garbage
// collector. c is in a bubble. Call it before c is used.
func CollectWith(c *Conn, collect func()) {
	k := c.collector
	k.collect = func() time.Duration {
		collect()
		k.looking.Lock()
		k.looked = 0 // otherwise it would not look if collect does nothing
		k.looking.Unlock()
		return 0
	}
}

// SetLiveHeap makes Guard.MaxHeap see another size of the heap until restore is
// called.
func SetLiveHeap(read func() int64) (restore func()) {
	before := liveHeap
	liveHeap = &heap.Gauge{Read: read}
	return func() { liveHeap = before }
}

// ListenUnder is Listen under g.
func ListenUnder(g *Guard, conn net.PacketConn, tlsConf *tls.Config, conf *Config) (*Listener, error) {
	return g.listen(own(conn), tlsConf, conf)
}

// DuringCalls makes a stream call f at the beginning of each call on quic-go's
// halves that does not block.
func DuringCalls(s any, f func()) {
	var st *streamState
	switch s := s.(type) {
	case *Stream:
		st = s.st
	case *SendStream:
		st = s.st
	case *ReceiveStream:
		st = s.st
	}
	var send sender
	var receive receiver
	if st.kind.sends() {
		send = duringSend{st.send(), f}
	}
	if st.kind.receives() {
		receive = duringReceive{st.receive(), f}
	}
	st.put(send, receive)
}

type duringSend struct {
	sender
	f func()
}

func (s duringSend) Context() context.Context { s.f(); return s.sender.Context() }

func (s duringSend) TryWriteAll(p []byte) error { s.f(); return s.sender.TryWriteAll(p) }

func (s duringSend) Close() error { s.f(); return s.sender.Close() }

func (s duringSend) CancelWrite(code quic.StreamErrorCode) { s.f(); s.sender.CancelWrite(code) }

type duringReceive struct {
	receiver
	f func()
}

func (s duringReceive) SetReceiveFinalSizeCallback(callback func(int64)) {
	s.f()
	s.receiver.SetReceiveFinalSizeCallback(callback)
}

func (s duringReceive) CancelRead(code quic.StreamErrorCode) { s.f(); s.receiver.CancelRead(code) }

// AwaitPeer is OpenStreamSync at the peer's limit. wait replaces quic-go's
// OpenStreamSync.
func AwaitPeer(ctx context.Context, c *Conn, wait func(context.Context) (*quic.Stream, error)) error {
	_, err := awaitPeer(ctx, c, outgoing, wait)
	return err
}

// EndUnnoticed makes the connection of c look ended before c was told of it.
// Call it while nobody uses c.
func EndUnnoticed(c *Conn) {
	ended, end := context.WithCancelCause(context.Background())
	end(&ApplicationError{Remote: true})
	c.lifetime = ended
}

// Admit counts a connection that is about to be dialed, or returns an error if
// a limit forbids it.
func Admit(g *Guard) error { return g.admit(nil) }
