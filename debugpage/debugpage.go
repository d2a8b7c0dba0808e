// Package debugpage shows in a browser which streams the connections of a
// [quiclife.Guard] have open: how many of each kind and at which limits, who
// opened them and in which state they are, and what has leaked lately.
//
//	http.Handle("/debug/quiclife", debugpage.Handler())
//
// The page is for whoever debugs the program, on the machine that it runs on.
// Unless [Options] say otherwise it answers requests only that come from a
// loopback address, were not forwarded by a proxy, and name localhost or a
// loopback address as their Host, so that no web page elsewhere can read it.
// It has no scripts and no buttons that do anything, loads nothing, and changes
// nothing in the program.
//
// # Queries
//
// These may be combined:
//
//	?q=text       only what has the text in its address, its opener or its state; lists streams one by one
//	?sort=column  of the table of connections or of streams, as the links in their heads do
//	?refresh=5    loads itself anew every 5 seconds
//	?format=json  the same, for programs
//	?format=text  the same, for terminals
//
// Tables have at most 500 rows, and say of how many.
//
// With [Options].Ledger it also shows whom streams wait for, at both ends.
//
// # Cost
//
// There is no cost between requests, but for the last 100 leaks that are kept
// for the page once Handler was called. A request looks at every open stream:
// 100,000 take a fraction of a second (go test -v -run TestManyStreams
// ./debugpage). Opens and ends of streams go on meanwhile.
package debugpage

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"iter"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/peek"
)

// Options say who may see the page, and what else is on it.
type Options struct {
	// Allow says whether a request is answered, in place of the rule of the
	// package documentation; 403 is the answer to others. It is called from the
	// server's goroutines. nil means that rule.
	Allow func(*http.Request) bool

	// Names has a name for each Guard, in their order, which is shown above it.
	// Without names, several Guards are numbered.
	Names []string

	// Ledger, if not nil, is shown too, with all of its connections, whether a Guard
	// has them or not: how many streams each end holds, whose move it is for each of
	// them, and the frames that prove it. Streams of connections that have ended are
	// listed with a filter only.
	Ledger Ledger
}

// A Ledger is a [*ledger.Ledger], and nothing else. To import that package here
// would change the qlog files of programs that have no ledger.
//
// [*ledger.Ledger]: https://pkg.go.dev/github.com/quiclife/quiclife/ledger#Ledger
type Ledger interface {
	Tracer(next func(ctx context.Context, isClient bool, id quic.ConnectionID) qlogwriter.Trace) func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace
}

// Handler returns the page of the connections of guards, without any:
// [quiclife.DefaultGuard]. It answers GET and HEAD under any path. A nil Guard
// panics.
func Handler(guards ...*quiclife.Guard) http.Handler { return Options{}.Handler(guards...) }

// Handler is [Handler] with options. A Ledger that is not one, or nil, panics,
// and so do Names that are not as many as the Guards.
func (o Options) Handler(guards ...*quiclife.Guard) http.Handler {
	if len(guards) == 0 {
		guards = []*quiclife.Guard{quiclife.DefaultGuard}
	}
	for i, g := range guards {
		if g == nil {
			panic(fmt.Sprintf("debugpage: Guard %d is nil", i))
		}
		peek.KeepLeaks(g)
	}
	if o.Allow == nil {
		o.Allow = local
	}
	if n := len(o.Names); n > 0 && n != len(guards) {
		panic(fmt.Sprintf("debugpage: Options has %d Names for %d Guards", n, len(guards)))
	}
	h := &handler{allow: o.Allow, names: o.Names, guards: guards}
	if o.Ledger != nil {
		ok := peek.LedgerConns != nil
		if ok {
			h.ledger, ok = peek.LedgerConns(o.Ledger)
		}
		if !ok {
			panic(fmt.Sprintf("debugpage: Options.Ledger is a %T, and has to be a *ledger.Ledger that is not nil", o.Ledger))
		}
	}
	return h
}

type handler struct {
	allow  func(*http.Request) bool
	names  []string // of guards, or none
	guards []*quiclife.Guard
	ledger iter.Seq[peek.LedgerConn] // nil without a Ledger
}

// local says whether a request comes from this machine, and from nobody else
// through it: neither through a proxy, nor from a web page that gave its own
// name a loopback address.
func local(r *http.Request) bool {
	for name := range r.Header {
		if name == "Forwarded" || name == "Via" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-") {
			return false
		}
	}
	remote, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || !isLoopback(remote) {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return host == "localhost" || isLoopback(strings.Trim(host, "[]"))
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", policy())
	header.Set("Referrer-Policy", "no-referrer")
	switch {
	case !h.allow(r):
		http.Error(w, "The page is for requests from this machine, unless debugpage.Options.Allow says otherwise.", http.StatusForbidden)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "The page can be read, and nothing else.", http.StatusMethodNotAllowed)
		return
	}
	q, err := parse(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p := take(h.guards, h.names, q)
	if h.ledger != nil {
		p.Ledger = takeLedger(h.ledger, q)
	}
	switch q.format {
	case "json":
		header.Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(p)
	case "text":
		header.Set("Content-Type", "text/plain; charset=utf-8")
		p.writeText(w)
	default:
		if q.refresh > 0 {
			header.Set("Refresh", strconv.Itoa(q.refresh))
		}
		header.Set("Content-Type", "text/html; charset=utf-8")
		page().Execute(w, view{p, q, template.CSS(style)})
	}
}

//go:embed page.html
var html string

//go:embed style.css
var style string

var page = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("page").Funcs(functions).Parse(html))
})

// policy is the Content-Security-Policy: nothing but our own style.
var policy = sync.OnceValue(func() string {
	hash := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
})
