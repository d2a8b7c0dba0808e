package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife"
)

type tlsConfigs struct{ server, client *tls.Config }

// certificate makes a self-signed certificate, and a client that trusts it.
func certificate() (c tlsConfigs, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(1000 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return c, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return c, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	protos := []string{"soak"}
	c.server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: protos}
	c.client = &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: protos}
	return c, nil
}

// held looks into quic-go, which has no API for it, and counts the streams
// that it keeps: the entries of its four stream maps.
func held(c *quic.Conn) int {
	streams := reflect.ValueOf(c).Elem().FieldByName("streamsMap").Elem()
	defer lock(streams, "mutex").Unlock()
	n := 0
	for _, name := range []string{"outgoingBidiStreams", "outgoingUniStreams", "incomingBidiStreams", "incomingUniStreams"} {
		m := streams.FieldByName(name).Elem()
		mutex := lock(m, "mutex")
		n += m.FieldByName("streams").Len()
		mutex.Unlock()
	}
	return n
}

// members looks into quiclife for the connections of a group: those of
// Listener.Serve are shown to nobody.
func members(g *quiclife.Guard) (conns []*quiclife.Conn) {
	v := reflect.ValueOf(g).Elem()
	defer lock(v, "mu").Unlock()
	f := v.FieldByName("conns")
	for c := range *(*map[*quiclife.Conn]struct{})(unsafe.Pointer(f.UnsafeAddr())) {
		conns = append(conns, c)
	}
	return conns
}

func groupCounts(g *quiclife.Guard) (conns, streams int64) {
	v := reflect.ValueOf(g).Elem()
	defer lock(v, "mu").Unlock()
	return v.FieldByName("counted").Int(), (*atomic.Int64)(unsafe.Pointer(v.FieldByName("streams").UnsafeAddr())).Load()
}

// lock locks a mutex of a struct.
func lock(v reflect.Value, name string) sync.Locker {
	f := v.FieldByName(name)
	mutex := reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Interface().(sync.Locker)
	mutex.Lock()
	return mutex
}

// heap returns the bytes of live heap. What cleanups and pools let go in one
// collection, the next one frees.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
