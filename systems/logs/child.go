package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife/internal/rig"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

// Some producers run in a separate process. The process runs this same program,
// with an order in its environment. It prints a line for each acknowledgement.
// When its standard input ends, it comes to rest and then prints one more line.
const (
	orderVariable = "QUICLIFE_LOGS_ORDER"
	ackedLine     = "acked %d\n"
	heldLine      = "held %d\n"
)

type order struct {
	ID    int
	Addr  string
	Cert  []byte // of the collector
	Plain bool
	Dead  time.Duration
	Rest  time.Duration
}

func isChild() bool { return os.Getenv(orderVariable) != "" }

func childMain() int {
	var o order
	if err := json.Unmarshal([]byte(os.Getenv(orderVariable)), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cert, err := x509.ParseCertificate(o.Cert)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_, conf := rig.TLS()
	conf = conf.Clone()
	conf.RootCAs = x509.NewCertPool()
	conf.RootCAs.AddCert(cert)
	if o.Plain {
		obey(o, conf, quic.DialAddr)
	} else {
		obey(o, conf, producerGuard(nil).DialAddr)
	}
	return 0
}

func obey[D conn[S, C], S io.WriteCloser, C io.ReadWriteCloser](o order, conf *tls.Config, dial dialer[D]) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin) // also ends if the parent process does
		cancel()
	}()
	var conns lab.Conns
	p := &producer{id: o.ID, conns: &conns, timeout: o.Dead, told: func(k batchKey) { fmt.Printf(ackedLine, k.batch) }}
	var running sync.WaitGroup
	running.Go(func() { produce(ctx, p, o.Addr, conf, dial) })
	<-ctx.Done()
	left := func() int64 { return conns.Held() - int64(conns.Len()) }
	poll(o.Rest, func() bool {
		runtime.GC() // finds forgotten streams, as in the parent process
		return p.idle.Load() && left() == 0
	})
	fmt.Printf(heldLine, left())
	running.Wait()
}

// A child is such a process, as its parent sees it.
type child struct {
	id    int
	cmd   *exec.Cmd
	stdin io.Closer
	held  atomic.Int64  // streams held at rest; -1 if the process has not said
	done  chan struct{} // closed when the process has ended
	err   error         // how the process ended; set before done is closed
}

func startChild(o order, told func(batchKey)) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	c := &child{id: o.ID, cmd: exec.Command(self), done: make(chan struct{})}
	c.held.Store(-1)
	c.cmd.Env = append(os.Environ(), orderVariable+"="+string(text))
	c.cmd.Stderr = os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(c.done)
		in := bufio.NewReader(stdout)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				break // a line that the killed process did not finish does not count
			}
			var n int
			if _, err := fmt.Sscanf(line, ackedLine, &n); err == nil {
				told(batchKey{o.ID, n})
			} else if _, err := fmt.Sscanf(line, heldLine, &n); err == nil {
				c.held.Store(int64(n))
			}
		}
		c.err = c.cmd.Wait()
	}()
	return c, nil
}

// kill kills the process with SIGKILL.
func (c *child) kill() error {
	err := c.cmd.Process.Kill()
	<-c.done
	return err
}

// rest tells the process to come to rest.
func (c *child) rest() error { return c.stdin.Close() }

// wait waits for the process to end, and kills it if it does not.
func (c *child) wait() error {
	select {
	case <-c.done:
		return c.err
	case <-time.After(slowStart):
		return errors.Join(errors.New("it did not end"), c.kill())
	}
}
