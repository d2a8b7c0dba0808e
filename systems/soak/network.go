package main

import (
	"math/rand/v2"
	"net"
	"sync"
)

// A badSocket is a UDP socket that loses and swaps some of the packets it sends.
// Once it has vanished it loses all of them.
type badSocket struct {
	net.PacketConn // a *net.UDPConn; quic-go must not see its other methods

	mu       sync.Mutex // guards the fields below
	random   *rand.Rand
	vanished bool
	late     []byte // to be sent after the next packet
	lateTo   net.Addr
}

func newBadSocket(random *rand.Rand) (*badSocket, error) {
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	return &badSocket{PacketConn: udp, random: random}, nil
}

func (s *badSocket) WriteTo(p []byte, to net.Addr) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	chance := s.random.IntN(100)
	switch {
	case s.vanished || chance < 2:
		return len(p), nil
	case chance < 4 && s.late == nil:
		s.late, s.lateTo = append([]byte(nil), p...), to
		return len(p), nil
	}
	n, err := s.PacketConn.WriteTo(p, to)
	if s.late != nil {
		s.PacketConn.WriteTo(s.late, s.lateTo) // an error is just another lost packet
		s.late = nil
	}
	return n, err
}

func (s *badSocket) vanish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.vanished = true
}

// quic-go looks for these two methods.
func (s *badSocket) SetReadBuffer(n int) error  { return s.PacketConn.(*net.UDPConn).SetReadBuffer(n) }
func (s *badSocket) SetWriteBuffer(n int) error { return s.PacketConn.(*net.UDPConn).SetWriteBuffer(n) }
