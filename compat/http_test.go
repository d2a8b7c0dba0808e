package compat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
)

type callerKey struct{}

// caller is a ConnContext of an http.Server. It puts the name in the peer's
// certificate into the context.
func caller(ctx context.Context, c net.Conn) context.Context {
	state := c.(*quiclife.NetConn).Stream().Conn().ConnectionState()
	return context.WithValue(ctx, callerKey{}, state.TLS.PeerCertificates[0].Subject.CommonName)
}

// post sends length bytes, and expects the answer to name the caller and the
// number of bytes.
func post(client *http.Client, name string, length int) error {
	res, err := client.Post("http://quic/path", "text/plain", bytes.NewReader(make([]byte, length)))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if want := fmt.Sprintf("%s sent %d bytes to /path", name, length); err == nil && string(answer) != want {
		return fmt.Errorf("got %q, want %q", answer, want)
	}
	return err
}

// leave asks for an answer that does not end, and cancels it in the middle.
func leave(client *http.Client) error {
	res, err := client.Get("http://quic/endless")
	if err != nil {
		return err
	}
	_, err = io.ReadFull(res.Body, make([]byte, 1000))
	return errors.Join(err, res.Body.Close())
}

// TestHTTP runs net/http over the streams of several connections. A handler knows
// who its client is, and when the client has left. Server.Shutdown waits for a
// request. No stream is left.
func TestHTTP(t *testing.T) {
	for _, keepAlive := range []bool{true, false} {
		t.Run(fmt.Sprint("keep-alive ", keepAlive), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				const conns, workers, requests = 4, 5, 50 // 2,000 requests, with and without keep-alive
				n := network(t, conns)
				entered, finish := make(chan struct{}), make(chan struct{})
				srv := &http.Server{ConnContext: caller, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					for r.URL.Path == "/endless" {
						if _, err := w.Write(make([]byte, 1000)); err != nil {
							return
						}
					}
					body, err := io.ReadAll(r.Body)
					if err != nil {
						return // so the answer is not what the test expects
					}
					if len(body) == 0 {
						close(entered)
						<-finish
					}
					fmt.Fprintf(w, "%s sent %d bytes to %s", r.Context().Value(callerKey{}), len(body), r.URL.Path)
				})}
				done := make(chan error)
				go func() { done <- srv.Serve(n.ln.NetListener()) }()

				var clients []*http.Client
				errs := make([]error, conns*workers)
				var wg sync.WaitGroup
				for i, c := range n.clients {
					transport := &http.Transport{DialContext: c.DialContext, MaxIdleConnsPerHost: workers, DisableKeepAlives: !keepAlive}
					client := &http.Client{Transport: transport}
					clients = append(clients, client)
					for j := range workers {
						wg.Go(func() {
							for k := range requests {
								err := post(client, fmt.Sprint("client ", i), 1+37*k)
								errs[i*workers+j] = errors.Join(errs[i*workers+j], err)
							}
							errs[i*workers+j] = errors.Join(errs[i*workers+j], leave(client))
						})
					}
				}
				wg.Wait()
				for _, err := range errs {
					require.NoError(t, err)
				}
				n.meet(t)
				settled()
				for i, c := range n.clients {
					if out := c.Stats().Outgoing; keepAlive {
						require.Less(t, out.Opened, int64(10*workers), "keep-alive, on client %d", i)
					} else {
						require.EqualValues(t, workers*(requests+1), out.Opened, "a stream for each request of client %d", i)
						require.Zero(t, out.Open, "streams on client %d", i)
					}
				}

				last := make(chan error, 1)
				go func() { last <- post(clients[1], "client 1", 0) }()
				<-entered
				shut := make(chan error, 1)
				go func() { shut <- srv.Shutdown(t.Context()) }()
				settled()
				require.Equal(t, http.ErrServerClosed, <-done)
				require.Empty(t, shut, "Shutdown should wait for the request")
				close(finish)
				require.NoError(t, <-last, "the request that Shutdown waits for")
				require.NoError(t, <-shut)
				settled()
				n.requireNothingLeft(t)
				require.NoError(t, n.guard.Shutdown(t.Context()))
			})
		})
	}
}
