package quiclife

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// An ownedTransport belongs to a listener that was made without a Transport.
// quic-go never closes the transport that it makes itself for such a listener
// if the listener is closed and its last connection then ends without a
// CONNECTION_CLOSE, by an idle timeout for example. So we make the transport,
// and close it.
type ownedTransport struct {
	tr     *quic.Transport
	socket net.PacketConn // closed with the transport, or nil
	gone   chan struct{}  // closed when the transport was closed
	leave  func()         // called before that, or nil

	mu             sync.Mutex // guards the fields below
	conns          int        // connections, including handshakes in progress
	noMore, closed bool
	lastEnd        time.Time // when a connection last ended
	lingerUntil    time.Time // see linger
}

// own makes an ownedTransport for conn.
func own(conn net.PacketConn) *ownedTransport {
	o := &ownedTransport{gone: make(chan struct{})}
	o.tr = &quic.Transport{Conn: conn, Tracer: endWatcher{ended: func() { go o.listenerClosed() }}}
	return o
}

// connContext is quic-go's ConnContext. It counts the connection until ctx is
// done.
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

// listenerClosed is called when no new connection can come: the listener was
// closed, or could not be made, or the socket failed.
func (o *ownedTransport) listenerClosed() { o.update(func() { o.noMore = true }) }

// minLinger is how long the transport outlives its last connection at least.
// linger is called at about the time when the connection ends, and must not
// come too late.
const minLinger = 20 * time.Millisecond

// linger keeps the transport open for a time after this side has closed a
// connection. If the CONNECTION_CLOSE was lost, quic-go repeats it when the
// peer sends again (RFC 9000, 10.2).
func (o *ownedTransport) linger(period time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if until := time.Now().Add(period); until.After(o.lingerUntil) {
		o.lingerUntil = until
	}
}

// update changes the state. If there can be no connection any more, it closes
// the transport, after lingering if necessary.
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
