// Package quic has what the tests need of quic-go's names.
package quic

import (
	"context"
	"time"
)

type (
	StreamID             int64
	StreamErrorCode      uint64
	ApplicationErrorCode uint64
)

type StreamLimitReachedError struct{}

func (*StreamLimitReachedError) Error() string { return "" }

type ApplicationError struct{}

func (*ApplicationError) Error() string { return "" }

var Err0RTTRejected error

type Conn struct{ _ int }

func DialAddr(ctx context.Context, addr string) (*Conn, error) { return nil, nil }

func (c *Conn) OpenStream() (*Stream, error)                                { return nil, nil }
func (c *Conn) OpenStreamSync(ctx context.Context) (*Stream, error)         { return nil, nil }
func (c *Conn) OpenUniStream() (*SendStream, error)                         { return nil, nil }
func (c *Conn) OpenUniStreamSync(ctx context.Context) (*SendStream, error)  { return nil, nil }
func (c *Conn) AcceptStream(ctx context.Context) (*Stream, error)           { return nil, nil }
func (c *Conn) AcceptUniStream(ctx context.Context) (*ReceiveStream, error) { return nil, nil }
func (c *Conn) CloseWithError(code ApplicationErrorCode, desc string) error { return nil }
func (c *Conn) Context() context.Context                                    { return nil }

type Stream struct{ _ int }

func (s *Stream) Read(p []byte) (int, error)         { return 0, nil }
func (s *Stream) Write(p []byte) (int, error)        { return 0, nil }
func (s *Stream) Close() error                       { return nil }
func (s *Stream) CancelRead(code StreamErrorCode)    {}
func (s *Stream) CancelWrite(code StreamErrorCode)   {}
func (s *Stream) StreamID() StreamID                 { return 0 }
func (s *Stream) Context() context.Context           { return nil }
func (s *Stream) SetDeadline(t time.Time) error      { return nil }
func (s *Stream) SetReadDeadline(t time.Time) error  { return nil }
func (s *Stream) SetWriteDeadline(t time.Time) error { return nil }

type SendStream struct{ _ int }

func (s *SendStream) Write(p []byte) (int, error)      { return 0, nil }
func (s *SendStream) Close() error                     { return nil }
func (s *SendStream) CancelWrite(code StreamErrorCode) {}
func (s *SendStream) StreamID() StreamID               { return 0 }

type ReceiveStream struct{ _ int }

func (s *ReceiveStream) Read(p []byte) (int, error)      { return 0, nil }
func (s *ReceiveStream) CancelRead(code StreamErrorCode) {}
func (s *ReceiveStream) StreamID() StreamID              { return 0 }
