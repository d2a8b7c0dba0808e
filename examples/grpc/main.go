// Command grpc serves gRPC on quiclife: each of gRPC's connections is a stream.
// A handler reads the caller's name from the certificate of the QUIC connection.
//
//	go run ./examples/grpc
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log"
	"math/big"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/quiclife/quiclife"
)

func main() {
	answer, err := callAndShutDown("Alice")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("the server answered %q and shut down\n", answer)
}

// service is what protoc generates from a .proto file.
var service = grpc.ServiceDesc{
	ServiceName: "example.Greeter",
	HandlerType: (*any)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Greet", Handler: greet}},
}

// greet answers with the name in the caller's certificate.
func greet(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var greeting wrapperspb.StringValue
	if err := decode(&greeting); err != nil {
		return nil, err
	}
	caller, _ := peer.FromContext(ctx)
	cert := caller.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0]
	return wrapperspb.String(greeting.Value + ", " + cert.Subject.CommonName), nil
}

// onQUIC are credentials for both sides. QUIC has done the TLS handshake, so
// there is nothing left to do but tell gRPC how it went.
type onQUIC struct{}

func (onQUIC) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, credentials.TLSInfo{
		State:          c.(*quiclife.NetConn).Stream().Conn().ConnectionState().TLS,
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

func (q onQUIC) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return q.ClientHandshake(context.Background(), "", c)
}

func (onQUIC) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"} // makes gRPC use the scheme https
}

func (q onQUIC) Clone() credentials.TransportCredentials { return q }
func (onQUIC) OverrideServerName(string) error           { return nil } // gRPC does not call it

// callAndShutDown starts a server, and calls it as a client with the given name.
// It shuts the server down while the client is still connected.
func callAndShutDown(name string) (answer string, err error) {
	serverCert, trustServer, err := certificate("server")
	if err != nil {
		return "", err
	}
	clientCert, trustClient, err := certificate(name)
	if err != nil {
		return "", err
	}
	guard := &quiclife.Guard{}
	ln, err := guard.ListenAddr("127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{serverCert},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    trustClient,
		NextProtos:   []string{"grpc"},
	}, &quiclife.Config{MaxIncomingUniStreams: -1}) // gRPC uses no unidirectional streams
	if err != nil {
		return "", err
	}
	srv := grpc.NewServer(grpc.Creds(onQUIC{}))
	srv.RegisterService(&service, nil)
	guard.BeforeShutdown(func(ctx context.Context) error { // calls end before connections do
		defer context.AfterFunc(ctx, srv.Stop)()
		srv.GracefulStop()
		return ctx.Err()
	})
	go srv.Serve(ln.NetListener()) // until Shutdown

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := quiclife.DialAddr(ctx, ln.Addr().String(), &tls.Config{
		Certificates: []tls.Certificate{clientCert},
		RootCAs:      trustServer,
		NextProtos:   []string{"grpc"},
	}, nil)
	if err != nil {
		return "", err
	}
	defer conn.CloseWithError(0, "")
	dial := func(ctx context.Context, addr string) (net.Conn, error) { return conn.DialContext(ctx, "quic", addr) }
	client, err := grpc.NewClient("passthrough:///server", grpc.WithContextDialer(dial), grpc.WithTransportCredentials(onQUIC{}))
	if err != nil {
		return "", err
	}
	defer client.Close()
	var reply wrapperspb.StringValue
	if err := client.Invoke(ctx, "/example.Greeter/Greet", wrapperspb.String("hello"), &reply); err != nil {
		return "", err
	}
	return reply.Value, guard.Shutdown(ctx)
}

// certificate makes a self-signed certificate, and a pool that trusts it.
func certificate(name string) (cert tls.Certificate, trusted *x509.CertPool, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return cert, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		IPAddresses:  []net.IP{{127, 0, 0, 1}},
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return cert, nil, err
	}
	trusted = x509.NewCertPool()
	trusted.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, trusted, nil
}
