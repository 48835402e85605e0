-- SPDX-License-Identifier: Apache-2.0
-- statsd over TCP: the spec is the server.
local gateway = require "spec.support.gateway"
local net = require "spec.support.net"
local posix = require "spec.support.posix"

describe("statsd over TCP", function()
  it("writes lines, and keeps its connection", function()
    local listener, port = posix.listen("127.0.0.1", 0)
    local gw = gateway.start {
      _format_version = "3.0",
      routes = { { name = "all", paths = { "/" }, plugins = {
        { name = "request-termination", config = { status_code = 200 } },
        { name = "statsd", config = { host = "127.0.0.1", port = port, use_tcp = true, metrics = {
          { name = "request_count", stat_type = "counter", sample_rate = 1 },
          { name = "status_count", stat_type = "counter", sample_rate = 1 } } } },
      } } },
    }
    local expected = "kong.global.unmatched.request.count:1|c\nkong.global.unmatched.status.200:1|c\n"
    gw:get("/1")
    assert.is_true(posix.wait_fd(listener, posix.POLLIN, posix.now() + 5))
    local socket = net.wrap(posix.accept(listener), 5)
    assert.equal(expected, socket:receive_exact(#expected))
    gw:get("/2")
    assert.equal(expected, socket:receive_exact(#expected))
    socket:close()
    posix.C.sys_close_fd(listener)
    gw:stop()
  end)
end)
