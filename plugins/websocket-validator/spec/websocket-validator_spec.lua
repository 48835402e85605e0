-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local NAMED = '{"type":"object","required":["name"]}'

local function with(config)
  return { plugins = { { name = "websocket-validator", config = config } } }
end

describe("websocket-validator", function()
  it("passes what fits, and closes with 1007 what does not", function()
    local gateway = spec.gateway(with { client = { text = { type = "draft4", schema = NAMED } } })
    local socket = gateway:websocket("/")
    socket:send('{"name":1}')
    assert.same({ type = "text", data = '{"name":1}' }, socket:receive())
    socket:send('{"no":1}')
    assert.same({ type = "close", status = 1007, data = "" }, socket:receive())
    local messages = gateway:requests()[1].messages
    assert.same({ { type = "text", data = '{"name":1}' }, { type = "close", status = 1001, data = "" } }, messages)
    assert.equal(1, #gateway:log 'a message does not fit its schema.*expected a member named')
  end)

  it("closes what is no JSON, or says a thing twice", function()
    for _, text in ipairs { "{", "", '{"name":1,"name":2}' } do
      local gateway = spec.gateway(with { client = { text = { type = "draft4", schema = NAMED } } })
      local socket = gateway:websocket("/")
      socket:send(text)
      assert.equal(1007, socket:receive().status)
    end
  end)

  it("checks each kind of each side by its own schema", function()
    local function number(most) return { type = "draft202012", schema = ('{"maximum":%d}'):format(most) } end
    local options = with { client = { text = number(1), binary = number(2) },
      upstream = { text = number(3), binary = number(4) } }
    -- What is sent, and as what; what the service makes of it; whether that comes back.
    for _, case in ipairs { { "1", "text", "3", true }, { "2", "text", "0", false }, { "2", "binary", "4", true },
      { "3", "binary", "0", false }, { "0", "text", "4", false }, { "0", "binary", "5", false } } do
      options.upstreams = { ["*"] = { websocket = function(message) return case[3], message.type end } }
      local socket = spec.gateway(options):websocket("/")
      socket:send(case[1], case[2])
      local got = socket:receive()
      assert.equal(case[4], got.type == case[2] and got.data == case[3])
      if not case[4] then assert.equal("close", got.type) end
    end
  end)

  it("tells the service 1007 when its message does not fit, and the client 1001", function()
    local options = with { upstream = { text = { type = "draft4", schema = NAMED } } }
    local gateway = spec.gateway(options)
    local socket = gateway:websocket("/")
    socket:send("[]")
    assert.same({ type = "close", status = 1001, data = "" }, socket:receive())
    local messages = gateway:requests()[1].messages
    assert.same({ type = "close", status = 1007, data = "" }, messages[#messages])
  end)

  it("lets pings, pongs and messages of other kinds pass", function()
    local gateway = spec.gateway(with { client = { text = { type = "draft7", schema = "false" } } })
    local socket = gateway:websocket("/")
    socket:send("x", "binary")
    assert.same({ type = "binary", data = "x" }, socket:receive())
    socket:send("x", "ping")
    assert.same({ type = "pong", data = "x" }, socket:receive())
  end)

  describe("refuses a configuration", function()
    local function problem(config)
      return select(2, spec.check(with(config)))
    end

    it("without a schema", function()
      assert.matches("expected at least one of client or upstream", problem {}, 1, true)
      assert.matches("config.client: expected at least one of text or binary", problem { client = {} }, 1, true)
      assert.matches("client.text.schema: expected", problem { client = { text = { type = "draft4" } } }, 1, true)
    end)

    it("whose schema is none", function()
      assert.matches("config.upstream.binary.schema: expected JSON",
        problem { upstream = { binary = { type = "draft4", schema = "{" } } }, 1, true)
      assert.matches("#/type: expected the name of a type",
        problem { upstream = { binary = { type = "draft4", schema = '{"type":"x"}' } } }, 1, true)
      assert.matches("config.client.text.type: expected one of draft4",
        problem { client = { text = { type = "kong", schema = "{}" } } }, 1, true)
    end)
  end)
end)
