package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife/internal/rig"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

// A library holds the QUIC functions that the proxy needs.
type library[L listener[C], C conn] struct {
	listen   func(string, *tls.Config, *quic.Config) (L, error)
	dial     func(context.Context, string, *tls.Config, *quic.Config) (C, error)
	open     func(context.Context, C) (net.Conn, error) // opens a stream at the edge
	serve    func(C, func(net.Conn) error)              // serves the tunnel end until the connection and all handlers have ended
	shutdown func(L, []C) error
	leaks    func() int64 // leaks reported so far
}

type listener[C any] interface {
	Accept(context.Context) (C, error)
	Addr() net.Addr
}

type conn interface{ Context() context.Context }

// config is for both ends. Its receive window is larger than the default. With
// the default, a few answers that nobody reads block a quic-go connection
// completely, before the run can show much else.
var config = &quic.Config{InitialConnectionReceiveWindow: 15 << 20}

// A proxy is everything from the edge to the origin.
type proxy struct {
	url      string       // of the edge
	inFlight atomic.Int64 // requests at the edge
	conns    lab.Conns    // both ends of each
	counted  bool         // quiclife counts the streams
	leaks    func() int64
	closers  []func() error // called in reverse order

	mu    sync.Mutex // guards the fields below
	last  lab.Sample
	spare int64 // the most streams that were held beyond those of requests in flight
	ended bool  // last no longer changes, because the connections are about to be closed
}

// start starts the origin, then the connections between the tunnel end and the
// edge, then the edge. The caller must call close even if start fails.
func start[L listener[C], C conn](p *proxy, lib library[L, C]) error {
	origin, err := p.serveHTTP(http.HandlerFunc(serveOrigin))
	if err != nil {
		return err
	}
	serverTLS, clientTLS := rig.TLS()
	ln, err := lib.listen("127.0.0.1:0", serverTLS, config)
	if err != nil {
		return err
	}
	var edges, all []C
	var tunnels sync.WaitGroup
	p.leaks = lib.leaks
	p.closers = append(p.closers, func() error {
		defer tunnels.Wait()
		return lib.shutdown(ln, all)
	})
	ctx, cancel := context.WithTimeout(context.Background(), restTime)
	defer cancel()
	for range connections {
		tunnel, err := lib.dial(ctx, ln.Addr().String(), clientTLS, config)
		if err != nil {
			return err
		}
		all = append(all, tunnel)
		p.conns.Add(tunnel)
		tunnels.Go(func() {
			lib.serve(tunnel, func(s net.Conn) error { return forward(s, origin) })
		})
		edge, err := ln.Accept(ctx)
		if err != nil {
			return err
		}
		all, edges = append(all, edge), append(edges, edge)
		p.conns.Add(edge)
	}
	var next atomic.Uint64
	addr, err := p.serveHTTP(p.count(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "origin"
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return lib.open(ctx, edges[next.Add(1)%connections])
			},
			DisableKeepAlives: true, // a stream per request
		},
		FlushInterval: -1, // pass on each part of an answer at once
		ErrorLog:      quiet,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}))
	if err != nil {
		return err
	}
	p.url = "http://" + addr.String()
	return nil
}

var quiet = log.New(io.Discard, "", 0) // otherwise net/http logs each client that leaves

// serveHTTP starts an HTTP server on loopback.
func (p *proxy) serveHTTP(h http.Handler) (net.Addr, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &http.Server{Handler: h, ErrorLog: quiet}
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(ln) })
	p.closers = append(p.closers, func() error {
		defer serving.Wait()
		return s.Close()
	})
	return ln.Addr(), nil
}

// close closes everything that start has started.
func (p *proxy) close() (err error) {
	for _, f := range slices.Backward(p.closers) {
		err = errors.Join(err, f())
	}
	return err
}

// count counts the requests in flight.
func (p *proxy) count(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.inFlight.Add(1)
		defer p.inFlight.Add(-1)
		h.ServeHTTP(w, r)
	})
}

// forward is the tunnel end. It copies in both directions between a stream and
// a connection to the origin, until both directions have ended. It passes on
// half-closes.
func forward(stream net.Conn, addr net.Addr) error {
	origin, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		return err
	}
	defer origin.Close()
	var up sync.WaitGroup
	up.Go(func() { copyHalf(origin, stream) })
	copyHalf(stream, origin)
	up.Wait()
	return nil
}

// copyHalf copies until from ends or one of the two fails, and then closes the
// write side of to. A peer that leaves is no error here.
func copyHalf(to, from net.Conn) {
	io.Copy(to, from)
	to.(interface{ CloseWrite() error }).CloseWrite()
}

// look takes a sample for the table.
func (p *proxy) look(l *load) lab.Sample {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return p.last
	}
	inFlight := p.inFlight.Load()
	held := p.conns.Held()
	inFlight = max(inFlight, p.inFlight.Load())
	p.spare = max(p.spare, held-2*inFlight)
	open := int64(-1) // unknown: quic-go does not count
	if p.counted {
		open = p.conns.Open()
	}
	p.last = lab.Sample{
		Requests: l.whole.Load() + l.left.Load() + l.failed.Load(),
		Failed:   l.failed.Load(),
		Open:     open,
		Limit:    2 * connections * 100, // quic-go's default of 100, at both ends
		Held:     held,
		More: []lab.Value{
			{Name: "in flight", Value: fmt.Sprint(inFlight)},
			{Name: "newStream", Value: fmt.Sprintf("%.1f%%", 100*newStreamShare())},
		},
	}
	return p.last
}

// end takes the last sample.
func (p *proxy) end(l *load) (spare int64) {
	p.look(l)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	return p.spare
}

// rest waits until no stream is held, or until no more streams go. Garbage
// collections find the streams that the program has dropped, so rest runs them.
func (p *proxy) rest() {
	last, since := int64(-1), time.Now()
	poll(func() bool {
		runtime.GC()
		left := p.conns.Held() + p.conns.Open() + p.inFlight.Load()
		if left != last {
			last, since = left, time.Now()
		}
		return left == 0 || time.Since(since) > stillTime
	})
}
