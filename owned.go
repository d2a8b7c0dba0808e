package quiclife

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// An ownedTransport belongs to a listener that was made without a Transport.
// quic-go's own is never closed if the last connection of a closed listener
// ends without a word (an idle timeout, say).
type ownedTransport struct {
	tr     *quic.Transport
	socket net.PacketConn // to be closed too, or nil
	gone   chan struct{}  // closed when nothing is left
	leave  func()         // called then, or nil

	mu             sync.Mutex // guards the fields below
	conns          int        // connections, and handshakes under way
	noMore, closed bool
	lastEnd        time.Time // of a connection
	lingerUntil    time.Time // see linger
}

// own makes a transport that counts its connections.
func own(conn net.PacketConn) *ownedTransport {
	o := &ownedTransport{gone: make(chan struct{})}
	o.tr = &quic.Transport{Conn: conn, Tracer: endWatcher{ended: func() { go o.listenerClosed() }}}
	return o
}

// connContext is called for each connection; its context ends with it.
func (o *ownedTransport) connContext(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	o.mu.Lock()
	o.conns++
	o.mu.Unlock()
	context.AfterFunc(ctx, func() {
		o.update(func() {
			o.conns--
			o.lastEnd = time.Now()
		})
	})
	return ctx, nil
}

// listenerClosed is called when no connection can be added any more: the
// listener was closed, or could not be made, or the socket failed.
func (o *ownedTransport) listenerClosed() { o.update(func() { o.noMore = true }) }

// minLinger is how long the transport outlives its last connection at least,
// so that linger, which is called at about the same time, has its say.
const minLinger = 20 * time.Millisecond

// linger keeps the transport for a time after a connection was closed by this
// side: should its CONNECTION_CLOSE be lost, quic-go repeats it when the peer
// sends again (RFC 9000, 10.2).
func (o *ownedTransport) linger(period time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if until := time.Now().Add(period); until.After(o.lingerUntil) {
		o.lingerUntil = until
	}
}

// update changes the state, and closes everything if that was the last of it.
func (o *ownedTransport) update(change func()) {
	o.mu.Lock()
	change()
	last := o.noMore && o.conns == 0 && !o.closed
	o.closed = o.closed || last
	recent := time.Since(o.lastEnd) < minLinger || time.Now().Before(o.lingerUntil)
	o.mu.Unlock()
	switch {
	case last && recent:
		time.AfterFunc(minLinger, o.closeAfterLinger)
	case last:
		o.close()
	}
}

func (o *ownedTransport) closeAfterLinger() {
	o.mu.Lock()
	wait := time.Until(o.lingerUntil)
	o.mu.Unlock()
	if wait > 0 {
		time.AfterFunc(wait, o.closeAfterLinger)
	} else {
		o.close()
	}
}

func (o *ownedTransport) close() {
	o.tr.Close()
	if o.socket != nil {
		o.socket.Close()
	}
	if o.leave != nil {
		o.leave()
	}
	close(o.gone)
}

func ownAddr(addr string) (*ownedTransport, error) {
	udpAddr, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenUDP("udp", udpAddr)
	if err != nil {
		return nil, err
	}
	o := own(socket)
	o.socket = socket
	return o, nil
}
