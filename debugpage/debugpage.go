// Package debugpage shows in a browser which streams are open on the
// connections of a [quiclife.Guard]: how many there are of each kind, their
// limits, where they were opened, and their state. It also shows the latest
// leaks.
//
//	http.Handle("/debug/quiclife", debugpage.Handler())
//
// The page is for debugging, on the machine that the program runs on. Unless
// [Options] allow more, it answers a request only if three conditions hold: it
// comes from a loopback address, it was not forwarded by a proxy, and its Host
// is localhost or a loopback address. So no web page elsewhere can read it. The
// page has no scripts, loads nothing, and changes nothing in the program.
//
// Set [quiclife.Guard].CaptureStacks, or the page does not know where most
// streams were opened: it says "not captured".
//
// # Queries
//
// These parameters may be combined:
//
//	?q=text       only rows with this text in their address, opener or state; also lists single streams
//	?sort=column  sort the connections or streams by a column, like the links in the table heads
//	?refresh=5    reload every 5 seconds
//	?format=json  the page as JSON
//	?format=text  the page as text, for terminals
//
// A table has at most 500 rows, and says how many there are in all.
//
// With [Options].Ledger the page also shows which end each stream is waiting
// for.
//
// # Cost
//
// Between requests the page costs nothing, except that once Handler was called,
// the last 100 leaks are kept. A request looks at every open stream. That takes
// a fraction of a second for 100,000 streams (go test -v -run TestManyStreams
// ./debugpage). Meanwhile streams can be opened and ended as usual.
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

// Options say who may see the page, and what else it shows.
type Options struct {
	// Allow reports whether to answer a request. Other requests get status 403.
	// Calls may be concurrent. nil means the rule in the package documentation.
	Allow func(*http.Request) bool

	// Names holds a name for each Guard, in the same order. The page shows it above
	// the Guard. Without names, it numbers the Guards if there are several.
	Names []string

	// Ledger, if not nil, is shown too. The page shows all of its connections,
	// even those that belong to none of the Guards: how many streams each end
	// holds, which end has to act on each stream, and the frames that prove it.
	// Streams of connections that have ended are listed only if the query has a
	// filter.
	Ledger Ledger
}

// A Ledger is always a [*ledger.Ledger]. It is an interface because importing
// that package here would change the qlog files of programs that have no
// ledger.
//
// [*ledger.Ledger]: https://pkg.go.dev/github.com/quiclife/quiclife/ledger#Ledger
type Ledger interface {
	Tracer(next func(ctx context.Context, isClient bool, id quic.ConnectionID) qlogwriter.Trace) func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace
}

// Handler returns the page for the connections of guards, or of
// [quiclife.DefaultGuard] if there are none. It answers GET and HEAD requests
// for any path. It panics if a Guard is nil.
func Handler(guards ...*quiclife.Guard) http.Handler { return Options{}.Handler(guards...) }

// Handler is [Handler] with options. It panics if o.Ledger is set but is not a
// *ledger.Ledger, or is a nil one, or if there are names, but not as many as
// Guards.
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
			panic(fmt.Sprintf("debugpage: Options.Ledger is a %T, but must be a non-nil *ledger.Ledger", o.Ledger))
		}
	}
	return h
}

type handler struct {
	allow  func(*http.Request) bool
	names  []string // of guards, or empty
	guards []*quiclife.Guard
	ledger iter.Seq[peek.LedgerConn] // nil without a Ledger
}

// local reports whether a request comes from this machine, and not from
// elsewhere through it. A proxy could forward such a request. So could a
// browser, for a web page whose own name resolves to a loopback address.
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
		http.Error(w, "This page answers only requests from this machine, unless debugpage.Options.Allow allows more.", http.StatusForbidden)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "This page is read-only: use GET or HEAD.", http.StatusMethodNotAllowed)
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

// policy is the Content-Security-Policy. It allows only our own style sheet.
var policy = sync.OnceValue(func() string {
	hash := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
})
