// SPDX-License-Identifier: Apache-2.0

// Otlp-descriptors prints OpenTelemetry's own definitions of its wire format, as a FileDescriptorSet.
package main

import (
	"os"

	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

func add(set *descriptorpb.FileDescriptorSet, seen map[string]bool, file protoreflect.FileDescriptor) {
	if seen[file.Path()] {
		return
	}
	seen[file.Path()] = true
	imports := file.Imports()
	for i := 0; i < imports.Len(); i++ {
		add(set, seen, imports.Get(i).FileDescriptor)
	}
	set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
}

func main() {
	set, seen := &descriptorpb.FileDescriptorSet{}, map[string]bool{}
	for _, message := range []proto.Message{&trace.TracesData{}, &logs.LogsData{}, &metrics.MetricsData{}} {
		add(set, seen, message.ProtoReflect().Descriptor().ParentFile())
	}
	bytes, err := proto.Marshal(set)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(bytes)
}
