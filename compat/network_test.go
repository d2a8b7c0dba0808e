package compat

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// settled returns when nothing is under way any more.
func settled() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// onNetwork is a listener and the clients that have dialed it, in fake time. The
// certificate of each client has its name: "client 0" and so on.
type onNetwork struct {
	guard            *quiclife.Guard // of the server
	ln               *quiclife.Listener
	clients, servers []*quiclife.Conn // meet sets servers
}

func network(t *testing.T, clients int) *onNetwork {
	t.Helper()
	serverTLS, clientTLS := quictest.TLS()
	serverTLS = serverTLS.Clone()
	serverTLS.ClientAuth = tls.RequireAnyClientCert
	// If all round trips took the same time, Shutdown could not notice an ACK.
	jitter := func() time.Duration { return mathrand.N(time.Millisecond) }
	sockets, socket, addr := quictest.Net{Jitter: jitter}.Star(t, clients)
	logger := slog.New(slog.DiscardHandler)
	n := &onNetwork{guard: &quiclife.Guard{Logger: logger}}
	server := &quiclife.Transport{Conn: socket, Guard: n.guard}
	t.Cleanup(func() { server.Close() })
	var err error
	n.ln, err = server.Listen(serverTLS, &quic.Config{MaxIncomingUniStreams: -1})
	require.NoError(t, err)
	for i, socket := range sockets {
		conf := clientTLS.Clone()
		conf.Certificates = []tls.Certificate{named(t, fmt.Sprint("client ", i))}
		client := &quiclife.Transport{Conn: socket, Guard: &quiclife.Guard{Logger: logger}}
		t.Cleanup(func() { client.Close() })
		c, err := client.Dial(t.Context(), addr, conf, nil)
		require.NoError(t, err)
		n.clients = append(n.clients, c)
	}
	return n
}

// named returns a certificate for name.
func named(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// listenings are the two ways to get streams as the net.Conns of a listener.
var listenings = map[string]func(*testing.T, *onNetwork) []net.Listener{
	"Listener.NetListener": func(_ *testing.T, n *onNetwork) []net.Listener {
		return []net.Listener{n.ln.NetListener()}
	},
	"Conn.NetListener": func(t *testing.T, n *onNetwork) (lns []net.Listener) {
		for range n.clients {
			c, err := n.ln.Accept(t.Context())
			require.NoError(t, err)
			lns = append(lns, c.NetListener())
		}
		return lns
	},
}

// meet remembers the server's ends of the connections. A NetListener closes them
// when it is closed.
func (n *onNetwork) meet(t *testing.T) {
	t.Helper()
	n.servers = slices.Collect(n.guard.Conns())
	require.Len(t, n.servers, len(n.clients))
}

// requireNothingLeft requires that no end has a stream, and that quic-go holds
// none, whether or not the connection is closed.
func (n *onNetwork) requireNothingLeft(t *testing.T) {
	t.Helper()
	require.Len(t, n.servers, len(n.clients))
	for side, conns := range map[string][]*quiclife.Conn{"client": n.clients, "server": n.servers} {
		for i, c := range conns {
			require.Zero(t, c.Stats().Open(), "%s %d: open streams", side, i)
			require.Zero(t, quictest.Held(c.Unwrap()), "%s %d: streams that quic-go holds", side, i)
		}
	}
}
