package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/rig"
)

// A process with this variable in its environment is one end of the connections
// of -scale. It obeys commands from its standard input, and ends when that ends.
const (
	roleVariable = "QUICLIFE_BENCH_ROLE"
	peerRole     = "peer" // another role is the library of a client
)

func play(role string) error {
	numbers := func(args []string) (all []int) {
		for _, a := range args {
			n, err := strconv.Atoi(a)
			if err != nil {
				return nil
			}
			all = append(all, n)
		}
		return all
	}
	switch args := os.Args[1:]; {
	case role == peerRole && len(args) == 1:
		n := numbers(args)
		if n == nil {
			break
		}
		return playPeer(n[0])
	case (role == baseline || role == "quiclife") && len(args) == 3:
		n := numbers(args[1:])
		if n == nil {
			break
		}
		return playClient(role, args[0], n[0], n[1])
	}
	return fmt.Errorf("unknown role, or wrong arguments: %q", os.Args[1:])
}

// atOnce is how many connections or cycles are made at a time.
const atOnce = 16

func scaleConf(streams int) *quic.Config {
	return &quic.Config{
		MaxIncomingStreams:   int64(streams + 2*atOnce),
		MaxIdleTimeout:       time.Hour, // a connection at rest sends nothing
		HandshakeIdleTimeout: connectTimeout,
	}
}

// playPeer accepts connections, holds the first streams of each, and answers on
// the others.
func playPeer(streams int) error {
	socket, err := listenUDP()
	if err != nil {
		return err
	}
	serverTLS, _ := rig.TLS()
	ln, err := (&quic.Transport{Conn: socket}).Listen(serverTLS, scaleConf(streams))
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := ln.Accept(context.Background())
			if err != nil {
				return
			}
			go func() {
				var held []*quic.Stream
				for range streams {
					s, err := c.AcceptStream(context.Background())
					if err != nil {
						return
					}
					held = append(held, s)
				}
				(&link{library: quicGo{}, server: quicGoEnd(c)}).serve(1)
				<-c.Context().Done()
				runtime.KeepAlive(held)
			}()
		}
	}()
	fmt.Println(ln.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// A crowd is many connections of one process.
type crowd struct {
	links []*link
	guard *quiclife.Guard // nil on quic-go

	shutDown time.Duration // the processor time of Shutdown
}

func playClient(library, addr string, conns, streams int) error {
	c, held, err := gather(library, addr, conns, streams)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for commands := bufio.NewScanner(os.Stdin); commands.Scan(); {
		v, err := c.obey(commands.Text())
		if err != nil {
			return err
		}
		fmt.Println(v)
	}
	runtime.KeepAlive(held)
	return nil
}

// gather makes the connections, and opens streams on each.
func gather(library, addr string, conns, streams int) (*crowd, []stream, error) {
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, nil, err
	}
	socket, err := listenUDP()
	if err != nil {
		return nil, nil, err
	}
	_, clientTLS := rig.TLS()
	clientTLS = clientTLS.Clone()
	clientTLS.InsecureSkipVerify = true // the peer made its certificate itself, in its process
	conf := scaleConf(streams)
	c := &crowd{}
	var dial func(context.Context) (*link, error)
	if library == baseline {
		t := &quic.Transport{Conn: socket}
		dial = func(ctx context.Context) (*link, error) {
			conn, err := t.Dial(ctx, to, clientTLS, conf)
			if err != nil {
				return nil, err
			}
			return &link{library: quicGo{}, client: quicGoEnd(conn)}, nil
		}
	} else {
		c.guard = &quiclife.Guard{Logger: slog.New(slog.DiscardHandler)}
		t := &quiclife.Transport{Conn: socket, Guard: c.guard}
		dial = func(ctx context.Context) (*link, error) {
			conn, err := t.Dial(ctx, to, clientTLS, conf)
			if err != nil {
				return nil, err
			}
			return &link{library: lifeLibrary{}, client: lifeEnd(conn)}, nil
		}
	}
	var mu sync.Mutex
	var held []stream
	err = share(conns, func(int, []byte) error {
		ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
		defer cancel()
		l, err := dial(ctx)
		if err != nil {
			return err
		}
		mine := make([]stream, streams)
		for i := range mine {
			if mine[i], err = l.client.open(ctx); err != nil {
				return err
			}
		}
		mine[streams-1].Write([]byte{0}) // shows the peer all of them
		mu.Lock()
		defer mu.Unlock()
		c.links, held = append(c.links, l), append(held, mine...)
		return nil
	})
	if err == nil { // an answer shows that the peer holds the earlier streams
		err = share(conns, func(i int, buf []byte) error { return c.links[i].cycle(buf) })
	}
	return c, held, err
}

// share calls f with each of 0 to n-1 and a buffer, several calls at a time.
func share(n int, f func(i int, buf []byte) error) error {
	var next atomic.Int64
	var workers []func() error
	for range atOnce {
		workers = append(workers, func() error {
			buf := make([]byte, bufferSize)
			for {
				i := int(next.Add(1) - 1)
				if i >= n {
					return nil
				}
				if err := f(i, buf); err != nil {
					return err
				}
			}
		})
	}
	return allAtOnce(workers)
}

// obey runs a command, and returns nanoseconds.
func (c *crowd) obey(command string) (float64, error) {
	var name, a, b string
	fmt.Sscan(command, &name, &a, &b)
	switch name {
	case "cycle":
		busy, err := strconv.Atoi(a)
		if err != nil {
			return 0, err
		}
		cycles, err := strconv.Atoi(b)
		if err != nil {
			return 0, err
		}
		before := rig.CPU()
		err = share(cycles, func(i int, buf []byte) error { return c.links[i%busy].cycle(buf) })
		return float64(rig.CPU()-before) / float64(cycles), err
	case "collect":
		rest := func() { time.Sleep(300 * time.Millisecond) }
		rest()
		before := rig.CPU()
		runtime.GC()
		rest() // quiclife looks for dropped streams after the collection
		return float64(rig.CPU() - before), nil
	case "stats":
		const calls = 10
		before := rig.CPU()
		for range calls {
			c.guard.Stats()
		}
		return float64(rig.CPU()-before) / calls, nil
	case "shutdown":
		d, err := time.ParseDuration(a)
		if err != nil {
			return 0, err
		}
		before, deadline := rig.CPU(), time.Now().Add(d)
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		defer cancel()
		err = c.guard.Shutdown(ctx)
		over := time.Since(deadline)
		c.shutDown = rig.CPU() - before
		if !errors.Is(err, context.DeadlineExceeded) {
			return 0, fmt.Errorf("shutdown with open streams: %w", err)
		}
		return float64(over), nil
	case "closed":
		return float64(c.shutDown), nil
	}
	return 0, fmt.Errorf("unknown command %q", command)
}
