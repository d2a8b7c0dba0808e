package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/quiclife/quiclife"
)

const (
	clients = 4
	workers = 4 // on each connection
)

// block holds random bytes. Bodies are parts of it.
var block = func() []byte {
	b := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}()

// runClients loads the servers until ctx is done. Connections that are alive then
// stay open until rest is done.
func (k *soak) runClients(ctx, rest context.Context, servers []*server) (wait func()) {
	var loading, living sync.WaitGroup
	for i := range clients {
		random := k.random(uint64(100 + i))
		loading.Add(1)
		living.Go(func() {
			done := sync.OnceFunc(loading.Done)
			defer done()
			for since := time.Now(); ctx.Err() == nil; {
				err := k.connect(ctx, rest, servers[random.IntN(len(servers))].address(), random, done)
				if err == nil {
					since = time.Now()
					continue
				}
				// The server may be restarting, or the network may be too bad.
				if time.Since(since) > patience {
					k.fail("dialing: %w", err)
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	<-ctx.Done()
	k.run.Event(loadEnds, "")
	k.await("the load", loading.Wait)
	return living.Wait
}

// connect makes a connection, uses it, and ends it in one of several ways. It
// calls loaded if the connection outlives the load.
func (k *soak) connect(ctx, rest context.Context, addr string, random *rand.Rand, loaded func()) error {
	if addr == "" {
		return errors.New("no server")
	}
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return err
	}
	socket, err := newBadSocket(rand.New(rand.NewPCG(random.Uint64(), 0)))
	if err != nil {
		return err
	}
	defer socket.Close()
	tr := &quiclife.Transport{Conn: socket, Guard: k.guard}
	defer tr.Close()
	dialing, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := tr.Dial(dialing, to, clientTLS, conf)
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	defer func() {
		c.CloseWithError(0, "")
		running.Wait()
	}()
	k.conns.Add(1)
	running.Go(func() { c.Serve(rest, k.handler()) })
	life := time.Second + time.Duration(random.Int64N(int64(8*time.Second)))
	working, cancel := context.WithTimeout(ctx, life)
	defer cancel()
	stop := context.AfterFunc(c.Context(), cancel)
	defer stop()
	var work sync.WaitGroup
	for range workers {
		random := rand.New(rand.NewPCG(random.Uint64(), 0))
		work.Go(func() { k.work(working, c, random) })
	}
	end := random.IntN(3)
	if end == 0 { // close while the workers are using it
		<-working.Done()
		if ctx.Err() == nil {
			c.CloseWithError(0, "closed")
		}
	}
	work.Wait()
	switch {
	case ctx.Err() != nil:
		loaded()
		select {
		case <-rest.Done():
		case <-c.Context().Done():
		}
	case end == 1:
		drain(c)
	case end == 2:
		socket.vanish()
		select {
		case <-c.Context().Done():
		case <-time.After(patience):
			k.fail("a connection whose peer has vanished does not end")
		}
	}
	return nil
}

// work makes proper and careless calls, one after another, until ctx is done or
// the connection takes no more streams.
func (k *soak) work(ctx context.Context, c *quiclife.Conn, random *rand.Rand) {
	var kept [4]any // streams that are not used, but not dropped either
	defer runtime.KeepAlive(&kept)
	for n := 0; ctx.Err() == nil; n++ {
		way := random.IntN(len(careless) + 4)
		if way > len(careless) {
			if !k.proper(c, random) {
				return
			}
			continue
		}
		start := time.Now()
		keep, err := any(nil), error(nil)
		if way < len(careless) {
			var s *quiclife.Stream
			if s, err = open(c.OpenStreamSync); err == nil {
				s.SetDeadline(time.Now().Add(patience))
				if careless[way](s, random) {
					keep = s
				}
			}
		} else {
			var s *quiclife.SendStream
			if s, err = open(c.OpenUniStreamSync); err == nil && carelessUni(s, random) {
				keep = s
			}
		}
		if err != nil {
			if !hasEnded(c, err) {
				k.fail("open: %w", err)
			}
			return
		}
		if keep != nil {
			kept[n%len(kept)] = keep
		}
		k.calls.Add(1)
		// Every call above should return within patience.
		if took := time.Since(start); took > patience {
			k.fail("careless way %d took %v", way, took)
		}
	}
}

func open[S any](openSync func(context.Context) (S, error)) (S, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return openSync(ctx)
}

// proper makes a request, which must get the right answer, or sends a message,
// which must arrive unchanged. It returns false if the connection takes no more
// streams.
func (k *soak) proper(c *quiclife.Conn, random *rand.Rand) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	body := someBytes(random)
	var err error
	switch op := request(random.IntN(3)); op {
	case echo, echoExact:
		err = c.Do(ctx, func(s *quiclife.Stream) error { return exchange(s, op, body, random) })
	default:
		err = k.message(ctx, c, body, random)
	}
	k.calls.Add(1)
	switch {
	case err == nil:
		k.verified.Add(1)
		return true
	case hasEnded(c, err):
		k.ended.Add(1)
	default:
		k.fail("proper request: %w", err)
	}
	return false
}

// message sends a message on a unidirectional stream. It waits until the receiver
// has checked it. The receiver is in this process, and calls k.arrived.
func (k *soak) message(ctx context.Context, c *quiclife.Conn, body []byte, random *rand.Rand) error {
	id, arrived := k.expect()
	err := c.DoUni(ctx, func(s *quiclife.SendStream) error {
		return send(s, message, append(messageHead(id, body), body...), random)
	})
	if err != nil {
		return err
	}
	select {
	case <-arrived:
		return nil
	case <-c.Context().Done():
		return context.Cause(c.Context())
	case <-ctx.Done():
		return errors.New("a message that was sent has not arrived")
	}
}

// hasEnded reports whether err was caused by the end of the connection, or by the
// peer's shutdown. If the peer has vanished, or its CONNECTION_CLOSE was lost,
// the connection ends only after MaxIdleTimeout. So hasEnded may wait.
func hasEnded(c *quiclife.Conn, err error) bool {
	stream, isStream := errors.AsType[*quiclife.StreamError](err)
	_, closed := errors.AsType[*quiclife.ApplicationError](err)
	_, timedOut := errors.AsType[*quiclife.IdleTimeoutError](err)
	_, broken := errors.AsType[*quiclife.TransportError](err)
	refused := isStream && stream.Remote && stream.ErrorCode == codes.Shutdown
	if !refused && !closed && !timedOut && !broken {
		return false
	}
	select {
	case <-c.Context().Done():
		return true
	case <-time.After(2 * conf.MaxIdleTimeout):
		return false
	}
}

func someBytes(random *rand.Rand) []byte {
	size := random.IntN(200)
	switch random.IntN(10) {
	case 0:
		size = random.IntN(200_000)
	case 1, 2, 3:
		size = random.IntN(10_000)
	}
	from := random.IntN(len(block) - size)
	return block[from : from+size : from+size]
}

// send sends a request, in pieces.
func send(w io.Writer, op request, body []byte, random *rand.Rand) error {
	if _, err := w.Write(header(op, len(body))); err != nil {
		return err
	}
	for len(body) > 0 {
		n := 1 + random.IntN(len(body))
		if _, err := w.Write(body[:n]); err != nil {
			return err
		}
		body = body[n:]
	}
	return nil
}

func exchange(s *quiclife.Stream, op request, body []byte, random *rand.Rand) error {
	if err := send(s, op, body, random); err != nil {
		return err
	}
	// With echoExact the peer reads the exact length, so its handler may return
	// before it has seen the FIN, or before we have sent it. Then the peer sends
	// STOP_SENDING, and Close may fail.
	if err := s.Close(); err != nil && op != echoExact {
		return err
	}
	got, err := io.ReadAll(s)
	if err == nil && !bytes.Equal(got, body) {
		return fmt.Errorf("wrong answer: %d bytes to a request of %d", len(got), len(body))
	}
	return err
}

// careless lists ways to misuse a stream. Each function returns true if the
// stream should be kept for a while without being used.
var careless = []func(*quiclife.Stream, *rand.Rand) bool{
	func(s *quiclife.Stream, random *rand.Rand) bool { // reads only the bytes it expects
		body := someBytes(random)
		send(s, echoExact, body, random)
		s.Close()
		io.ReadFull(s, make([]byte, len(body)))
		return false
	},
	func(s *quiclife.Stream, random *rand.Rand) bool { // cancels in the middle of Write
		defer time.AfterFunc(upTo(random, 3*time.Millisecond), func() { s.CancelWrite(99) }).Stop()
		send(s, echo, block, random)
		return false
	},
	func(s *quiclife.Stream, random *rand.Rand) bool { // closes in the middle of Write
		defer time.AfterFunc(upTo(random, 3*time.Millisecond), func() { s.Close() }).Stop()
		s.Write(append(header(echo, len(block)), block...)) // in one Write, because a Close between two Writes is a clean end
		return false
	},
	func(s *quiclife.Stream, random *rand.Rand) bool { // does nothing
		return random.IntN(2) == 0
	},
	func(s *quiclife.Stream, random *rand.Rand) bool { // makes any request, and reads nothing
		send(s, anything(random), someBytes(random), random)
		if random.IntN(2) == 0 {
			s.Close()
		}
		return random.IntN(2) == 0
	},
	func(s *quiclife.Stream, random *rand.Rand) bool { // releases or resets while calls are blocked
		end := s.Release
		if random.IntN(2) == 0 {
			end = func() { s.Reset(98) }
		}
		defer time.AfterFunc(upTo(random, 3*time.Millisecond), end).Stop()
		var reading sync.WaitGroup
		reading.Go(func() { io.Copy(io.Discard, s) })
		send(s, anything(random), block, random)
		reading.Wait()
		return false
	},
	func(s *quiclife.Stream, random *rand.Rand) bool { // gives up again and again
		for range 3 {
			s.SetDeadline(time.Now().Add(upTo(random, time.Millisecond)))
			s.Write(block)
			s.Read(make([]byte, 100))
		}
		s.Close()
		return false
	},
	func(s *quiclife.Stream, random *rand.Rand) bool { // a net.Conn that is closed early
		conn := s.NetConn()
		send(conn, anything(random), someBytes(random), random)
		conn.SetReadDeadline(time.Now().Add(upTo(random, 100*time.Millisecond))) // some handlers do not answer until we close
		conn.Read(make([]byte, 10))
		conn.Close()
		return false
	},
}

// carelessUni sends on a unidirectional stream, and is cut by a deadline.
func carelessUni(s *quiclife.SendStream, random *rand.Rand) bool {
	s.SetWriteDeadline(time.Now().Add(upTo(random, 3*time.Millisecond)))
	send(s, []request{echo, ignore}[random.IntN(2)], block, random)
	if random.IntN(2) == 0 {
		s.Close()
	}
	return random.IntN(2) == 0
}

func anything(random *rand.Rand) request { return request(random.IntN(int(numRequests))) }

func upTo(random *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(d)))
}
