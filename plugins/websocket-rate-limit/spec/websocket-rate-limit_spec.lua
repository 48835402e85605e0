-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local function gateway_with(config, more)
  local options = { plugins = { { name = "websocket-rate-limit", config = config } } }
  for key, value in pairs(more or {}) do options[key] = value end
  return spec.gateway(options)
end

local function said(socket, text, kind)
  socket:send(text, kind)
  local it = socket:receive(0.01)
  return it and it.data, it and it.status
end

describe("websocket-rate-limit", function()
  it("closes with 1008 when a client sends too many messages", function()
    local gateway = gateway_with { minute = 3 }
    local socket = gateway:websocket("/")
    for i = 1, 3 do assert.equal(tostring(i), said(socket, tostring(i))) end
    assert.same({ "Too many messages", 1008 }, { said(socket, "4") })
    assert.is_true(socket:is_closed())
    local messages = gateway:requests()[1].messages
    assert.same({ type = "close", status = 1001, data = "" }, messages[#messages])
  end)

  it("drops what is too much when told so, until the window ends", function()
    local gateway = gateway_with { second = 2, action = "drop" }
    local socket = gateway:websocket("/")
    assert.equal("1", said(socket, "1"))
    assert.equal("2", said(socket, "2"))
    assert.is_nil((said(socket, "3")))
    gateway:advance(1)
    assert.equal("4", said(socket, "4"))
  end)

  it("counts a client over all of its connections", function()
    local gateway = gateway_with { minute = 2 }
    local one, two = gateway:websocket("/"), gateway:websocket("/")
    local other = gateway:websocket { path = "/", client_ip = "10.1.2.3" }
    assert.equal("a", said(one, "a"))
    assert.equal("b", said(two, "b"))
    assert.equal(1008, select(2, said(one, "c")))
    assert.equal("d", said(other, "d"))
  end)

  it("counts each connection by itself when told so", function()
    local gateway = gateway_with { minute = 1, limit_by = "connection" }
    local one, two = gateway:websocket("/"), gateway:websocket("/")
    assert.equal("a", said(one, "a"))
    assert.equal("b", said(two, "b"))
    assert.equal(1008, select(2, said(one, "c")))
  end)

  it("counts consumers, wherever they are", function()
    local gateway = gateway_with({ minute = 2, limit_by = "consumer" }, {
      plugins = { { name = "key-auth" }, { name = "websocket-rate-limit",
        config = { minute = 2, limit_by = "consumer", message = "slowly" } } },
      consumers = { { username = "ann", keyauth_credentials = { { key = "k" } } } },
    })
    local headers = { apikey = "k" }
    local one = gateway:websocket { path = "/", headers = headers, client_ip = "10.0.0.1" }
    local two = gateway:websocket { path = "/", headers = headers, client_ip = "10.0.0.2" }
    assert.equal("a", said(one, "a"))
    assert.equal("b", said(two, "b"))
    assert.same({ "slowly", 1008 }, { said(two, "c") })
  end)

  it("lets pings pass uncounted, unless told otherwise", function()
    local socket = gateway_with({ minute = 1 }):websocket("/")
    for _ = 1, 5 do assert.equal("p", said(socket, "p", "ping")) end
    assert.equal("a", said(socket, "a"))
    socket = gateway_with({ minute = 1, count_control = true }):websocket("/")
    assert.equal("p", said(socket, "p", "ping"))
    assert.equal(1008, select(2, said(socket, "p", "ping")))
  end)

  it("refuses a configuration without a limit", function()
    local _, err = spec.check { plugins = { { name = "websocket-rate-limit", config = {} } } }
    assert.matches("at least one of", err)
  end)
end)
