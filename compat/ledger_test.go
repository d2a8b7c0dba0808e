package compat

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	h3qlog "github.com/quic-go/quic-go/http3/qlog"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife/internal/quictest"
	"github.com/quiclife/quiclife/ledger"
)

// TestLedgerNamesHTTP3Requests has a client and a server of plain http3 that make
// the usual mistakes: a handler does not return, a client does not close the body
// of an answer, and one does not end its request. The ledgers of both ends name
// the requests by method and path, and blame the right side.
func TestLedgerNamesHTTP3Requests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		forever := make(chan struct{})
		mux := http.NewServeMux()
		mux.HandleFunc("/fine", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "fine") })
		mux.HandleFunc("/stuck", func(w http.ResponseWriter, _ *http.Request) { <-forever })
		mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 10<<20)) })
		mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })

		conf := func() *quic.Config {
			return &quic.Config{MaxIdleTimeout: time.Hour, EnableDatagrams: true, Tracer: ledger.New(ledger.Options{}).Tracer(nil)}
		}
		rc, rs := quictest.Net{}.Pair(t, conf(), conf())
		server := &http3.Server{Handler: mux}
		served := make(chan error, 1)
		go func() { served <- server.ServeQUICConn(rs) }()
		client := (&http3.Transport{}).NewClientConn(rc)
		get := func(path string) *http.Response {
			r, err := http.NewRequest("GET", "https://localhost"+path, nil)
			require.NoError(t, err)
			res, err := client.RoundTrip(r)
			require.NoError(t, err)
			return res
		}
		for range 3 {
			res := get("/fine")
			_, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
		}
		large := get("/large?token=secret") // the body is not closed
		done := make(chan struct{}, 2)
		go func() {
			r, _ := http.NewRequest("GET", "https://localhost/stuck", nil)
			client.RoundTrip(r)
			done <- struct{}{}
		}()
		body, more := io.Pipe() // nobody writes to it
		go func() {
			r, _ := http.NewRequest("POST", "https://localhost/upload", body)
			client.RoundTrip(r)
			done <- struct{}{}
		}()
		time.Sleep(time.Minute)
		synctest.Wait()

		type line struct {
			incoming bool
			label    string
			blame    ledger.Blame
		}
		streams := func(c *quic.Conn) (all []line) {
			for s := range ledger.Of(c).Streams() {
				all = append(all, line{s.Incoming, s.Label, s.Blame})
			}
			return all
		}
		// The handler of the upload has read what has come, and waits for more. The
		// client waits, too. So both halves are open.
		require.ElementsMatch(t, []line{
			{true, "GET /large", ledger.BlamePeerApp},
			{true, "GET /stuck", ledger.BlameOurApp},
			{true, "POST /upload", ledger.BlameUnknown},
			{true, "http3 control", ledger.BlamePeerApp}, // control streams stay open
			{false, "http3 control", ledger.BlameOurApp},
		}, streams(rs))
		require.ElementsMatch(t, []line{
			{false, "GET /large", ledger.BlameOurApp},
			{false, "GET /stuck", ledger.BlamePeerApp},
			{false, "POST /upload", ledger.BlameUnknown},
			{true, "http3 control", ledger.BlamePeerApp},
			{false, "http3 control", ledger.BlameOurApp},
		}, streams(rc))
		r := ledger.Of(rs).Report()
		require.EqualValues(t, 6, r.Incoming.Opened)
		require.EqualValues(t, 3, r.Incoming.Held)
		require.Equal(t, r.Incoming.Held, ledger.Of(rc).Report().Outgoing.Held)

		close(forever)
		more.Close()
		large.Body.Close()
		rc.CloseWithError(0, "")
		<-done
		<-done
		<-served
		server.Close()
	})
}

// A program that does not want paths in the ledger wraps its tracer.
func TestLedgerShowsNoPathsThatAreRedacted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := ledger.New(ledger.Options{})
		hide := func(name, value string) string {
			if name == ":path" {
				return "/hidden"
			}
			return value
		}
		rc, rs := quictest.Net{}.Pair(t, &quic.Config{EnableDatagrams: true, Tracer: h3qlog.RedactHeaders(l.Tracer(nil), hide)}, &quic.Config{EnableDatagrams: true})
		forever := make(chan struct{})
		server := &http3.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-forever })}
		served := make(chan error, 1)
		go func() { served <- server.ServeQUICConn(rs) }()
		done := make(chan struct{})
		go func() {
			defer close(done)
			r, _ := http.NewRequest("GET", "https://localhost/secret", nil)
			(&http3.Transport{}).NewClientConn(rc).RoundTrip(r)
		}()
		time.Sleep(time.Second)
		synctest.Wait()
		var labels []string
		for c := range l.Conns() {
			for s := range c.Streams() {
				if !s.Unidirectional {
					labels = append(labels, s.Label)
				}
			}
		}
		require.Equal(t, []string{"GET /hidden"}, labels)
		close(forever)
		rc.CloseWithError(0, "")
		<-done
		<-served
		server.Close()
	})
}
