// SPDX-License-Identifier: Apache-2.0

// Command greeter is the gRPC service that the specs of grpc-gateway and grpc-web call, and their READMEs show:
//
//	service Greeter {                                        // of package hello
//	  rpc Hello(Greeting) returns (Greeting);                // "nobody" is not found, with details
//	  rpc Countdown(Greeting) returns (stream Greeting);     // from number to 1; "nobody" breaks off behind the first
//	  rpc Collect(stream Greeting) returns (Greeting);       // how many there were
//	}
//	message Greeting { string name = 1; string text = 2; int32 number = 3; }
//
// Countdown waits a tenth of a second behind each message. It answers grpc.health.v1, too: SIGUSR1 makes hello.Greeter
// NOT_SERVING, SIGUSR2 SERVING; the whole server is SERVING. The port is the first argument; no generated code is needed.
package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

type greeting struct {
	name, text string
	number     int32
}

type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) ([]byte, error) {
	g, ok := v.(*greeting)
	if !ok {
		return proto.Marshal(v.(proto.Message))
	}
	var out []byte
	for i, text := range []string{g.name, g.text} {
		if text != "" {
			out = protowire.AppendTag(out, protowire.Number(i+1), protowire.BytesType)
			out = protowire.AppendString(out, text)
		}
	}
	if g.number != 0 {
		out = protowire.AppendTag(out, 3, protowire.VarintType)
		out = protowire.AppendVarint(out, uint64(g.number))
	}
	return out, nil
}

func (codec) Unmarshal(data []byte, v any) error {
	g, ok := v.(*greeting)
	if !ok {
		return proto.Unmarshal(data, v.(proto.Message))
	}
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return errors.New("malformed greeting")
		}
		data = data[n:]
		switch {
		case number <= 2 && kind == protowire.BytesType:
			text, m := protowire.ConsumeString(data)
			if n = m; number == 1 {
				g.name = text
			} else {
				g.text = text
			}
		case number == 3 && kind == protowire.VarintType:
			value, m := protowire.ConsumeVarint(data)
			n, g.number = m, int32(value)
		default:
			n = protowire.ConsumeFieldValue(number, kind, data)
		}
		if n < 0 {
			return errors.New("malformed greeting")
		}
		data = data[n:]
	}
	return nil
}

func notFound(name string) error {
	s := status.New(codes.NotFound, "there is no "+name)
	s, err := s.WithDetails(&errdetails.ErrorInfo{Reason: "UNKNOWN_NAME", Domain: "hello.example"})
	if err != nil {
		return err
	}
	return s.Err()
}

func hello(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	in := new(greeting)
	if err := decode(in); err != nil {
		return nil, err
	}
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-greeter", "go"))
	if in.name == "nobody" {
		return nil, notFound(in.name)
	}
	return &greeting{name: in.name, text: "hello, " + in.name, number: in.number}, nil
}

func countdown(_ any, stream grpc.ServerStream) error {
	in := new(greeting)
	if err := stream.RecvMsg(in); err != nil {
		return err
	}
	for n := in.number; n > 0; n-- {
		if err := stream.SendMsg(&greeting{name: in.name, number: n}); err != nil {
			return err
		}
		if in.name == "nobody" {
			return notFound(in.name)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

func collect(_ any, stream grpc.ServerStream) error {
	out := new(greeting)
	for {
		in := new(greeting)
		err := stream.RecvMsg(in)
		if errors.Is(err, io.EOF) {
			return stream.SendMsg(out)
		}
		if err != nil {
			return err
		}
		out.number++
		out.text += in.name + ";"
	}
}

func tellHealth(server *grpc.Server) {
	const name = "hello.Greeter"
	state := health.NewServer()
	state.SetServingStatus(name, healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(server, state)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for one := range signals {
			if one == syscall.SIGUSR1 {
				state.SetServingStatus(name, healthpb.HealthCheckResponse_NOT_SERVING)
			} else {
				state.SetServingStatus(name, healthpb.HealthCheckResponse_SERVING)
			}
		}
	}()
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodec(codec{}))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "hello.Greeter",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Hello", Handler: hello}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Countdown", Handler: countdown, ServerStreams: true},
			{StreamName: "Collect", Handler: collect, ClientStreams: true},
		},
	}, nil)
	tellHealth(server)
	panic(server.Serve(listener))
}
