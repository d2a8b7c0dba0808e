package main

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/quiclife/quiclife"
)

// A request says what the handler should do. On the stream, the length of the
// body and the body follow it.
type request byte

const (
	echo      request = iota // read all, and send it back
	echoExact                // the same, without reading the io.EOF
	crash                    // panic
	fail                     // send something, then fail
	ignore                   // return at once
	flood                    // send without reading
	stall                    // wait
	numRequests

	message request = 100 // on a unidirectional stream; the receiver calls arrived
)

var errAsked = errors.New("failing, as asked to")

// header returns the head of a request with a body of n bytes.
func header(op request, n int) []byte {
	return binary.BigEndian.AppendUint32([]byte{byte(op)}, uint32(n))
}

// handle is the handler of clients and servers.
func (k *soak) handle(ctx context.Context, s *quiclife.Stream) error {
	op, size, err := readHeader(s)
	if err != nil {
		return err
	}
	switch op {
	case echo:
		body, err := k.readBody(s, size)
		if err != nil {
			return err
		}
		_, err = s.Write(body)
		return err
	case echoExact:
		body := make([]byte, size)
		if _, err := io.ReadFull(s, body); err != nil {
			return err
		}
		_, err := s.Write(body)
		return err
	case crash:
		panic("as asked to")
	case fail:
		s.Write(block[:1000])
		return errAsked
	case flood:
		_, err := s.Write(block)
		return err
	case stall:
		select {
		case <-ctx.Done():
		case <-s.Context().Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

func readHeader(r io.Reader) (op request, size int, err error) {
	var head [5]byte
	_, err = io.ReadFull(r, head[:])
	return request(head[0]), int(binary.BigEndian.Uint32(head[1:])), err
}

// readBody reads to the io.EOF, which must not come early.
func (k *soak) readBody(r io.Reader, size int) ([]byte, error) {
	body, err := io.ReadAll(r)
	if err == nil && len(body) != size {
		k.fail("a message that was cut after %d of %d bytes looks whole", len(body), size)
	}
	return body, err
}

// messageHead returns the head of a message: its number and a checksum.
func messageHead(id uint64, body []byte) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, id), crc32.ChecksumIEEE(body))
}

const messageHeadSize = 12

func (k *soak) handleUni(_ context.Context, s *quiclife.ReceiveStream) error {
	op, size, err := readHeader(s)
	if err != nil || op == ignore {
		return err
	}
	b, err := k.readBody(s, size)
	if err != nil || op != message {
		return err
	}
	if len(b) < messageHeadSize || crc32.ChecksumIEEE(b[messageHeadSize:]) != binary.BigEndian.Uint32(b[8:]) {
		k.fail("a message has arrived that nobody has sent")
		return nil
	}
	k.arrived(binary.BigEndian.Uint64(b))
	return nil
}

func (k *soak) handler() quiclife.Handlers {
	return quiclife.Handlers{Stream: k.handle, UniStream: k.handleUni}
}

// A server restarts now and then, at another address.
type server struct {
	soak   *soak
	random *rand.Rand
	pushes bool // also opens streams to its clients
	done   sync.WaitGroup

	mu   sync.Mutex // guards the fields below
	addr string     // "" while it restarts
}

// startServers starts the servers. They restart until ctx is done, and serve
// until rest is done.
func (k *soak) startServers(ctx, rest context.Context) (all []*server) {
	for i := range 2 {
		s := &server{soak: k, random: k.random(uint64(i)), pushes: i > 0}
		all = append(all, s)
		s.done.Go(func() {
			for n := 0; rest.Err() == nil; n++ {
				k.restarts.Add(int64(min(n, 1)))
				if err := s.live(ctx, rest); err != nil {
					k.fail("server: %w", err)
					return
				}
			}
		})
	}
	return all
}

// live runs a server from its start to its next restart.
func (s *server) live(ctx, rest context.Context) error {
	socket, err := newBadSocket(rand.New(rand.NewPCG(s.random.Uint64(), 0)))
	if err != nil {
		return err
	}
	defer socket.Close()
	tr := &quiclife.Transport{Conn: socket, Guard: s.soak.guard}
	defer tr.Close()
	ln, err := tr.Listen(serverTLS, conf)
	if err != nil {
		return err
	}
	life, end := context.WithCancel(rest)
	defer end()
	restart := time.AfterFunc(time.Second+upTo(s.random, 8*time.Second), func() {
		if ctx.Err() == nil {
			end()
		}
	})
	defer restart.Stop()

	s.setAddr(ln.Addr().String())
	defer s.setAddr("")
	if !s.pushes {
		ln.Serve(life, s.soak.handler())
		return nil
	}
	var conns sync.WaitGroup
	for {
		c, err := ln.Accept(life)
		if err != nil {
			break
		}
		random := rand.New(rand.NewPCG(s.random.Uint64(), 0))
		conns.Go(func() { c.Serve(rest, s.soak.handler()) })
		conns.Go(func() { s.push(ctx, life, c, random) })
	}
	s.setAddr("")
	ln.Close()
	conns.Wait()
	return nil
}

// push makes requests to the client. When life is done it shuts the connection
// down.
func (s *server) push(ctx, life context.Context, c *quiclife.Conn, random *rand.Rand) {
	for ctx.Err() == nil && life.Err() == nil && c.Context().Err() == nil {
		if !s.soak.proper(c, random) {
			break
		}
		time.Sleep(upTo(random, 50*time.Millisecond))
	}
	select {
	case <-life.Done():
		drain(c)
	case <-c.Context().Done():
	}
}

// drain shuts c down, and cuts streams that take too long.
func drain(c *quiclife.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	c.Shutdown(ctx, 0, "") // cutting a stream is no defect, so the error does not matter
}

func (s *server) setAddr(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addr = addr
}

func (s *server) address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}
