package leaktest

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/rig"
)

// Pair returns the two ends of a connection over UDP on the loopback interface.
// Both are under one Guard, made as by [New]. At the end of the test, leaks
// fail the test. After that, the connection, its transports and its sockets are
// closed. The configurations may be nil. Pair does not work in synctest
// bubbles; use [Simulated] there.
func Pair(t testing.TB, clientConf, serverConf *quiclife.Config, opts ...Option) (client, server *quiclife.Conn) {
	t.Helper()
	socket := func() *net.UDPConn {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal("leaktest:", err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	c, s := socket(), socket()
	return connect(t, c, s, clientConf, serverConf, opts)
}

// Simulated is [Pair] over a simulated network in fake time, with a latency of
// 5 ms each way. It must be called inside a testing/synctest bubble.
func Simulated(t testing.TB, clientConf, serverConf *quiclife.Config, opts ...Option) (client, server *quiclife.Conn) {
	t.Helper()
	if !inBubble() {
		t.Fatal("leaktest: Simulated must be called inside a synctest bubble")
	}
	network := &simnet.Simnet{Router: &simnet.PerfectRouter{}}
	link := simnet.NodeBiDiLinkSettings{Latency: 5 * time.Millisecond}
	c := network.NewEndpoint(&net.UDPAddr{IP: net.IPv4(1, 0, 0, 1), Port: 1000}, link)
	s := network.NewEndpoint(&net.UDPAddr{IP: net.IPv4(1, 0, 0, 2), Port: 443}, link)
	if err := network.Start(); err != nil {
		t.Fatal("leaktest:", err)
	}
	t.Cleanup(func() {
		c.Close()
		s.Close()
		network.Close()
	})
	return connect(t, c, s, clientConf, serverConf, opts)
}

// connect makes a connection between two sockets. It registers the check as the
// last cleanup: cleanups run in reverse order, so the check runs first.
func connect(t testing.TB, c, s net.PacketConn, clientConf, serverConf *quiclife.Config, opts []Option) (client, server *quiclife.Conn) {
	t.Helper()
	g, check := newGuard(t, opts)
	check.allowConns = true
	serverTLS, clientTLS := rig.TLS()
	clientTransport, serverTransport := &quiclife.Transport{Conn: c, Guard: g}, &quiclife.Transport{Conn: s, Guard: g}
	t.Cleanup(func() { // also closes the connection
		clientTransport.Close()
		serverTransport.Close()
	})
	ln, err := serverTransport.Listen(serverTLS, serverConf)
	if err != nil {
		t.Fatal("leaktest:", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client, err = clientTransport.Dial(ctx, s.LocalAddr(), clientTLS, clientConf)
	if err != nil {
		t.Fatal("leaktest:", err)
	}
	server, err = ln.Accept(ctx)
	if err != nil {
		t.Fatal("leaktest:", err)
	}
	t.Cleanup(check.run)
	return client, server
}
