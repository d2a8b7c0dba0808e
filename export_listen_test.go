package quiclife

import (
	"crypto/tls"
	"net"

	"github.com/quic-go/quic-go"
)

// ListenOn is Listen under g, for sockets in fake time.
func ListenOn(g *Guard, conn net.PacketConn, tlsConf *tls.Config, conf *quic.Config) (*Listener, error) {
	return g.listen(own(conn), tlsConf, conf)
}
