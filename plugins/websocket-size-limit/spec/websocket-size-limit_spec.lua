-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local function with(config)
  return { plugins = { { name = "websocket-size-limit", config = config } } }
end

describe("websocket-size-limit", function()
  it("closes with 1009 when a message of the client is too large", function()
    local gateway = spec.gateway(with { client_max_payload = 10 })
    local socket = gateway:websocket("/")
    socket:send("0123456789")
    assert.same({ type = "text", data = "0123456789" }, socket:receive())
    socket:send("0123456789a")
    assert.same({ type = "close", status = 1009, data = "Payload Too Large" }, socket:receive())
    local messages = gateway:requests()[1].messages
    assert.same({ type = "close", status = 1001, data = "" }, messages[#messages])
  end)

  it("closes with 1009 toward the service when its message is too large", function()
    local options = with { upstream_max_payload = 10 }
    options.upstreams = { ["*"] = { websocket = function(message) return message.data .. message.data end } }
    local gateway = spec.gateway(options)
    local socket = gateway:websocket("/")
    socket:send("01234")
    assert.equal("0123401234", socket:receive().data)
    socket:send("012345")
    assert.same({ type = "close", status = 1001, data = "" }, socket:receive())
    local messages = gateway:requests()[1].messages
    assert.same({ type = "close", status = 1009, data = "Payload Too Large" }, messages[#messages])
  end)

  it("leaves the side that it does not bound at the gateway's own bound", function()
    local gateway = spec.gateway(with { upstream_max_payload = 2000000 })
    local socket = gateway:websocket("/")
    socket:send(("x"):rep(1048576), "binary")
    assert.equal(1048576, #socket:receive().data)
    socket:send(("x"):rep(1048577), "binary")
    assert.equal(1009, socket:receive().status)
  end)

  it("has nothing to do with other requests", function()
    local gateway = spec.gateway(with { client_max_payload = 1 })
    assert.equal(200, gateway:post("/", ("x"):rep(100)).status)
  end)

  it("refuses a configuration without a bound, or with one beyond 32 MiB", function()
    assert.matches("at least one of", select(2, spec.check(with {})))
    assert.matches("client_max_payload: expected an integer from 1 to 33554432",
      select(2, spec.check(with { client_max_payload = 33554433 })))
  end)
end)
