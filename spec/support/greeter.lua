-- SPDX-License-Identifier: Apache-2.0
-- The gRPC service hello.Greeter, in Go (spec/support/go/greeter), which `make tools` builds.
local net = require "spec.support.net"
local process = require "spec.support.process"

local greeter = {}

greeter.PROTO = [[
syntax = "proto3";
package hello;
import "google/api/annotations.proto";

service Greeter {
  rpc Hello(Greeting) returns (Greeting) {
    option (google.api.http) = {
      get: "/v1/hello/{name}"
      additional_bindings { post: "/v1/hello" body: "*" }
    };
  }
  rpc Countdown(Greeting) returns (stream Greeting) {
    option (google.api.http).get = "/v1/countdown/{name}";
  }
  rpc Collect(stream Greeting) returns (Greeting) {
    option (google.api.http) = { post: "/v1/collect" body: "*" };
  }
}

message Greeting {
  string name = 1;
  string text = 2;
  int32 number = 3;
}
]]

-- Starts it on a free port, and waits until it listens: { port, stop(), signal(number) }.
function greeter.start()
  local port = process.free_port()
  local child = process.start { ".cache/bin/greeter", tostring(port) }
  process.wait_until(function()
    local socket = net.connect("127.0.0.1", port)
    if socket then socket:close() end
    return socket ~= nil
  end, 10, "the greeter listens")
  return { port = port, stop = function() child:stop() end, signal = function(number) child:signal(number) end }
end

return greeter
