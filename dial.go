package quiclife

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/quic-go/quic-go"
)

// DialAddr dials a connection under [DefaultGuard]. See [Guard.DialAddr].
func DialAddr(ctx context.Context, addr string, tlsConf *tls.Config, conf *Config) (*Conn, error) {
	return DefaultGuard.DialAddr(ctx, addr, tlsConf, conf)
}

// DialAddrEarly is [DialAddr] with 0-RTT, if the server allows it.
func DialAddrEarly(ctx context.Context, addr string, tlsConf *tls.Config, conf *Config) (*Conn, error) {
	return DefaultGuard.DialAddrEarly(ctx, addr, tlsConf, conf)
}

// Dial dials a connection over conn, under [DefaultGuard]. It blocks as
// [Guard.DialAddr] does. conn can then be used for nothing else, and quiclife
// does not close it. To use another Guard, or to use conn for more than this,
// use a [Transport].
func Dial(ctx context.Context, conn net.PacketConn, addr net.Addr, tlsConf *tls.Config, conf *Config) (*Conn, error) {
	return DefaultGuard.dial(conf, func() (*quic.Conn, error) { return quic.Dial(ctx, conn, addr, tlsConf, conf) })
}

// DialEarly is [Dial] with 0-RTT, if the server allows it.
func DialEarly(ctx context.Context, conn net.PacketConn, addr net.Addr, tlsConf *tls.Config, conf *Config) (*Conn, error) {
	return DefaultGuard.dial(conf, func() (*quic.Conn, error) { return quic.DialEarly(ctx, conn, addr, tlsConf, conf) })
}

// ListenAddr listens on addr under [DefaultGuard]. See [Guard.ListenAddr].
func ListenAddr(addr string, tlsConf *tls.Config, conf *Config) (*Listener, error) {
	return DefaultGuard.ListenAddr(addr, tlsConf, conf)
}

// ListenAddrEarly is [ListenAddr] for connections whose handshake has not
// completed.
func ListenAddrEarly(addr string, tlsConf *tls.Config, conf *Config) (*EarlyListener, error) {
	return DefaultGuard.ListenAddrEarly(addr, tlsConf, conf)
}

// Listen listens on conn, under [DefaultGuard]. It works as [Guard.ListenAddr]
// does, but quiclife does not close conn. conn can be used for nothing else. To
// use another Guard, or to use conn for more than this, use a [Transport].
func Listen(conn net.PacketConn, tlsConf *tls.Config, conf *Config) (*Listener, error) {
	return DefaultGuard.listen(own(conn), tlsConf, conf)
}

// ListenEarly is [Listen] for connections whose handshake has not completed.
func ListenEarly(conn net.PacketConn, tlsConf *tls.Config, conf *Config) (*EarlyListener, error) {
	return DefaultGuard.listenEarly(own(conn), tlsConf, conf)
}

// DialAddr resolves addr, makes a UDP socket, and dials. It blocks until the
// handshake has completed or failed, or ctx is done. The socket is closed
// when the connection has ended. conf may be nil.
func (g *Guard) DialAddr(ctx context.Context, addr string, tlsConf *tls.Config, conf *Config) (*Conn, error) {
	addr, tlsConf, err := resolve(ctx, addr, tlsConf)
	if err != nil {
		return nil, err
	}
	return g.dial(conf, func() (*quic.Conn, error) { return quic.DialAddr(ctx, addr, tlsConf, conf) })
}

// DialAddrEarly is DialAddr with 0-RTT, if the server allows it.
func (g *Guard) DialAddrEarly(ctx context.Context, addr string, tlsConf *tls.Config, conf *Config) (*Conn, error) {
	addr, tlsConf, err := resolve(ctx, addr, tlsConf)
	if err != nil {
		return nil, err
	}
	return g.dial(conf, func() (*quic.Conn, error) { return quic.DialAddrEarly(ctx, addr, tlsConf, conf) })
}

// resolve resolves addr under ctx, which quic-go's DialAddr ignores when it
// resolves. It also checks for the mistakes on which quic-go's DialAddr fails
// but leaves its socket open.
func resolve(ctx context.Context, addr string, tlsConf *tls.Config) (string, *tls.Config, error) {
	if tlsConf == nil {
		return "", nil, errors.New("quiclife: tls.Config not set")
	}
	udpAddr, err := resolveUDPAddr(ctx, addr)
	if _, dns := errors.AsType[*net.DNSError](err); dns && ctx.Err() != nil {
		return "", nil, context.Cause(ctx) // the error that a dial returns when ctx is done later
	} else if err != nil {
		return "", nil, err
	}
	if tlsConf.ServerName == "" { // the host name of addr, as in quic-go, not the resolved address
		tlsConf = tlsConf.Clone()
		tlsConf.ServerName, _, _ = net.SplitHostPort(addr)
	}
	return udpAddr.String(), tlsConf, nil
}

// resolveUDPAddr is [net.ResolveUDPAddr] with a context.
func resolveUDPAddr(ctx context.Context, addr string) (*net.UDPAddr, error) {
	if addr == "" {
		return &net.UDPAddr{}, nil
	}
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", service)
	if err != nil {
		return nil, err
	}
	if host == "" {
		return &net.UDPAddr{Port: port}, nil
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, err
	}
	want4 := !strings.Contains(addr, "[")
	ip := ips[max(0, slices.IndexFunc(ips, func(ip net.IPAddr) bool { return (ip.IP.To4() != nil) == want4 }))]
	return &net.UDPAddr{IP: ip.IP, Port: port, Zone: ip.Zone}, nil
}

// dial makes a connection by calling f, if the limits of the group allow it.
func (g *Guard) dial(conf *quic.Config, f func() (*quic.Conn, error)) (*Conn, error) {
	if err := g.admit(nil); err != nil {
		return nil, err
	}
	terms := termsOf(conf)
	start := time.Now()
	raw, err := f()
	if err != nil {
		g.connGone()
		return nil, err
	}
	c := g.wrap(raw, terms, nil, nil)
	c.beganAt(start)
	return c, nil
}

// ListenAddr makes a UDP socket on addr and listens on it. Once the listener
// has been closed and its connections have ended, the socket is closed and no
// goroutine is left, even if a connection timed out. tlsConf must have a
// certificate and NextProtos. conf may be nil.
func (g *Guard) ListenAddr(addr string, tlsConf *tls.Config, conf *Config) (*Listener, error) {
	o, err := ownAddr(addr)
	if err != nil {
		return nil, err
	}
	return g.listen(o, tlsConf, conf)
}

// ListenAddrEarly is ListenAddr for connections whose handshake has not
// completed.
func (g *Guard) ListenAddrEarly(addr string, tlsConf *tls.Config, conf *Config) (*EarlyListener, error) {
	o, err := ownAddr(addr)
	if err != nil {
		return nil, err
	}
	return g.listenEarly(o, tlsConf, conf)
}
