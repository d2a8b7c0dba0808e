package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/quiclife/quiclife/internal/rig"
)

// An http2Link is net/http's HTTP/2 over TLS. A cycle is a POST whose answer is
// its body. It gives no access to streams.
type http2Link struct {
	client *http.Client
	server *http.Server
	url    string
}

func connectHTTP2() (connection, error) {
	serverTLS, clientTLS := rig.TLS()
	serverTLS, clientTLS = serverTLS.Clone(), clientTLS.Clone()
	serverTLS.NextProtos, clientTLS.NextProtos = nil, nil // net/http sets them
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &http2Link{
		client: &http.Client{Transport: &http.Transport{TLSClientConfig: clientTLS, ForceAttemptHTTP2: true}},
		server: &http.Server{TLSConfig: serverTLS, Handler: http.HandlerFunc(echo)},
		url:    "https://" + ln.Addr().String(),
	}
	go l.server.ServeTLS(ln, "", "")
	// The first request makes the connection, which later requests share.
	if err := l.cycle(make([]byte, bufferSize)); err != nil {
		l.end()
		return nil, err
	}
	return l, nil
}

func echo(w http.ResponseWriter, r *http.Request) {
	buf := make([]byte, bufferSize)
	n, err := io.ReadFull(r.Body, buf)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	w.Write(buf[:n])
}

func (l *http2Link) serve(int) {}

func (l *http2Link) cycle(buf []byte) error {
	answer, err := l.client.Post(l.url, "application/octet-stream", bytes.NewReader(buf[:requestSize]))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	n, err := io.ReadFull(answer.Body, buf)
	if !errors.Is(err, io.ErrUnexpectedEOF) || n != requestSize || answer.ProtoMajor != 2 {
		return fmt.Errorf("the answer over %s has %d bytes, not %d, and ended with: %w", answer.Proto, n, requestSize, err)
	}
	return nil
}

func (l *http2Link) end() {
	l.server.Close()
	l.client.CloseIdleConnections()
}
