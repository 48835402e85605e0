// SPDX-License-Identifier: Apache-2.0

// Client and server (-serve) of the interop service with compressed messages, which grpc-go's interop programs do not
// do: unary and in both directions of a stream, small ones that grow and large ones that shrink. The client prints
// nothing and exits with 0 when all is as it must be.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop"
	pb "google.golang.org/grpc/interop/grpc_testing"
)

var (
	address = flag.String("address", "", "host:port of the server")
	caFile  = flag.String("ca_file", "", "use TLS, with certificates of this authority")
	name    = flag.String("name", "", "the name that the server's certificate must have")
	serve   = flag.Bool("serve", false, "be the server, at that address")
	kind    = flag.String("case", "unary", "unary, streaming or mixed")
	sizes   = []int{0, 1, 27182, 828182, 1834}
)

func payload(size int) *pb.Payload {
	return &pb.Payload{Body: make([]byte, size)}
}

func check(size int, answer *pb.Payload) error {
	if len(answer.GetBody()) != size {
		return fmt.Errorf("asked for %d bytes, got %d", size, len(answer.GetBody()))
	}
	return nil
}

func unary(ctx context.Context, client pb.TestServiceClient, options ...grpc.CallOption) error {
	for _, size := range sizes {
		request := &pb.SimpleRequest{ResponseSize: int32(size), Payload: payload(size)}
		answer, err := client.UnaryCall(ctx, request, options...)
		if err != nil {
			return err
		}
		if err := check(size, answer.Payload); err != nil {
			return err
		}
	}
	return nil
}

func streaming(ctx context.Context, client pb.TestServiceClient) error {
	stream, err := client.FullDuplexCall(ctx, grpc.UseCompressor(gzip.Name))
	if err != nil {
		return err
	}
	for _, size := range sizes {
		request := &pb.StreamingOutputCallRequest{
			ResponseParameters: []*pb.ResponseParameters{{Size: int32(size)}}, Payload: payload(size)}
		if err := stream.Send(request); err != nil {
			return err
		}
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := check(size, answer.Payload); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); err != io.EOF {
		return fmt.Errorf("not the end: %v", err)
	}
	return nil
}

// Compressed and plain calls in turns, all at once on one connection.
func mixed(ctx context.Context, client pb.TestServiceClient) error {
	const calls = 20
	done := make(chan error, calls)
	for call := 0; call < calls; call++ {
		options := []grpc.CallOption{}
		if call%2 == 0 {
			options = append(options, grpc.UseCompressor(gzip.Name))
		}
		go func() { done <- unary(ctx, client, options...) }()
	}
	for call := 0; call < calls; call++ {
		if err := <-done; err != nil {
			return err
		}
	}
	return nil
}

// Answers in the compression that it was asked in.
func listen() error {
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	pb.RegisterTestServiceServer(server, interop.NewTestServer())
	return server.Serve(listener)
}

func main() {
	flag.Parse()
	if *serve {
		log.Fatal(listen())
	}
	secure := insecure.NewCredentials()
	if *caFile != "" {
		var err error
		if secure, err = credentials.NewClientTLSFromFile(*caFile, *name); err != nil {
			log.Fatal(err)
		}
	}
	connection, err := grpc.Dial(*address, grpc.WithTransportCredentials(secure))
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client := pb.NewTestServiceClient(connection)
	switch *kind {
	case "unary":
		err = unary(ctx, client, grpc.UseCompressor(gzip.Name))
	case "streaming":
		err = streaming(ctx, client)
	case "mixed":
		err = mixed(ctx, client)
	default:
		err = fmt.Errorf("no such case: %s", *kind)
	}
	if err != nil {
		log.Fatal(err)
	}
}
