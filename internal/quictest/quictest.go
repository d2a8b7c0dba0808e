// Package quictest makes pairs of plain quic-go connections for tests, in fake
// time or over loopback.
package quictest

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quiclife/quiclife/internal/rig"
)

// These come from package rig.
var (
	TLS       = rig.TLS
	Held      = rig.Held
	HeapAlloc = rig.Heap
	CPU       = rig.CPU
)

// A Net is a simulated network between clients and a server, in fake time. The
// zero value has a latency of 5 ms each way and loses no packets.
type Net struct {
	Latency time.Duration
	// Drop, if not nil, is called for each packet. It reports whether the
	// network loses it.
	Drop func(simnet.Packet) bool
	// Jitter, if not nil, is called for each packet. It returns a delay to add
	// to Latency.
	Jitter func() time.Duration
}

type lossyRouter struct {
	simnet.PerfectRouter
	drop func(simnet.Packet) bool
}

func (r *lossyRouter) SendPacket(p simnet.Packet) error {
	if r.drop != nil && r.drop(p) {
		return nil
	}
	return r.PerfectRouter.SendPacket(p)
}

// Endpoints returns packet connections for a client and a server on n, and the
// server's address. It must be called inside a synctest bubble.
func (n Net) Endpoints(t testing.TB) (client, server net.PacketConn, addr *net.UDPAddr) {
	clients, server, addr := n.Star(t, 1)
	return clients[0], server, addr
}

// Star is [Net.Endpoints] for count clients. Their ports start at 1000.
func (n Net) Star(t testing.TB, count int) (clients []net.PacketConn, server net.PacketConn, addr *net.UDPAddr) {
	if n.Latency == 0 {
		n.Latency = 5 * time.Millisecond
	}
	network := &simnet.Simnet{Router: &lossyRouter{drop: n.Drop}}
	link := simnet.NodeBiDiLinkSettings{Latency: n.Latency}
	if n.Jitter != nil {
		link.LatencyFunc = func(simnet.Packet) time.Duration { return n.Latency + n.Jitter() }
	}
	addr = &net.UDPAddr{IP: net.IPv4(1, 0, 0, 2), Port: 443}
	for i := range count {
		clients = append(clients, network.NewEndpoint(&net.UDPAddr{IP: net.IPv4(1, 0, 0, 1), Port: 1000 + i}, link))
	}
	server = network.NewEndpoint(addr, link)
	require.NoError(t, network.Start())
	t.Cleanup(func() {
		for _, c := range clients {
			c.Close()
		}
		server.Close()
		network.Close()
	})
	return clients, server, addr
}

// Pair returns the two ends of a connection on n. The connection is closed at
// the end of the test. Pair must be called inside a synctest bubble.
func (n Net) Pair(t testing.TB, clientConf, serverConf *quic.Config) (client, server *quic.Conn) {
	c, s, addr := n.Endpoints(t)
	client, server, end := dial(t, c, s, addr, clientConf, serverConf)
	t.Cleanup(end)
	return client, server
}

// Loopback is [Net.Pair] over UDP on the loopback interface.
func Loopback(t testing.TB, clientConf, serverConf *quic.Config) (client, server *quic.Conn) {
	client, server, closeAll := Dial(t, clientConf, serverConf)
	t.Cleanup(closeAll)
	return client, server
}

// Dial is [Loopback] for a caller that closes the connection itself. closeAll
// closes the connection, its transports and its sockets.
func Dial(t testing.TB, clientConf, serverConf *quic.Config) (client, server *quic.Conn, closeAll func()) {
	socket := func() *net.UDPConn {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(t, err)
		return c
	}
	c, s := socket(), socket()
	client, server, end := dial(t, c, s, s.LocalAddr(), clientConf, serverConf)
	return client, server, func() {
		end()
		c.Close()
		s.Close()
	}
}

func dial(t testing.TB, c, s net.PacketConn, addr net.Addr, clientConf, serverConf *quic.Config) (client, server *quic.Conn, end func()) {
	serverTLS, clientTLS := TLS()
	clientTransport, serverTransport := &quic.Transport{Conn: c}, &quic.Transport{Conn: s}
	ln, err := serverTransport.Listen(serverTLS, serverConf)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client, err = clientTransport.Dial(ctx, addr, clientTLS, clientConf)
	require.NoError(t, err)
	server, err = ln.Accept(ctx)
	require.NoError(t, err)
	return client, server, func() {
		client.CloseWithError(0, "")
		server.CloseWithError(0, "")
		ln.Close()
		clientTransport.Close()
		serverTransport.Close()
	}
}

// RequireNoGoroutines fails t if a goroutine is left that options do not
// ignore. It waits longer than goleak's own 0.4 s: the transport of a listener
// stays open for three probe timeouts, which may take longer, especially under
// load.
func RequireNoGoroutines(t testing.TB, options ...goleak.Option) {
	t.Helper()
	var err error
	for range 20 {
		if err = goleak.Find(options...); err == nil {
			return
		}
	}
	require.NoError(t, err)
}
