package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/debugpage"
	"github.com/quiclife/quiclife/metrics"
)

// HTTPUsage is the help text of the flag -http.
const HTTPUsage = "serve the page and the metrics at this loopback `address` while the system runs, such as localhost:6060, or :0 for any port"

// served is the site that -http asks for. It is nil without -http.
var served atomic.Pointer[site]

// Watched shows g under name on the page and in the metrics, if the system
// serves them. It returns g. A Guard that was shown under this name before is
// replaced. Watched also sets g.CaptureStacks, so that the page can show where
// streams were opened. It must therefore be called before g has connections.
func Watched(name string, g *quiclife.Guard) *quiclife.Guard {
	if s := served.Load(); s != nil {
		g.CaptureStacks = true
		s.add(name, g)
	}
	return g
}

// ServeHTTP serves /debug/quiclife and /metrics at addr until stop is called. It
// prints their addresses to w. It accepts loopback addresses only.
func ServeHTTP(w io.Writer, addr string) (stop func(), err error) {
	ln, err := listenLoopback(addr)
	if err != nil {
		return nil, err
	}
	s := &site{}
	s.showLocked() // no lock needed: nobody else has s yet
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/quiclife", func(w http.ResponseWriter, r *http.Request) { s.handlers().page.ServeHTTP(w, r) })
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, r *http.Request) { s.handlers().metrics.ServeHTTP(w, r) })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	server.SetKeepAlivesEnabled(false) // idle connections would keep goroutines, which the systems count
	if !served.CompareAndSwap(nil, s) {
		return nil, errors.Join(errors.New("-http: this process already serves its pages"), ln.Close())
	}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(ln) })
	fmt.Fprintf(w, "page: http://%v/debug/quiclife   metrics: http://%[1]v/metrics\n", ln.Addr())
	return func() {
		served.Store(nil)
		server.Close()
		serving.Wait()
	}, nil
}

func listenLoopback(addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("-http: %w; it takes an address such as localhost:6060", err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("-http: %q is not a loopback address; the page is for this machine only, so use localhost:%s, or ssh -L from another machine", host, port)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("-http: %w", err)
	}
	if ip := ln.Addr().(*net.TCPAddr).IP; !ip.IsLoopback() { // localhost may resolve to anything
		return nil, errors.Join(fmt.Errorf("-http: %s is %v here, which is not a loopback address", host, ip), ln.Close())
	}
	return ln, nil
}

// A site serves the page and the metrics of a system's Guards.
type site struct {
	mu     sync.Mutex // guards the fields below
	names  []string
	guards []*quiclife.Guard
	now    handlers
}

type handlers struct{ page, metrics http.Handler }

func (s *site) handlers() handlers {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// add shows g under name. It replaces a Guard that has this name already.
func (s *site) add(name string, g *quiclife.Guard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.names, name); i >= 0 {
		s.guards[i] = g
	} else {
		s.names, s.guards = append(s.names, name), append(s.guards, g)
	}
	s.showLocked()
}

// showLocked replaces the handlers with ones for the present Guards.
func (s *site) showLocked() {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector())
	for i, g := range s.guards {
		registry.MustRegister(metrics.NewCollector(g, s.names[i]))
	}
	s.now.metrics = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	s.now.page = http.HandlerFunc(nothingToShow)
	if len(s.guards) > 0 {
		s.now.page = debugpage.Options{Names: slices.Clone(s.names)}.Handler(slices.Clone(s.guards)...)
	}
}

// nothingToShow is the page when no Guard is in use, as on plain quic-go.
func nothingToShow(w http.ResponseWriter, r *http.Request) {
	http.Error(w, "Nothing to show: no quiclife.Guard is in use. A run on plain quic-go has none; /metrics shows only the Go runtime.", http.StatusNotFound)
}
