// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package tools names the programs that `make tools` builds from other modules, so that go.mod and go.sum pin them.
package tools

import (
	_ "github.com/summerwind/h2spec/cmd/h2spec"
	_ "google.golang.org/grpc/interop/client"
	_ "google.golang.org/grpc/interop/server"
)
