// Package compat tests quiclife with packages that the root module does not
// require, or that serve a net.Listener: x/net's tests of a net.Conn, gRPC and
// net/http over streams, and HTTP/3 over Unwrap.
package compat

import (
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestNetConn: Stream.NetConn passes x/net's tests of a net.Conn.
func TestNetConn(t *testing.T) {
	rc, rs := quictest.Loopback(t, nil, nil)
	client, server := quiclife.Wrap(rc, nil), quiclife.Wrap(rs, nil)
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		s1, err := client.OpenStreamSync(t.Context())
		if err != nil {
			return nil, nil, nil, err
		}
		// The peer sees a stream only when something is sent on it.
		if _, err := s1.Write([]byte("x")); err != nil {
			return nil, nil, nil, err
		}
		s2, err := server.AcceptStream(t.Context())
		if err != nil {
			return nil, nil, nil, err
		}
		if _, err := io.ReadFull(s2, make([]byte, 1)); err != nil {
			return nil, nil, nil, err
		}
		c1, c2 = s1.NetConn(), s2.NetConn()
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
	require.Zero(t, client.Stats().Open())
	require.Zero(t, server.Stats().Open())
}

// TestHTTP3 gives a connection to http3, which works on quic-go's types only.
func TestHTTP3(t *testing.T) {
	rc, rs := quictest.Loopback(t, nil, nil)
	client, server := quiclife.Wrap(rc, nil), quiclife.Wrap(rs, nil)
	h3 := &http3.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })}
	done := make(chan error)
	go func() { done <- h3.ServeQUICConn(server.Unwrap()) }()
	r, err := http.NewRequest("GET", "https://localhost/", nil)
	require.NoError(t, err)
	transport := &http3.Transport{}
	res, err := transport.NewClientConn(client.Unwrap()).RoundTrip(r)
	require.NoError(t, err)
	require.Equal(t, 200, res.StatusCode)
	res.Body.Close()
	require.Zero(t, server.Stats().Incoming.Opened, "not ours")
	client.CloseWithError(0, "")
	<-done
	transport.Close()
}
