package compat

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/quiclife/quiclife"
)

// echo is a gRPC service with a unary method and a bidirectional stream. Both
// send back what they get.
var echo = grpc.ServiceDesc{
	ServiceName: "compat.Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := &wrapperspb.BytesValue{}
		if p, ok := peer.FromContext(ctx); !ok || p.Addr == nil {
			return nil, fmt.Errorf("no address of the peer")
		}
		return in, decode(in)
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "Stream", ClientStreams: true, ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
		for {
			in := &wrapperspb.BytesValue{}
			if err := s.RecvMsg(in); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			if err := s.SendMsg(in); err != nil {
				return err
			}
		}
	}}},
}

// unary makes count calls, and returns the first error.
func unary(ctx context.Context, client *grpc.ClientConn, count int) error {
	for i := range count {
		in := wrapperspb.Bytes(bytes.Repeat([]byte{byte(i)}, i*37%5000))
		var out wrapperspb.BytesValue
		if err := client.Invoke(ctx, "/compat.Echo/Unary", in, &out); err != nil {
			return err
		}
		if !bytes.Equal(in.Value, out.Value) {
			return fmt.Errorf("call %d: sent %d bytes, and got a different answer of %d", i, len(in.Value), len(out.Value))
		}
	}
	return nil
}

// exchange sends a message on s, and expects it back.
func exchange(s grpc.ClientStream, message string) error {
	if err := s.SendMsg(wrapperspb.Bytes([]byte(message))); err != nil {
		return err
	}
	var out wrapperspb.BytesValue
	if err := s.RecvMsg(&out); err != nil {
		return err
	}
	if string(out.Value) != message {
		return fmt.Errorf("sent %q, got %q", message, out.Value)
	}
	return nil
}

// TestGRPC makes unary calls, and has a bidirectional stream that GracefulStop
// waits for. No stream is left at either end.
func TestGRPC(t *testing.T) {
	for name, listen := range listenings {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				const perClient, calls = 5, 50 // on two connections, so 500 calls for each way to listen
				n := network(t, 2)
				srv := grpc.NewServer()
				srv.RegisterService(&echo, nil)
				done := make(chan error)
				lns := listen(t, n)
				for _, ln := range lns {
					go func() { done <- srv.Serve(ln) }()
				}

				var clients []*grpc.ClientConn
				for _, conn := range n.clients {
					for range perClient {
						dial := grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
							return conn.DialContext(ctx, "quic", addr)
						})
						client, err := grpc.NewClient("passthrough:///quic", dial, grpc.WithTransportCredentials(insecure.NewCredentials()))
						require.NoError(t, err)
						defer client.Close()
						clients = append(clients, client)
					}
				}
				errs := make([]error, len(clients))
				var wg sync.WaitGroup
				for i, client := range clients {
					wg.Go(func() { errs[i] = unary(t.Context(), client, calls) })
				}
				wg.Wait()
				for _, err := range errs {
					require.NoError(t, err)
				}
				for _, conn := range n.clients {
					require.EqualValues(t, perClient, conn.Stats().Outgoing.Opened, "each gRPC connection is a stream")
				}
				n.meet(t)

				last := clients[0]
				s, err := last.NewStream(t.Context(), &echo.Streams[0], "/compat.Echo/Stream")
				require.NoError(t, err)
				for i := range 100 {
					require.NoError(t, exchange(s, fmt.Sprint("message ", i)))
				}
				stopped := make(chan struct{})
				go func() { srv.GracefulStop(); close(stopped) }()
				settled()
				select {
				case <-stopped:
					require.Fail(t, "GracefulStop did not wait for the stream")
				default:
				}
				require.NoError(t, exchange(s, "GracefulStop waits"))
				require.NoError(t, s.CloseSend())
				require.Equal(t, io.EOF, s.RecvMsg(&wrapperspb.BytesValue{}))
				<-stopped
				for range lns {
					require.NoError(t, <-done, "Serve after GracefulStop")
				}
				settled()
				n.requireNothingLeft(t)
				require.NoError(t, n.guard.Shutdown(t.Context()))
				for _, client := range clients {
					client.Close()
				}
				settled()
				require.Zero(t, n.guard.Stats().Open())
			})
		})
	}
}

// TestGRPCEndsWithGuardShutdown: with GracefulStop in BeforeShutdown, calls finish.
func TestGRPCEndsWithGuardShutdown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := network(t, 1)
		srv := grpc.NewServer()
		srv.RegisterService(&echo, nil)
		n.guard.BeforeShutdown(func(context.Context) error { srv.GracefulStop(); return nil })
		done := make(chan error, 1)
		go func() { done <- srv.Serve(n.ln.NetListener()) }()
		client, err := grpc.NewClient("passthrough:///quic", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				return n.clients[0].DialContext(ctx, "quic", addr)
			}))
		require.NoError(t, err)
		defer client.Close()
		s, err := client.NewStream(t.Context(), &echo.Streams[0], "/compat.Echo/Stream")
		require.NoError(t, err)
		require.NoError(t, exchange(s, "before"))
		shut := make(chan error, 1)
		go func() { shut <- n.guard.Shutdown(t.Context()) }()
		settled()
		require.NoError(t, exchange(s, "during"))
		require.NoError(t, s.CloseSend())
		require.Equal(t, io.EOF, s.RecvMsg(&wrapperspb.BytesValue{}))
		// Serve may wait for GracefulStop, which waits for the call.
		if err := <-done; err != nil { // its listener was closed before it saw GracefulStop
			require.ErrorIs(t, err, quiclife.ErrServerClosed)
		}
		require.NoError(t, <-shut, "Guard.Shutdown")
		settled()
		require.Zero(t, n.clients[0].Stats().Open())
		require.Zero(t, n.guard.Stats().Open())
	})
}
