// Package quic has what the tests need of the names that quic-go had when its
// streams and connections were interfaces.
package quic

import (
	"context"
	"io"
)

type (
	StreamErrorCode      uint64
	ApplicationErrorCode uint64
)

type Stream interface {
	ReceiveStream
	SendStream
}

type ReceiveStream interface {
	io.Reader
	CancelRead(StreamErrorCode)
}

type SendStream interface {
	io.Writer
	io.Closer
	CancelWrite(StreamErrorCode)
	Context() context.Context
}

type Connection interface {
	OpenStream() (Stream, error)
	OpenStreamSync(context.Context) (Stream, error)
	OpenUniStream() (SendStream, error)
	AcceptStream(context.Context) (Stream, error)
	AcceptUniStream(context.Context) (ReceiveStream, error)
	CloseWithError(ApplicationErrorCode, string) error
}

type EarlyConnection interface{ Connection }
