// Package rig has what tests and example programs need to run QUIC and to check
// the results: certificates, the number of streams that quic-go holds, the size
// of the heap.
package rig

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
	"runtime/metrics"
	"sync"
	"time"
	"unsafe"

	"github.com/quic-go/quic-go"
)

// TLS returns TLS configurations for a server and for a client that trusts it.
// The certificate is valid in the year 2000, when synctest's fake time begins.
var TLS = sync.OnceValues(func() (server, client *tls.Config) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	server = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}},
		NextProtos:   []string{"rig"},
	}
	client = &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: []string{"rig"}}
	return server, client
})

// Held returns how many streams quic-go holds for conn: the number of entries
// in its four stream maps.
func Held(conn *quic.Conn) int {
	streams := reflect.ValueOf(conn).Elem().FieldByName("streamsMap").Elem()
	defer lock(streams.FieldByName("mutex")).Unlock()
	held := 0
	for _, name := range []string{"outgoingBidiStreams", "outgoingUniStreams", "incomingBidiStreams", "incomingUniStreams"} {
		m := streams.FieldByName(name).Elem()
		mu := lock(m.FieldByName("mutex"))
		held += m.FieldByName("streams").Len()
		mu.Unlock()
	}
	return held
}

func lock(mutex reflect.Value) sync.Locker {
	mu := reflect.NewAt(mutex.Type(), unsafe.Pointer(mutex.UnsafeAddr())).Interface().(sync.Locker)
	mu.Lock()
	return mu
}

// Heap returns the bytes of live heap after two garbage collections. The second
// frees what cleanups and pools released after the first.
func Heap() uint64 {
	runtime.GC()
	runtime.GC()
	return LiveHeap()
}

// LiveHeap returns the bytes of live heap, as measured by the last garbage
// collection.
func LiveHeap() uint64 {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	return live[0].Value.Uint64()
}
