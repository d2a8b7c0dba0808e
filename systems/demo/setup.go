package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"reflect"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"github.com/quic-go/quic-go"
)

// connect makes the two ends of a connection over loopback. listen and dial are
// all that differs between quic-go and quiclife.
func connect[L listener[C], C closer](
	listen func(string, *tls.Config, *quic.Config) (L, error),
	dial func(context.Context, string, *tls.Config, *quic.Config) (C, error),
) (client, server C, end func(), err error) {
	serverTLS, clientTLS, err := certificate()
	if err != nil {
		return client, server, nil, err
	}
	ln, err := listen("127.0.0.1:0", serverTLS, &quic.Config{MaxIncomingStreams: maxStreams})
	if err != nil {
		return client, server, nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, err = dial(ctx, ln.Addr().String(), clientTLS, nil)
	if err != nil {
		return client, server, nil, errors.Join(err, ln.Close())
	}
	server, err = ln.Accept(ctx)
	if err != nil {
		return client, server, nil, errors.Join(err, client.CloseWithError(0, ""), ln.Close())
	}
	return client, server, func() {
		client.CloseWithError(0, "")
		server.CloseWithError(0, "")
		ln.Close()
	}, nil
}

type listener[C any] interface {
	Accept(context.Context) (C, error)
	Addr() net.Addr
	Close() error
}

type closer interface {
	CloseWithError(quic.ApplicationErrorCode, string) error
}

// certificate makes a self-signed certificate for the server, and a client
// configuration that trusts it.
func certificate() (server, client *tls.Config, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	protos := []string{"demo"}
	server = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		NextProtos:   protos,
	}
	return server, &tls.Config{RootCAs: roots, NextProtos: protos}, nil
}

// held counts the streams that quic-go keeps: the entries of its four stream
// maps. quic-go has no API for this, so held reads its private fields.
func held(c *quic.Conn) int {
	streams := reflect.ValueOf(c).Elem().FieldByName("streamsMap").Elem()
	defer lock(streams).Unlock()
	n := 0
	for _, name := range []string{"outgoingBidiStreams", "outgoingUniStreams", "incomingBidiStreams", "incomingUniStreams"} {
		m := streams.FieldByName(name).Elem()
		mutex := lock(m)
		n += m.FieldByName("streams").Len()
		mutex.Unlock()
	}
	return n
}

// lock locks the struct's field named mutex, a sync.Mutex or a sync.RWMutex.
func lock(v reflect.Value) sync.Locker {
	f := v.FieldByName("mutex")
	mutex := reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Interface().(sync.Locker)
	mutex.Lock()
	return mutex
}

// heap returns the bytes of live heap. It collects twice, because the second
// collection frees what cleanups and pools release in the first.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
